"""Drawn characters with records in Danbooru's shape: the data set that is always there."""
