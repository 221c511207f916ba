"""The commands of the data set's side, by what they are for: make it, look after it, share it."""
