"""Where files lie beside work folders: on disks, in stores that fsspec knows, on the Hub."""
