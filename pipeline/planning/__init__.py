"""From records to a plan: which posts are wanted, and in which split and shard each one is."""
