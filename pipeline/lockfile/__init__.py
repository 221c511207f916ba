"""The lock, ``posts.parquet``: written, checked, turned into a plan, and held against a folder."""
