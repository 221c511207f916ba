"""From Danbooru metadata to sharded samples: selection, download, crop, sketch, shards."""
