"""Where shards of samples are, behind the few calls that training makes: this is the local answer.

``pipeline.share.stream.RemoteShards`` answers the same calls for a data set that is elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.errors import DamagedError, UserError
from pipeline.schema import SAMPLES
from pipeline.settings import Table
from pipeline.shards.shard import Span, list_shards, read_shard
from pipeline.shards.tar_pool import TarPool


class Shards(Protocol):
    """Prepared shards; ``read`` is called by many threads.

    Attributes:
        place: where they are, for errors.
        remedy: what to do about a damaged one, for errors.
    """

    place: str
    remedy: str

    def names(self, split: str) -> list[str]:
        """Return the shards of a split, sorted."""

    def rows(self, name: str) -> tuple[pa.Table, Table]:
        """Return a shard's rows and the info about them.

        Raises:
            UserError: where they are damaged, or do not belong to the shard's tar.
        """

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Return some members of one sample, as long as their spans or cut off by the tar's end.

        Raises:
            UserError: where they cannot be had.
        """

    def expect(self, windows: Sequence[Sequence[str]]) -> None:
        """Say which shards will be read, a window after the other; it holds until the next call.

        A window is what an epoch shuffles together, see ``order.Window``; others may be read.
        """

    def keep(self, names: Sequence[str]) -> None:
        """Say which shards will be read again and again."""

    def close(self) -> None:
        """Let go of files and connections."""


class LocalShards:
    """Shards in a folder; see ``Shards``."""

    def __init__(self, directory: Path) -> None:
        self.place = str(directory)
        self.remedy = f"Find out what else is damaged: `verify {directory.parent}`."
        self._directory = directory
        self._tars = TarPool()

    def names(self, split: str) -> list[str]:
        """Return the committed shards of a split."""
        return list_shards(self._directory, split)

    def rows(self, name: str) -> tuple[pa.Table, Table]:
        """Return a shard's rows and info."""
        try:
            return read_shard(self._directory, name, SAMPLES)
        except DamagedError as error:
            raise DamagedError(f"{error} {self.remedy}") from error

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Return members of a tar."""
        try:
            return self._tars.open(f"{self.place}/{name}.tar").read(spans)
        except OSError as error:
            raise UserError(f"{self.place}/{name}.tar: {error.strerror}. {self.remedy}") from error

    def expect(self, windows: Sequence[Sequence[str]]) -> None:
        """Need not know: the system reads ahead."""

    def keep(self, names: Sequence[str]) -> None:
        """Need not know: they are here."""

    def close(self) -> None:
        """Close the tars."""
        self._tars.close()
