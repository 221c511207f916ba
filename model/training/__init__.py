"""Training: the loop, a step of it, and what a run keeps in its folder."""
