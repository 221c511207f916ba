"""Clients that outlive what they are used for: one for all shards that a process fetches."""

import contextlib
from collections.abc import Iterator

from pipeline.recipe import SourceSettings
from pipeline.web.client import Client
from pipeline.web.hosts import allowed_hosts

_shared: dict[tuple[SourceSettings, float], Client] = {}


@contextlib.contextmanager
def shared_client(source: SourceSettings, share: float) -> Iterator[Client]:
    """Lend this process's client for some settings, so that its memory outlives a shard.

    What it knows of the hosts (turns, holds, refusals, open connections) is kept until
    ``close_shared_clients``, or until an error ends what it was lent for: it is closed then, so
    that no thread goes on waiting for it.
    """
    if (source, share) not in _shared:
        _shared[source, share] = Client(source, allowed_hosts(source), share)
    try:
        yield _shared[source, share]
    except BaseException:
        close_shared_clients()
        raise


def close_shared_clients() -> None:
    """Close every client that ``shared_client`` keeps; the next call makes a new one."""
    while _shared:
        _shared.popitem()[1].close()
