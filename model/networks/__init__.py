"""Networks that read like the figures of their papers, and the losses that teach them."""
