"""Asking web servers, politely and of no host that was not allowed: see ``client.py``."""
