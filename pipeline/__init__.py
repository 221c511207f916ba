"""From Danbooru metadata to sharded samples: selection, download, crop, sketch, shards.

- ``commands``: the command line's side. It calls ``run``, where ``fetch`` and ``prepare`` go over
  a whole work folder, ``maintenance`` (status, verify, repair, takedown), ``lockfile``, ``share``
  (push, pull, and training from afar) and ``report`` (a page to look at).
- ``metadata``, ``planning``: records, and which of them are wanted, in which split and shard.
- ``stages``: fetch and prepare, each from one shard to one shard; ``executor`` and
  ``executor_ray`` run them over all, ``shard_store`` where shards lie in a store.
- ``web``, ``stores``: where bytes come from and go to. ``shards``: how samples lie on a disk.
- ``pictures``: decoding, letterbox, sketches. ``dolls``: pictures that are always there.
"""
