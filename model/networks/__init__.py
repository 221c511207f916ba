"""The networks, each reads like the figure of its paper, and the losses that teach them."""
