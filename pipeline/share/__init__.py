"""Share a prepared data set, and bring a shared one here: see ``push.py`` and ``pull.py``."""
