"""The work folder: where everything lies, and what a run finds and leaves there."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.disk import check_place, reason, sweep_temporaries, telling_out_of_space
from pipeline.errors import UserError
from pipeline.hold import WHOLE, WHOLE_LOCK, Entry, Part, Say, hold
from pipeline.removals import read_removals
from pipeline.shards.shard import recover
from pipeline.words import is_utf8


class _Place:
    """A file of a work folder, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, work: "Work", kind: object = None) -> Path:
        return work.root / self._name


class _Folder(_Place):
    """A folder of a work folder, by its name there."""


@dataclass(frozen=True, slots=True)
class Work:
    """A work folder's places.

    Raises:
        UserError: where its name's bytes are no UTF-8, as names from old archives may be.
    """

    root: Path

    hold_path = _Place(WHOLE_LOCK)  # held by a run for as long as it lasts; see ``hold``
    plan_path = _Place("selection.parquet")  # every wanted post, with its split and shard
    listing_dir = _Folder("listing")  # pages of an API, a folder for each query
    lock_path = _Place("posts.parquet")  # the lock that the plan was taken from, if it was
    differences_path = _Place("differences.csv")  # what is not as the lock says; absent if nothing
    raw_dir = _Folder("raw")  # shards of originals
    reuse_dir = _Folder("raw.old")  # those of earlier plans, a folder each, until they are used
    index_dir = _Folder("indexes")  # of remote tars, during a fetch; of ranks until all is fetched
    ledger_dir = _Folder("ledger")  # how each original came
    store_path = _Place("store.txt")  # which store has the shards' tars, if they are not here
    duplicates_path = _Place("duplicates.parquet")  # posts that repeat earlier ones, as found last
    samples_dir = _Folder("samples")  # shards of samples
    share_dir = _Folder("share")  # what was last pushed or pulled beside them: card, lock, recipe
    incoming_dir = _Folder(".incoming")  # files of a pull until they are whole; hidden, to be ours
    removals_path = _Place("takedown.json")  # posts that were taken down here; absent if none was
    cleared_dir = _Folder("cleared")  # shards without posts that go, until their store has them
    style_dir = _Folder("style")  # style features of the samples, which training keeps
    report_path = _Place("report.html")  # the page about the folder, unless it is told elsewhere
    runs_dir = _Folder("runs")  # training runs

    def __post_init__(self) -> None:
        if not is_utf8(name := str(self.root)):
            raise UserError(
                f"{name!a}: is not UTF-8, as the name of a work folder must be; so must the locale."
            )

    def old_works(self) -> list["Work"]:
        """Return the folders in ``reuse_dir`` that have originals as this one had, latest first."""
        raw_dirs = self.reuse_dir.glob(f"*/{self.raw_dir.name}")
        folders = [path.parent for path in raw_dirs if path.parent.name.isdecimal()]
        return [Work(folder) for folder in sorted(folders, key=lambda path: -int(path.name))]

    @property
    def store(self) -> str:
        """The store that has the shards' tars, "" where they are here."""
        check_place(self.store_path)
        try:
            return self.store_path.read_text(encoding="utf-8").removesuffix("\n")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, ValueError) as error:
            raise UserError(f"{self.store_path}: cannot be read: {reason(error)}.") from error

    @property
    def takedown_command(self) -> str:
        """What finishes a takedown that was cut short."""
        return f"takedown {self.root}" + (f" --store {self.store}" if self.store else "")

    def check_places(self) -> None:
        """Check that files are where files go, and folders where folders go.

        Raises:
            UserError: naming the first that is in the way.
        """
        for place in vars(Work).values():
            if not isinstance(place, _Place):
                continue
            path = place.__get__(self)
            if isinstance(place, _Folder):
                if os.path.lexists(path) and not path.is_dir():  # a link may lead nowhere
                    raise UserError(f"{path}: is no folder, and one goes there; move it away.")
            else:
                check_place(path)

    def check_store(self, store: str = "") -> None:
        """Check that the shards' tars are where a command looks for them, here by default.

        Raises:
            UserError: where they are not.
        """
        if self.store not in ("", store):
            raise UserError(
                f"{self.root}: the tars of its shards are in {self.store}. With it go `fetch`, "
                f"`prepare` and `takedown` with --store {self.store}, `push` to there, `status`, "
                "`lock`, `report` without pictures, and `train --shards` with what was pushed; for "
                "all else `pull` that into a folder of its own."
            )

    def check_takedown(self) -> None:
        """Check that no takedown waits to be finished, or raise UserError."""
        if read_removals(self.removals_path).unfinished is not None:
            raise UserError(
                f"{self.root}: a takedown was cut short; finish it: `{self.takedown_command}`."
            )

    @contextmanager
    def lock(
        self, part: Part = WHOLE, say: Say = print, *, takes_down: bool = False, store: str = ""
    ) -> Iterator["Run"]:
        """Hold the folder for one run, and finish or clear what an interrupted one left half-done.

        Args:
            part: a rank's run touches its own shards only, and says with ``Run.begin`` when it has
                found the plan.
            say: is told what a rank waits for.
            takes_down: whether it is held to finish a takedown, before which nothing else may run.
            store: where the run takes the shards' tars to be, "" for the folder itself.

        Raises:
            UserError: where something is in the way in the folder, a run is there that this one
                must not work beside, the folder cannot be written, it has no room left, a takedown
                was cut short, or the shards' tars are elsewhere.
        """
        self.check_places()
        with (
            hold(self.root, part, say) as entry,
            telling_out_of_space(self.root, "make room there and run the same command again."),
        ):
            self.check_store(store)
            run = Run(self, part, entry)
            self._sweep_plans()
            self._recover(run.names)
            if not takes_down:
                self.check_takedown()
            try:
                yield run
            finally:
                self._recover(run.names)
                if part.is_whole:
                    self._sweep_plans()

    def _sweep_plans(self) -> None:
        for directory in (self.root, self.share_dir, *self.listing_dir.glob("*")):
            sweep_temporaries(directory)

    def _recover(self, names: Collection[str] | None) -> None:
        for directory in (self.raw_dir, self.samples_dir):
            recover(directory, names)
        sweep_temporaries(self.ledger_dir, names)


class Run:
    """A run that holds a work folder.

    Attributes:
        has_peers: whether other ranks are at work beside it; the plan must stay as it is then.
        names: of the shards that it may touch; None for all.
    """

    def __init__(self, work: Work, part: Part, entry: Entry) -> None:
        self.has_peers = entry.has_peers
        self.names: Collection[str] | None = None if part.is_whole else ()
        self._work = work
        self._part = part
        self._entry = entry

    def begin(self, planned: dict[str, int]) -> dict[str, int]:
        """Return this run's shards of all ``planned`` ones, and let the other ranks in.

        From here on the plan and the other shards are not this run's to change, if it is a rank's.
        """
        chosen = self._part.choose(planned)
        if self.names is not None:
            self.names = chosen.keys()
            self._entry.let_others_in()
            self._work._recover(self.names)
        return chosen
