"""Danbooru's metadata, in whatever shape it comes -> posts: see ``files.py``."""
