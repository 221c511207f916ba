"""push: a prepared data set to a folder, a store or the Hub.

Only what is missing or different travels, and the same command goes on where one was cut short.
The index is taken away first and written last, so a data set with an index is whole.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from pipeline.disk import hash_file, write_whole
from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.lock import check_done, check_lockable, write_lock
from pipeline.planning.plan import planned_recipe, planned_shards
from pipeline.recipe_file import recipe_toml
from pipeline.recipe_shared import shared_recipe
from pipeline.shard_store.driver import KINDS, ShardStore
from pipeline.shards.rows import check_seal, read_tar_sum
from pipeline.shards.shard import rows_path
from pipeline.share.index import (
    INDEX,
    LOCK,
    MAX_INDEX_BYTES,
    PENDING,
    RECIPE,
    Index,
    NewerIndexError,
    SharedFile,
    match_shard,
    read_index,
    shard_files,
    write_index,
)
from pipeline.share.place import check_place
from pipeline.share.sidecars import describe, path_of, write_sidecars
from pipeline.share.summary import TransferSummary, count_megabytes
from pipeline.stores.folder import FolderStore
from pipeline.stores.open import canonical_url, open_writable
from pipeline.stores.transfer import Outgoing, Tick, WritableStore, no_tick, not_alone
from pipeline.urls import scheme_of
from pipeline.words import counted
from pipeline.work import Work


def push(
    work: Work, url: str, console: Console, *, recipe_only: bool = False, contact: str = ""
) -> TransferSummary:
    """Share a work folder that is fetched and prepared: samples, lock, recipe, and a card.

    Originals and training runs stay. What is there already and the same does not travel again; of
    what is there besides, only files of an earlier push that are no longer wanted are removed.
    Where ``prepare`` has put the samples into that very store, their rows are enough for the rest.

    Args:
        work: the folder.
        url: of the place; see ``open_writable``.
        console: is shown how far it has come.
        recipe_only: leave the pictures out: recipe, ids and hashes are enough to fetch them again.
            Not for a place that an earlier push has brought pictures to.
        contact: whom to ask for a picture to be taken down, for the card; "" for whom an earlier
            push to there has named.

    Raises:
        UserError: where the folder is not done or damaged, the store cannot be written, it has
            pictures that ``recipe_only`` would remove, or what is there is not this folder's.
    """
    store = open_writable(url)
    place = canonical_url(store)
    if isinstance(store, FolderStore) and Path(place).is_relative_to(os.path.realpath(work.root)):
        raise UserError(f"{url}: is the work folder, or within it; push to another place.")
    if not work.root.is_dir():
        raise UserError(f"{work.root}: no such folder; `fetch` makes it.")
    if not contact.isprintable():
        raise UserError(f"--contact {contact!r}: holds what no card can show.")
    if recipe_only and place == work.store:
        raise UserError(f"{url}: has the pictures; push --recipe-only to another place.")
    with work.lock(store=work.store if recipe_only else place):
        if work.store:
            ShardStore(work.store, work).join((), others=KINDS)  # ranks may have made some
        there, sizes = _read_there(store), store.sizes()
        if there is not None:
            if recipe_only:
                _check_no_shards(store, sizes, there)
            check_lockable(work)  # before anything of it is taken away
        contact = contact or ("" if there is None else there.contact)
        draft = _draft(work, place, contact, with_samples=not recipe_only)
        if place != work.store:
            check_place(store, sizes, there, draft, work)
        return _send(store, sizes, draft, there, work, console)


def _draft(work: Work, place: str, contact: str, *, with_samples: bool) -> Index:
    """Return the index of the samples alone."""
    check_done(work)
    recipe = planned_recipe(work.plan_path)
    today = datetime.now(UTC).date().isoformat()
    url = "" if scheme_of(place) == "file" else place
    files = _describe_shards(work) if with_samples else ()
    shards = tuple(sorted(files))
    return Index(recipe.name, url, contact, today, shared_recipe(recipe), shards)


def _describe_shards(work: Work) -> Iterator[SharedFile]:
    for shard in planned_shards(work.plan_path):
        rows = rows_path(work.samples_dir, shard)
        check_seal(rows)
        tar_name, rows_name = shard_files(shard)
        # The tar's sum is what its rows say; it is checked when the tar is read, on its way.
        yield SharedFile(tar_name, *read_tar_sum(rows))
        yield describe(rows, rows_name)


def _read_there(store: WritableStore) -> Index | None:
    """Return what an earlier push left, whole or not; None where none can be made out.

    Raises:
        NewerIndexError: where a later version pushed: what it left is not to be lost.
    """
    for name in (INDEX, PENDING):
        data = store.read(name, MAX_INDEX_BYTES)
        if data is not None:
            try:
                return read_index(data, f"{store.url}/{name}", is_whole=name == INDEX)
            except NewerIndexError:
                raise
            except UserError:
                continue  # by an older version, or no index at all: all of it travels again
    return None


def _check_no_shards(store: WritableStore, sizes: Mapping[str, int], there: Index) -> None:
    """Check that a push of the recipe alone takes no pictures away, which nobody asked it to."""
    shards = [shard for shard in there.shards if any(name in sizes for name in shard_files(shard))]
    if shards:
        raise UserError(
            f"{store.url}: holds {counted(len(shards), 'shard')} of an earlier push, which push "
            "--recipe-only would remove; push --recipe-only to another URL."
        )


def _send(
    store: WritableStore,
    sizes: Mapping[str, int],
    draft: Index,
    there: Index | None,
    work: Work,
    console: Console,
) -> TransferSummary:
    """Bring a store to what a draft says, with its sidecars.

    At no moment does the store's own index say what is not there. Until the new one is written a
    pending one stands in for it, which names only what is there already or not there at all: so a
    push that goes on can tell what has arrived.
    """
    named = {} if there is None else there.by_name

    def is_there(file: SharedFile) -> bool:
        was_put = bool(work.store and match_shard(file.name))  # by `prepare`
        is_same = was_put or named.get(file.name) == file
        return is_same and sizes.get(file.name) == file.size

    kept = [file for file in draft.files if is_there(file)]
    todo = [file for file in draft.files if not is_there(file)]
    if todo and work.store:
        raise DamagedError(
            f"{store.url}/{todo[0].name}: missing, or not as its rows say; run `prepare --store "
            f"{work.store}` again."
        )
    outdated = {file.name for file in (*todo, *named.values())} - {file.name for file in kept}
    outdated = {name for name in outdated if name in sizes and match_shard(name)}
    if todo or outdated:
        _begin(store, draft, kept, sorted(outdated), work.share_dir)
    # All tars before any rows: whoever looks into the folder meanwhile sees no rows without a tar.
    tars = [file for file in todo if file.name.endswith(".tar")]
    with count_megabytes(console, "push", sum(file.size for file in tars)) as tick:
        index = _put_beside(store, _outgoing(work, tars), tick, lambda: _finish(work, draft, there))
    rest = [f for f in index.files if not is_there(f) and not f.name.endswith(".tar")]
    shared = TransferSummary.of(index.files, [*tars, *rest])
    if not shared.num_moved and not outdated and INDEX in sizes and PENDING not in sizes:
        return shared
    if not (todo or outdated):
        _begin(store, draft, kept, (), work.share_dir)
    store.put(_outgoing(work, rest), no_tick)
    _check_alone(store, draft, work.share_dir)
    _put_index(store, INDEX, index, work.share_dir)
    store.remove([PENDING])
    (work.share_dir / PENDING).unlink(missing_ok=True)
    return shared


def _begin(
    store: WritableStore,
    draft: Index,
    kept: Sequence[SharedFile],
    outdated: Sequence[str],
    share_dir: Path,
) -> None:
    """Take the index away, and then what is no longer right, so that nothing old passes for new."""
    first = replace(draft, files=tuple(kept)) if outdated else draft
    _put_index(store, PENDING, first, share_dir)
    store.remove([INDEX])
    if outdated:
        store.remove(outdated)
        _put_index(store, PENDING, draft, share_dir)


def _check_alone(store: WritableStore, draft: Index, share_dir: Path) -> None:
    """Refuse to finish a push beside another one; that one will refuse as well.

    Raises:
        UserError: where another one has begun, or ended, since this one began.
    """
    if open_writable(store.url).read(PENDING, MAX_INDEX_BYTES) == write_index(draft):
        return
    _begin(store, replace(draft, files=()), (), (), share_dir)
    raise not_alone(store.url)


def _outgoing(work: Work, files: Iterable[SharedFile]) -> dict[str, Outgoing]:
    return {file.name: (path_of(work, file.name), file.sha256) for file in files}


def _put_beside(
    store: WritableStore, files: dict[str, Outgoing], tick: Tick, make: Callable[[], Index]
) -> Index:
    """Put files while ``make`` runs; where that fails, the rest of them is not put."""
    stop = threading.Event()

    def tick_or_stop(num_bytes: int) -> None:
        if stop.is_set():
            raise UserError("stopped")
        tick(num_bytes)

    pool = ThreadPoolExecutor(1)
    try:
        sending = pool.submit(store.put, files, tick_or_stop)
        made = make()
        sending.result()
    except BaseException as error:
        stop.set()
        pool.shutdown(wait=isinstance(error, Exception))  # Ctrl-C does not wait for a slow store
        raise
    pool.shutdown()
    return made


def _finish(work: Work, draft: Index, there: Index | None) -> Index:
    """Write what is shared beside the samples into ``share/``, and return the index of all."""
    lock = write_lock(work, work.share_dir / LOCK)
    recipe = shared_recipe(lock.info.recipe)
    write_whole(work.share_dir / RECIPE, recipe_toml(recipe))
    sidecars = [describe(path_of(work, name), name) for name in (LOCK, RECIPE)]
    files = tuple(sorted([*draft.files, *sidecars]))
    index = replace(draft, recipe=recipe, files=files).seal()
    if there is not None and there.fingerprint == index.fingerprint:
        index = replace(index, published=there.published)  # so that the card stays as it is
    return write_sidecars(work.share_dir, index, lock)


def _put_index(store: WritableStore, name: str, index: Index, share_dir: Path) -> None:
    path = share_dir / name
    write_whole(path, write_index(index))
    store.put({name: (path, hash_file(path))}, no_tick)
