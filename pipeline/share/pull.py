"""pull: a shared data set, or a part of it, into a work folder.

It may be a stranger's. Each file is downloaded under ``.incoming/``, checked against the index, and
a shard against its own rows and the lock; only then does it take its place. What was cut short goes
on in the middle of the file.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from pipeline.disk import commit, hash_file, is_out_of_space, write_whole
from pipeline.errors import UserError
from pipeline.lockfile.lock import read_lock
from pipeline.planning.folder import adopt_plan
from pipeline.planning.plan import by_shard
from pipeline.recipe_file import load_recipe
from pipeline.recipe_shared import shared_recipe
from pipeline.shards.shard import (
    adopt_shard,
    check_split,
    list_shards,
    parse_shard_name,
    remove_shard,
    rows_path,
    tar_path,
)
from pipeline.share.download import check_shard, download, find_index
from pipeline.share.index import (
    INDEX,
    LOCK,
    RECIPE,
    SIDECARS,
    Index,
    SharedFile,
    match_shard,
    shard_files,
    write_index,
)
from pipeline.share.place import check_folder
from pipeline.share.sidecars import path_of
from pipeline.share.summary import TransferSummary, count_megabytes
from pipeline.stores.open import open_store
from pipeline.stores.transfer import Store, Tick, in_threads, no_tick
from pipeline.words import sized
from pipeline.work import Work


def pull(
    url: str,
    work: Work,
    console: Console,
    *,
    split: str | None = None,
    numbers: Collection[int] | None = None,
) -> TransferSummary:
    """Download a shared data set, or a part of it, into a work folder, and its plan with it.

    What is there already and the same does not travel again. Shards that an earlier pull brought
    are brought up to date even where they are not asked for this time.

    Args:
        url: of a folder, store, web server or Hub repository that was pushed to.
        work: the folder; new, or of an earlier pull of the same data set.
        console: is shown how far it has come.
        split: only this one's shards.
        numbers: only the shards with these numbers, of each split.

    Raises:
        UserError: where there is no whole data set, it does not hold what its index says or what
            none of ours holds, or the folder is another one's.
    """
    store = open_store(url)
    index = find_index(store)
    wanted = set(choose_shards(index, split, numbers))
    check_folder(work)
    with work.lock(), _telling(work.root):
        if work.incoming_dir.is_symlink():
            raise UserError(f"{work.incoming_dir}: is a link, which no `pull` has made; remove it.")
        work.incoming_dir.mkdir(exist_ok=True)
        sidecars = [
            f for f in index.files if f.name in SIDECARS and not _is_same(path_of(work, f.name), f)
        ]
        posts = _pull_sidecars(store, index, sidecars, work)
        if index.shards and not list_shards(work.raw_dir):  # else they were prepared here
            present = set(list_shards(work.samples_dir))
            for shard in present - set(index.shards):
                remove_shard(work.samples_dir, shard)
            wanted |= present & set(index.shards)
        named = index.by_name
        todo = {shard for shard in wanted if not _has_shard(work, named, shard)}
        files = [f for f in index.files if f.name in SIDECARS or _shard_of(f) in wanted]
        lacking = _find_lacking(work, [f for f in files if _shard_of(f) in todo])
        shared = TransferSummary.of(files, [*sidecars, *lacking.values()])
        _check_room(work, shared.num_moved_bytes)
        with count_megabytes(console, "pull", shared.num_moved_bytes) as tick:
            in_threads(
                lambda shard: _pull_shard(store, named, lacking, work, posts[shard], shard, tick),
                sorted(todo),
                store.num_connections,
            )
        shutil.rmtree(work.incoming_dir)
    return shared


def choose_shards(index: Index, split: str | None, numbers: Collection[int] | None) -> list[str]:
    """Return the shards of a part of a data set.

    Raises:
        UserError: where a part was asked for and there is none of it.
    """
    if split is not None:
        check_split(split, f"--split {split}")
    found = []
    for shard in index.shards:
        its_split, number = parse_shard_name(shard)
        if split in (None, its_split) and (numbers is None or number in numbers):
            found.append(shard)
    if not found and (split is not None or numbers is not None):
        there = ", ".join(index.shards[:8]) or "none: only the recipe is shared"
        raise UserError(f"{index.name} has no such shards; it has {there} ...")
    return found


def parse_numbers(text: str) -> frozenset[int]:
    """Return the numbers that ``0-9`` or ``0,3,7-9`` stands for.

    Raises:
        UserError: on anything else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if not found:
            raise UserError(f"--shards {text}: write it as 0-9 or 0,3,7-9.")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 0 <= last - first <= 10**6:
            raise UserError(f"--shards {text}: {part} is no range of shards.")
        numbers |= set(range(first, last + 1))
    return frozenset(numbers)


