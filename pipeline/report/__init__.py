"""A work folder as one page to look at: see ``page.py``."""
