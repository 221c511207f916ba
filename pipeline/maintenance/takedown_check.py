"""Whether all that a takedown copies is sound: once it has begun, nothing else may run to mend it.

Before it begins, what is damaged is an error. What has been damaged since is removed, for the posts
have to go; ``fetch`` and ``prepare`` make it anew.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.disk import hash_file
from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.lock import read_lock
from pipeline.planning.plan import planned_shards
from pipeline.shards.rows import check_seal, read_info
from pipeline.shards.shard import remove_shard, rows_path, tar_path
from pipeline.work import Work


def check_plan(work: Work, *, has_begun: bool) -> None:
    """Check that a folder has a plan, or that a takedown there has begun.

    Raises:
        UserError: where it has none, or it is damaged.
    """
    try:
        planned_shards(work.plan_path)
        check_seal(work.plan_path)
    except UserError:
        if not has_begun:
            raise
        work.plan_path.unlink(missing_ok=True)


def check_lock(work: Work, *, has_begun: bool) -> None:
    """Check that a folder's lock, if there is one, is sound.

    Raises:
        DamagedError: where it is not, and the takedown has not begun.
    """
    try:
        if work.lock_path.is_file():
            read_lock(work.lock_path)
    except UserError as error:
        if not has_begun:
            remedy = "Run the `fetch --locked` that brought it first."
            raise DamagedError(f"{error} {remedy}") from error
        work.lock_path.unlink()


def check_shards(work: Work, names: Sequence[str], *, has_begun: bool) -> None:
    """Check that shards, as far as they are there, and their ledgers are sound.

    Raises:
        DamagedError: where one is not, and the takedown has not begun.
    """
    for directory in (work.raw_dir, work.samples_dir):
        for name in names:
            try:
                _check_shard(work, directory, name)
            except DamagedError as error:
                if not has_begun:
                    raise DamagedError(f"{error} Run `repair` first.") from error
                remove(work, directory, name)


def _check_shard(work: Work, directory: Path, name: str) -> None:
    if not rows_path(directory, name).is_file():
        return
    check_seal(rows_path(directory, name))
    tar = tar_path(directory, name)
    sha256 = read_info(rows_path(directory, name)).get("tar_sha256")
    if not tar.is_file() or hash_file(tar) != sha256:
        raise DamagedError(f"{tar}: damaged.")
    ledger = rows_path(work.ledger_dir, name)
    if directory == work.raw_dir and ledger.is_file():
        check_seal(ledger)


def remove(work: Work, directory: Path, name: str) -> None:
    """Remove a shard of originals, with its ledger, or of samples."""
    remove_shard(directory, name)
    if directory == work.raw_dir:
        rows_path(work.ledger_dir, name).unlink(missing_ok=True)
