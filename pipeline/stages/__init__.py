"""fetch and prepare, each from one shard to one shard, and what only they need."""
