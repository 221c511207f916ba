"""push: a prepared data set to a folder, a store or the Hub.

Only what is missing or different travels, and the same command goes on where one was cut short.
The index is taken away first and written last, so a data set with an index is whole.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from pipeline.errors import UserError
from pipeline.lock import write_lock
from pipeline.recipe import recipe_toml, shared_recipe
from pipeline.rows import DamagedError, check_seal, read_info
from pipeline.shard import list_shards, rows_path, tar_path
from pipeline.share.folder import FolderStore
from pipeline.share.index import (
    INDEX,
    LOCK,
    MAX_INDEX_BYTES,
    PENDING,
    RECIPE,
    Index,
    SharedFile,
    read_index,
    shard_files,
)
from pipeline.share.moved import Shared, count_megabytes
from pipeline.share.papers import describe, finish_papers, path_of, save_index
from pipeline.share.stores import open_writable
from pipeline.share.transfer import WritableStore, hash_file
from pipeline.work import Work


def push(
    work: Work, url: str, console: Console, *, recipe_only: bool = False, contact: str = ""
) -> Shared:
    """Share a work folder that is fetched and prepared: samples, lock, recipe, and a card.

    Originals and training runs stay. What is there already and the same does not travel again; of
    what is there besides, only files of an earlier push that are no longer wanted are removed.

    Args:
        work: the folder.
        url: of the place; see ``open_writable``.
        console: is shown how far it has come.
        recipe_only: leave the pictures out: recipe, ids and hashes are enough to fetch them again.
        contact: whom to ask for a picture to be taken down, for the card.

    Raises:
        UserError: where the folder is not done or damaged, or the store cannot be written.
    """
    store = open_writable(url)
    if isinstance(store, FolderStore) and store.root.resolve() == work.root.resolve():
        raise UserError(f"{url}: is the work folder itself; push to another place.")
    if not work.root.is_dir():
        raise UserError(f"{work.root}: no such folder; `fetch` makes it.")
    with work.lock():
        there = _read_there(store)
        index = _write_papers(work, url, contact, there, with_samples=not recipe_only)
        paths = {file.name: path_of(work, file.name) for file in index.files}
        return _send(store, index, paths, there, work.share_dir, console)


def _write_papers(
    work: Work, url: str, contact: str, there: Index | None, *, with_samples: bool
) -> Index:
    """Write what is shared beside the samples into ``share/``, and return the index of all."""
    lock = write_lock(work, work.share_dir / LOCK)
    recipe = shared_recipe(lock.info.recipe)
    (work.share_dir / RECIPE).write_text(recipe_toml(recipe), encoding="utf-8")
    files = [describe(path_of(work, name), name) for name in (LOCK, RECIPE)]
    files += _describe_shards(work) if with_samples else []
    today = datetime.now(UTC).date().isoformat()
    index = Index(recipe.name, url.rstrip("/"), contact, today, recipe, tuple(files)).seal()
    if there is not None and there.fingerprint == index.fingerprint:
        index = replace(index, published=there.published)  # so that the card stays as it is
    return finish_papers(work.share_dir, index, lock)


def _describe_shards(work: Work) -> Iterator[SharedFile]:
    for shard in list_shards(work.samples_dir):
        rows = rows_path(work.samples_dir, shard)
        check_seal(rows)
        info = read_info(rows)
        tar = tar_path(work.samples_dir, shard)
        if not tar.is_file() or tar.stat().st_size != info["tar_size"]:
            raise DamagedError(f"{tar}: damaged; `repair` makes it anew.")
        tar_name, rows_name = shard_files(shard)
        # The tar's sum is what its rows say; it is checked when the tar is read, on its way.
        yield SharedFile(tar_name, int(info["tar_size"]), str(info["tar_sha256"]))
        yield describe(rows, rows_name)


def _read_there(store: WritableStore) -> Index | None:
    """Return what an earlier push left, whole or not; None where none can be made out."""
    for name in (INDEX, PENDING):
        data = store.read(name, MAX_INDEX_BYTES)
        if data is not None:
            try:
                return read_index(data, f"{store.url}/{name}", is_whole=name == INDEX)
            except UserError:
                continue  # by another version, or no index at all: all of it travels again
    return None


def _send(
    store: WritableStore,
    index: Index,
    paths: dict[str, Path],
    there: Index | None,
    share_dir: Path,
    console: Console,
) -> Shared:
    """Bring a store to what an index says; at no moment does its own index say what is not there.

    Until the new index is written the pending one stands in for it. It names only what is there
    already or not there at all, so that a push that goes on can tell what has arrived.
    """
    sizes = store.sizes()
    named = {} if there is None else there.by_name
    wanted = index.by_name
    right = {
        name
        for name, file in wanted.items()
        if named.get(name) == file and sizes.get(name) == file.size
    }
    outdated = {name for name in (*wanted, *named) if name in sizes and name not in right}
    todo = [file for file in index.files if file.name not in right]
    shared = Shared.of(index.files, todo)
    if not todo and not outdated and INDEX in sizes and PENDING not in sizes:
        return shared
    if outdated:
        kept = tuple(file for file in index.files if file.name in right)
        _put_index(store, PENDING, replace(index, files=kept), share_dir)
    else:
        _put_index(store, PENDING, index, share_dir)
    store.remove([INDEX])
    if outdated:
        store.remove(sorted(outdated))
        _put_index(store, PENDING, index, share_dir)
    with count_megabytes(console, "push", shared.num_moved_bytes) as tick:
        # All tars before any rows: who looks into the folder meanwhile sees no rows without a tar.
        for is_tar in (True, False):
            some = [file for file in todo if file.name.endswith(".tar") == is_tar]
            store.put({file.name: (paths[file.name], file.sha256) for file in some}, tick)
    _put_index(store, INDEX, index, share_dir)
    store.remove([PENDING])
    (share_dir / PENDING).unlink(missing_ok=True)
    return shared


def _put_index(store: WritableStore, name: str, index: Index, share_dir: Path) -> None:
    path = share_dir / name
    save_index(path, index)
    store.put({name: (path, hash_file(path))}, lambda num_bytes: None)