@contextmanager
def _telling(root: Path) -> Iterator[None]:
    """Say in a sentence which file or folder of the work folder cannot be read or written."""
    try:
        yield
    except OSError as error:
        if is_out_of_space(error):  # the work folder's lock tells of it
            raise
        raise UserError(f"{error.filename or root}: cannot be used: {error.strerror}.") from error


def _shard_of(file: SharedFile) -> str:
    found = match_shard(file.name)
    return found[1] if found else ""


def _pull_sidecars(
    store: Store, index: Index, sidecars: Collection[SharedFile], work: Work
) -> dict[str, pa.Table]:
    """Download some of lock, recipe and card, check them, and leave the plan that the lock is of.

    Returns:
        The lock's posts (``schema.LOCK``), by shard.
    """
    # What a pull that was refused has left there is not looked at.
    downloaded = {file.name: work.incoming_dir / file.name for file in sidecars}
    for file in sidecars:
        download(store, file, downloaded[file.name], no_tick)
    lock = read_lock(downloaded.get(LOCK, work.share_dir / LOCK))
    recipe = shared_recipe(lock.info.recipe)
    if recipe != index.recipe:
        raise UserError(f"{store.url}: its index and its lock are of different recipes.")
    posts = dict(by_shard(lock.posts))
    if unplanned := set(index.shards) - posts.keys():
        raise UserError(f"{store.url}: its index names {min(unplanned)}, and its lock does not.")
    if RECIPE in downloaded and load_recipe(str(downloaded[RECIPE])) != recipe:
        raise UserError(f"{store.url}/{RECIPE}: is not the recipe of its lock.")
    work.share_dir.mkdir(exist_ok=True)
    adopt_plan(lock, work)
    if LOCK in downloaded:
        _clear_derived(work)
    for file in sidecars:
        commit(downloaded[file.name], work.share_dir / file.name)
    write_whole(work.share_dir / INDEX, write_index(index))
    return posts


def _clear_derived(work: Work) -> None:
    """Remove what was made of samples as an earlier lock has them: of posts that are gone, too."""
    for path in (work.report_path, work.differences_path):
        path.unlink(missing_ok=True)
    if work.style_dir.is_dir():
        shutil.rmtree(work.style_dir)


def _is_same(path: Path, file: SharedFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and hash_file(path) == file.sha256


def _has_shard(work: Work, named: Mapping[str, SharedFile], shard: str) -> bool:
    """Whether a shard is there, by its rows' sum and its tar's length; `verify` looks deeper."""
    tar_name, rows_name = shard_files(shard)
    if not _is_same(rows_path(work.samples_dir, shard), named[rows_name]):
        return False
    tar = tar_path(work.samples_dir, shard)
    return tar.is_file() and tar.stat().st_size == named[tar_name].size


def _find_lacking(work: Work, files: Collection[SharedFile]) -> dict[str, SharedFile]:
    """Return, by name, the files of shards that are to come: all except tars that are the same."""

    def is_here(file: SharedFile) -> bool:
        return file.name.endswith(".tar") and _is_same(path_of(work, file.name), file)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # no other thread waits while one hashes
        return {
            f.name: f for f, here in zip(files, pool.map(is_here, files), strict=True) if not here
        }


def _check_room(work: Work, num_bytes: int) -> None:
    free = shutil.disk_usage(work.root).free
    if free < num_bytes:
        raise UserError(
            f"{work.root}: has room for {sized(free)}, and {sized(num_bytes)} are to come. Make "
            "room, or pull a part: --split, --shards."
        )


def _pull_shard(
    store: Store,
    named: Mapping[str, SharedFile],
    lacking: Mapping[str, SharedFile],
    work: Work,
    posts: pa.Table,
    shard: str,
    tick: Tick,
) -> None:
    names = shard_files(shard)
    downloaded = {name: work.incoming_dir / Path(name).name for name in names if name in lacking}
    for name, path in downloaded.items():
        download(store, lacking[name], path, tick)
    tar, rows = (downloaded.get(name, path_of(work, name)) for name in names)
    try:
        check_shard(shard, named[names[0]], tar, rows, posts)
    except UserError as error:
        for path in downloaded.values():
            path.unlink()
        raise UserError(f"{store.url}: {shard} is refused: {error}") from error
    adopt_shard(work.samples_dir, shard, tar, rows)
