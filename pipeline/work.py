"""The work folder: where everything lies, and one run at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.rows import is_out_of_space, sweep_temporaries
from pipeline.shard import recover


@dataclass(frozen=True, slots=True)
class Work:
    """A work folder's places."""

    root: Path

    @property
    def plan_path(self) -> Path:
        """Every wanted post, with its split and shard."""
        return self.root / "selection.parquet"

    @property
    def listing_dir(self) -> Path:
        """Pages of an API that the selection was made from, a folder for each query."""
        return self.root / "listing"

    @property
    def lock_path(self) -> Path:
        """The lock that the plan was taken from; absent where it came from metadata."""
        return self.root / "posts.parquet"

    @property
    def differences_path(self) -> Path:
        """Post by post, what is not as the lock says; absent where all is."""
        return self.root / "differences.csv"

    @property
    def raw_dir(self) -> Path:
        """Shards of originals."""
        return self.root / "raw"

    @property
    def reuse_dir(self) -> Path:
        """Earlier plans, each with its shards of originals, until the new one has used them."""
        return self.root / "raw.old"

    @property
    def index_dir(self) -> Path:
        """Indexes of remote tars, while a fetch is under way."""
        return self.root / "indexes"

    @property
    def ledger_dir(self) -> Path:
        """How each original came."""
        return self.root / "ledger"

    @property
    def samples_dir(self) -> Path:
        """Shards of samples."""
        return self.root / "samples"

    @property
    def share_dir(self) -> Path:
        """What is shared beside the samples, as last pushed or pulled: card, lock, recipe."""
        return self.root / "share"

    @property
    def incoming_dir(self) -> Path:
        """Files that are being pulled, until they are whole and found to be what they ought to."""
        return self.root / "incoming"

    @property
    def runs_dir(self) -> Path:
        """Training runs."""
        return self.root / "runs"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, and finish or clear what an interrupted one left half-done.

        Raises:
            UserError: where another run holds it, it cannot be written, or it has no room left.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.root / ".lock", blocking=False).acquire()
        except Timeout as error:
            raise UserError(
                f"{self.root}: another run is using this folder; wait until it has ended."
            ) from error
        except OSError as error:
            raise UserError(f"{self.root}: cannot be written: {error.strerror}.") from error
        with held, self._room():
            self._recover()
            try:
                yield
            finally:
                self._recover()

    def _recover(self) -> None:
        places = (self.root, self.ledger_dir, self.share_dir, *self.listing_dir.glob("*"))
        for directory in places:
            sweep_temporaries(directory)
        for directory in (self.raw_dir, self.samples_dir):
            recover(directory)

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_out_of_space(error):
                raise
            raise UserError(
                f"{self.root}: {os.strerror(error.errno or 0).lower()}; make room there and run "
                "the same command again."
            ) from error
