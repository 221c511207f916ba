"""The commands of the data set's side, by what they are for: make it, look after it, share it.

Each parses, calls one function, and prints; heavy imports stay inside the commands.
"""
