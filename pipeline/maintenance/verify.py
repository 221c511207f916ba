"""verify: every promise that a data folder makes, checked against its bytes."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from pipeline.disk import hash_file, is_temporary
from pipeline.errors import DamagedError, UserError
from pipeline.hold import is_held
from pipeline.maintenance.verify_shards import FOREIGN, Problem, check_shards
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.planning.plan_check import read_about
from pipeline.records import Status
from pipeline.removals import read_removals
from pipeline.schema import LEDGER, RAW, SAMPLES, as_texts
from pipeline.shards.rows import check_seal, read_info, read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.share.index import IDENTITY, INDEX, read_index
from pipeline.stages.ledger import sum_ledger
from pipeline.work import Work

_PLANNED = ["post_id", "split", "family"]


def verify(directory: Path, quick: bool = False) -> list[Problem]:
    """Check a work folder, one folder of shards, or a folder that was pushed to.

    Shards that are not there yet break no promise: ``status`` counts them. Nor does what a run that
    is at work there has written by half.

    Args:
        directory: a work folder (with ``selection.parquet``), or its ``raw`` or ``samples``.
        quick: sizes and indexes only; without it every byte is read and hashed.

    Returns:
        The problems, none when every promise holds.

    Raises:
        UserError: where the folder holds nothing of ours, something is in the way there, or its
            tars are in a store.
    """
    work = Work(directory)
    work.check_places()
    work.check_store()
    _check_is_ours(work)
    if _is_shared(work):
        return list(_check_shared(work, quick))
    problems = _check_work(work, quick) if _is_work(work) else list(check_shards(directory, quick))
    half_written = [problem for problem in problems if is_temporary(problem.path)]
    if half_written and find_run(directory):
        return [problem for problem in problems if problem not in half_written]
    return problems


def _check_work(work: Work, quick: bool) -> list[Problem]:
    problems = [*_damage(work.plan_path, _check_plan)]
    planned = {} if problems else planned_shards(work.plan_path)
    if work.lock_path.is_file():
        problems += _damage(work.lock_path, check_seal)
    problems += _damage(work.removals_path, _check_removals)
    for stage_dir in (work.raw_dir, work.samples_dir):
        problems += check_shards(stage_dir, quick, planned)
    if planned:
        harmed = {(problem.path.parent, problem.path.stem) for problem in problems}
        problems += _check_ledgers(work, planned)
        problems += _check_conservation(work, planned, harmed)
    return problems


def _check_is_ours(work: Work) -> None:
    """Check that a folder is one that ``verify`` can say something of, or raise UserError."""
    if not (_is_shared(work) or _is_work(work) or list_shards(work.root)):
        raise UserError(f"{work.root}: neither a work folder nor a folder of shards.")


def find_run(directory: Path) -> Path | None:
    """Return the work folder, this one or the one around it, in which a run is at work now."""
    return next(filter(is_held, (directory, directory.absolute().parent)), None)


def name_remedy(directory: Path) -> str:
    """Return what mends a folder in which ``verify`` finds problems."""
    for place in (directory, directory.absolute().parent):
        work = Work(place)
        if (place / IDENTITY).is_file():
            return (
                f"{place} holds what `--store` put there: remove the files of these shards, and "
                "the same `fetch`, `prepare` and `push` make and bring them anew."
            )
        if _is_shared(work):
            return (
                f"remove what `verify` names there (of a damaged {INDEX} all files), and `push` to "
                "there from the work folder brings it anew."
            )
        if work.plan_path.exists():
            return f"`repair {place}` makes anew what is broken."
        if _is_work(work):
            return "run the same `fetch` command as before, or `pull` into another folder."
    return "bring these shards anew from where they came."


def check_is_repairable(work: Work) -> None:
    """Check that a folder is a work folder with a plan, or raise UserError."""
    if not work.root.is_dir():
        raise UserError(f"{work.root}: no such folder.")
    _check_is_ours(work)
    is_elsewhere = (work.root / IDENTITY).is_file()
    if is_elsewhere or _is_shared(work) or not _is_work(work):
        raise UserError(f"{work.root}: is no work folder; {name_remedy(work.root)}")
    if not work.plan_path.exists():
        raise UserError(f"{work.plan_path}: is not there; {name_remedy(work.root)}")


def _is_work(work: Work) -> bool:
    return work.plan_path.exists() or any(map(list_shards, (work.raw_dir, work.samples_dir)))


def _is_shared(work: Work) -> bool:
    return (work.root / INDEX).is_file() and not work.plan_path.exists()


def _check_shared(work: Work, quick: bool) -> Iterator[Problem]:
    """Check that a shared data set is what its index says, and its shards what their rows say."""
    path = work.root / INDEX
    try:
        index = read_index(path.read_bytes(), str(path))
    except UserError as error:
        yield Problem(path, str(error).removeprefix(f"{path}: "))
        return
    for file in index.files:
        path = work.root / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            yield Problem(path, "missing, or not as long as the index says")
        elif not quick:
            yield from _damage(path, partial(_check_sum, file.sha256))
    yield from check_shards(work.samples_dir, quick, set(index.shards))


def _damage(path: Path, check: Callable[[Path], object], shard: str = "") -> Iterator[Problem]:
    try:
        check(path)
    except DamagedError as error:
        yield Problem(path, str(error).removeprefix(f"{path}: "), shard)


def _check_sum(sha256: str, path: Path) -> None:
    if hash_file(path) != sha256:
        raise DamagedError(f"{path}: its bytes do not match the sum in the index")


def _check_plan(path: Path) -> None:
    check_seal(path)
    read_about(path)
    for name in planned_shards(path):
        read_planned(path, name)


def _check_removals(path: Path) -> None:
    if read_removals(path).unfinished is not None:
        raise DamagedError(f"{path}: a takedown was cut short; `takedown {path.parent}` ends it")


def _check_ledgers(work: Work, planned: dict[str, int]) -> Iterator[Problem]:
    """Check that the ledger tells of every post of every raw shard, and of nothing else."""
    fetched = [name for name in list_shards(work.raw_dir) if name in planned]
    for path in sorted(work.ledger_dir.iterdir()) if work.ledger_dir.is_dir() else ():
        if path.stem not in planned:
            yield Problem(path, FOREIGN)
    for name in fetched:
        path = rows_path(work.ledger_dir, name)
        yield from _damage(path, partial(_check_ledger, work.plan_path, name), name)


def _check_ledger(plan_path: Path, name: str, path: Path) -> None:
    check_seal(path)
    table = read_rows(path, LEDGER)
    counted = asdict(sum_ledger(table))
    if read_info(path).get("asked", counted) != counted:
        raise DamagedError(f"{path}: its sums are not those that its commit record gives")
    ids = table["post_id"]
    if not ids.equals(read_planned(plan_path, name)["post_id"]):
        raise DamagedError(f"{path}: its posts are not the planned ones")


def _check_conservation(
    work: Work, planned: dict[str, int], harmed: Collection[tuple[Path, str]]
) -> Iterator[Problem]:
    """Check that each stage has one row for each planned post, and no family straddles splits.

    What is known to be damaged is not asked.
    """
    split_of: dict[int, str] = {}
    for name in planned:
        posts = as_texts(read_planned(work.plan_path, name).select(_PLANNED))
        for directory, schema in ((work.raw_dir, RAW), (work.samples_dir, SAMPLES)):
            path = rows_path(directory, name)
            if not path.is_file() or (directory, name) in harmed:
                continue
            if not as_texts(read_rows(path, schema, _PLANNED)).equals(posts):
                yield Problem(path, "its posts are not the planned ones", name)
            elif schema is SAMPLES:
                yield from _straddling(path, split_of)
                if (work.raw_dir, name) not in harmed and not _are_of_originals(work, name):
                    yield Problem(path, "made of other originals; run `prepare`", name, True)


def _are_of_originals(work: Work, name: str) -> bool:
    """Whether a shard's samples are of the originals that are there now, if any are."""
    raw, samples = rows_path(work.raw_dir, name), rows_path(work.samples_dir, name)
    if not raw.is_file():
        return True
    made_of = read_rows(samples, SAMPLES, ["post_id", "source_sha256"])
    there = read_rows(raw, RAW, ["post_id", "sha256"])
    return all(a.equals(b) for a, b in zip(made_of.columns, there.columns, strict=True))


def _straddling(path: Path, split_of: dict[int, str]) -> Iterator[Problem]:
    table = read_rows(path, SAMPLES, ["family", "split", "status"])
    kept = table.filter(pc.equal(table["status"], Status.KEPT))
    for family, split in zip(kept["family"].to_pylist(), kept["split"].to_pylist(), strict=True):
        if split_of.setdefault(family, split) != split:
            yield Problem(path, f"family {family} lies in {split} and in {split_of[family]}")
