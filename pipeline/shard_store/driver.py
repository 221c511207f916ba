"""The driver's side of a run whose shards lie in a store: the work folder has their rows only.

The store is right and the folder follows: a run begins by downloading the rows that the folder
lacks, and a shard that is handed out has none in the folder until it is done. So the folder's rows
are always those of the store, as long as no other driver makes the same shards. Ranks may have a
work folder each: rows of other ranks' shards are downloaded anew where they are needed.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.counts import Fates
from pipeline.errors import DamagedError, UserError
from pipeline.executor import Outcomes, Runner, Show, local_runner
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.removals import TAKEN_DOWN, count_cleared
from pipeline.schema import RAW, SAMPLES
from pipeline.shard_store.clearing import StoreClearing
from pipeline.shard_store.files import Kind, download_rows
from pipeline.shard_store.identity import bind, put_identity, put_plans, withdraw_index
from pipeline.shard_store.scratch import sweep
from pipeline.shard_store.worker import StageInStore
from pipeline.shards.rows import check_seal, peek_info, read_fates, read_info
from pipeline.shards.shard import rows_path
from pipeline.share.index import LOCK
from pipeline.stages.fetch import FetchStage
from pipeline.stages.prepare import PrepareStage
from pipeline.stores.files import SHARE_SCHEMES
from pipeline.stores.open import canonical_url, check_no_secrets, open_writable
from pipeline.stores.transfer import WritableStore, in_threads
from pipeline.urls import scheme_of
from pipeline.work import Work

KINDS = (Kind.LEDGER, Kind.RAW, Kind.SAMPLES)
"""Folders of rows, in the order in which they are downloaded."""

_AT_A_TIME = 500  # shards whose plans are put together
_SCHEMES = tuple(scheme for scheme in SHARE_SCHEMES if scheme != "hf")


def canonical_store(url: str, work: Work) -> str:
    """Return a store's URL as every machine reads it, "" for the work folder itself.

    Raises:
        UserError: where shards cannot be put there, or it is the work folder itself.
    """
    if not url:
        return ""
    check_no_secrets(url)
    if scheme_of(url) == "hf":
        raise UserError(f"{url}: takes commits, not shards by many hands; `push` to it later.")
    place = canonical_url(open_writable(url, _SCHEMES))
    if scheme_of(place) == "file" and Path(place).is_relative_to(os.path.realpath(work.root)):
        raise UserError(f"{url}: is the work folder, or within it; name another place.")
    return place


class ShardStore:
    """A store where shards lie, and the work folder of the run that has them made.

    Attributes:
        clearing: takes posts out of the store's shards.

    Args:
        url: of the store, as ``canonical_store`` returns it.
        work: the folder.

    Raises:
        UserError: where the store cannot be read.
    """

    def __init__(self, url: str, work: Work) -> None:
        self._work = work
        self._store: WritableStore = open_writable(url)
        self._sizes = self._store.sizes()
        self.clearing = StoreClearing(self._store, self._work)

    def record_takedown(
        self, post_ids: Collection[int], names: Collection[str], content: str
    ) -> None:
        """Let the store know which posts go, before its shards are touched.

        What was pushed there is not whole from then on, and nobody fetches these posts again.

        Args:
            post_ids: of all takedowns.
            names: of their shards; a `fetch` that makes one puts its planned posts there anew.
            content: hash of the posts of the plan without them.
        """
        self.clearing.record_removals(post_ids)
        withdraw_index(self._store)
        put_identity(self._store, content)
        plans = [f"{Kind.PLAN}/{name}.parquet" for name in names]
        self._store.remove([LOCK, *plans])  # with records of the posts

    def join(self, own: Collection[str], others: Collection[Kind] = ()) -> None:
        """Bind store and folder to each other, and download the rows that the folder lacks.

        Args:
            own: shards that no other run makes.
            others: kinds of rows, out of ``KINDS``, that are downloaded anew for all other shards.

        Raises:
            UserError: where either holds shards of something else, or posts were taken down there.
        """
        self.clearing.adopt_removals()
        bind(self._store, self._sizes, self._work)
        planned = planned_shards(self._work.plan_path)
        for kind in KINDS:
            todo = [name for name in own if self._lacks(kind, name)]
            if kind in others:
                todo += sorted(planned.keys() - set(own))
            in_threads(partial(self._download, kind), todo, self._store.num_connections)
        self._check_taken_down(planned)

    def _check_taken_down(self, names: Collection[str]) -> None:
        """Refuse to go on where a takedown was pushed: the originals here would undo it.

        So would the plan, where there are none yet.
        """
        for name in names:
            gone, raw = _num_taken_down(self._path(Kind.SAMPLES, name)), self._path(Kind.RAW, name)
            if not gone:
                continue
            planned = read_planned(self._work.plan_path, name)
            if gone > (_num_taken_down(raw) if raw.is_file() else count_cleared(planned)):
                raise UserError(
                    f"{self._store.url}: posts of {name} were taken down in what was pushed there, "
                    "and its raw/ would bring them back; what is shared stays as it is. Remove "
                    f"raw/, plan/ and ledger/ there, and {self._work.root}. To prepare anew "
                    "give another --work and --store, and leave the posts out: select.nsfw_ids is "
                    "the path of a list of ids."
                )

    def _lacks(self, kind: Kind, name: str) -> bool:
        """Whether the folder lacks rows that the store has; rows that are not those are removed."""
        path, file = self._path(kind, name), f"{kind}/{name}.parquet"
        if kind != Kind.LEDGER and file in self._sizes and f"{kind}/{name}.tar" not in self._sizes:
            self._store.remove([file])  # they prove nothing
            del self._sizes[file]
        if path.is_file() and path.stat().st_size == self._sizes.get(file):
            with suppress(DamagedError):
                check_seal(path)
                return False
        path.unlink(missing_ok=True)
        return file in self._sizes

    def _path(self, kind: Kind, name: str) -> Path:
        return rows_path(self._work.root / kind, name)

    def _download(self, kind: Kind, name: str) -> bool:
        """Let the folder have a shard's rows as the store has them; return whether it has any."""
        path = self._path(kind, name)
        is_there = download_rows(self._store, kind, name, path)
        if not is_there:
            path.unlink(missing_ok=True)
        return is_there

    def wrap(self, runner: Runner | None) -> Runner:
        """Return a runner that has shards made away from here, for the store, and keeps their rows.

        A shard that the store has as the stage would make it is left as it is.

        Args:
            runner: what hands the shards out; this machine's own by default.
        """

        def run(stage: Any, names: Sequence[str], num_workers: int, show: Show) -> Outcomes:
            todo, num_done = [], 0
            for name in names:
                fates = self._done(stage, name)
                if fates is None:
                    todo.append(name)
                    continue
                num_done += fates.total()
                yield name, fates
            if not todo:
                return
            self._hand_out(stage, todo)
            inner = runner or local_runner(num_workers)
            away = StageInStore(stage, self._store.url)
            outcomes = inner(away, todo, num_workers, lambda done: show(num_done + done))
            try:
                with closing(outcomes):
                    for name, outcome in outcomes:
                        yield name, self._settle(stage, name, outcome)
            finally:
                sweep()  # workers that were ended here

        return run

    def _done(self, stage: FetchStage | PrepareStage, name: str) -> Fates | None:
        """Return the fates of a shard that is done, None of one that is to be made."""
        kind, schema = _kind_of(stage)
        path = self._path(kind, name)
        try:
            info, fates = read_info(path), read_fates(path, schema)
        except DamagedError:
            return None
        has_tar = self._sizes.get(f"{kind}/{name}.tar") == info.get("tar_size")
        if not has_tar or info.get("fingerprint") != stage.fingerprint(name):
            return None
        if isinstance(stage, FetchStage) and stage.asks_again(fates):
            return None
        return fates

    def _hand_out(self, stage: FetchStage | PrepareStage, names: Sequence[str]) -> None:
        kind, _ = _kind_of(stage)
        if kind == Kind.RAW:
            for start in range(0, len(names), _AT_A_TIME):
                put_plans(self._store, self._work, names[start : start + _AT_A_TIME])
        else:
            withdraw_index(self._store)
        for name in names:
            self._path(kind, name).unlink(missing_ok=True)

    def _settle(
        self, stage: FetchStage | PrepareStage, name: str, outcome: Fates | str
    ) -> Fates | str:
        """Download what became of a shard, done or not, into the folder."""
        kind, _ = _kind_of(stage)
        try:
            if kind == Kind.RAW:
                self._download(Kind.LEDGER, name)
            is_there = self._download(kind, name)
        except DamagedError as error:
            return str(error)
        if isinstance(outcome, str):
            return outcome
        path = self._path(kind, name)
        where = f"{self._store.url}/{kind}/{name}.parquet"
        if not is_there:
            return f"{where}: is not there; do all machines put into the same store?"
        if read_info(path).get("fingerprint") != stage.fingerprint(name):
            for kind in KINDS:
                self._path(kind, name).unlink(missing_ok=True)  # the next run brings them anew
            return (
                f"{where}: not made of what {self._work.root} has, as if another run put there; "
                "run the same command again."
            )
        return outcome


def _num_taken_down(path: Path) -> int:
    """Return how many posts a shard's rows have as taken down, 0 where there are none."""
    fates = peek_info(path).get("fates", {}) if path.is_file() else {}
    return int(fates.get(str(TAKEN_DOWN), 0))


def _kind_of(stage: FetchStage | PrepareStage) -> tuple[Kind, Any]:
    return (Kind.RAW, RAW) if isinstance(stage, FetchStage) else (Kind.SAMPLES, SAMPLES)
