"""From Danbooru metadata to sharded samples: selection, download, crop, sketch, shards.

- ``commands``: the command line's side; ``run``, ``status``, ``verify``, ``repair``, ``takedown``
  and ``lock`` are what it calls.
- ``metadata``, ``planning``: records, and which of them are wanted, in which split and shard.
- ``fetch``, ``prepare``: the two stages, each from one shard to one shard, with what ``earlier``
  runs left and the ``ledger``; ``executor`` and ``executor_ray`` run them over all, ``shard_store``
  where shards lie in a store.
- ``web``, ``stores``: where bytes come from and go to. ``shards``: how samples lie on a disk.
- ``pictures``: decoding, letterbox, sketches. ``dolls``: pictures that are always there.
- ``share``: push, pull, and training from afar. ``report``: a page to look at.
"""
