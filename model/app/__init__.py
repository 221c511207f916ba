"""A page to colour on, in the browser: see ``page.py``."""
