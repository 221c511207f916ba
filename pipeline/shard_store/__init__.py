"""Runs whose shards lie in a store (``--store``): the driver has their rows, workers make them."""
