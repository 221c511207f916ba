"""Small prepared folders to share, and a data set as a stranger may have forged it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.maintenance.verify import verify
from pipeline.run import fetch, prepare
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.share.index import INDEX, Index, SharedFile, read_index, write_index
from pipeline.share.pull import pull
from pipeline.work import Work
from tests.works import make_source, odd_original

QUIET = Console(quiet=True)
NUM_POSTS = 30
NUM_SAMPLES = 26
SHARD = "train-000000"
NUM_FILES = 14


def make_prepared(root: Path, num_posts: int = NUM_POSTS) -> Work:
    """Fetch and prepare thirty posts of every kind: 26 samples, in five shards of two splits."""
    recipe = replace(make_source(root, num_posts, odd_original), name="tiny")
    work = Work(root / "work")
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    return work


def samples_of(work: Work) -> dict[str, bytes]:
    """Return every file of a folder's samples."""
    return {path.name: path.read_bytes() for path in work.samples_dir.iterdir()}


def load_index(there: Path) -> Index:
    return read_index((there / INDEX).read_bytes(), INDEX)


def forge_index(there: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let an index say something else, with a fingerprint that fits as far as one can."""
    table = orjson.loads((there / INDEX).read_bytes())
    change(table)
    try:
        files = tuple(SharedFile(**file) for file in table["files"])
        index = replace(load_index(there), files=files)
        table["fingerprint"] = index.seal().fingerprint
    except (TypeError, AttributeError):
        pass
    (there / INDEX).write_bytes(orjson.dumps(table))


def forge_files(there: Path) -> None:
    """Let an index say what the files are that now lie there."""
    index = load_index(there)
    files = []
    for file in index.files:
        data = (there / file.name).read_bytes()
        files.append(SharedFile(file.name, len(data), hashlib.sha256(data).hexdigest()))
    (there / INDEX).write_bytes(write_index(replace(index, files=tuple(files)).seal()))


def forge_tar(directory: Path, shard: str, change: Callable[[bytearray], object]) -> None:
    """Change a tar, and let its rows say that it is right."""
    path = tar_path(directory, shard)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    rows = rows_path(directory, shard)
    info = read_info(rows) | {"tar_size": len(data), "tar_sha256": hashlib.sha256(data).hexdigest()}
    write_rows(rows, [read_rows(rows, SAMPLES)], info)


def forge_rows(directory: Path, shard: str, **columns: Callable[[list[Any]], list[Any]]) -> None:
    """Change columns of a shard's rows, sealed anew."""
    path = rows_path(directory, shard)
    table = read_rows(path, SAMPLES)
    rows = table.to_pydict()
    for name, change in columns.items():
        rows[name] = change(rows[name])
    write_rows(path, [table.from_pydict(rows, schema=table.schema)], read_info(path))


def pull_to(there: Path, root: Path, **part: Any) -> Work:
    work = Work(root)
    pull(str(there), work, QUIET, **part)
    return work


def refused(there: Path, root: Path) -> str:
    """Return why a data set is refused, having seen that nothing of it stands."""
    with pytest.raises(UserError) as caught:
        pull_to(there, root)
    assert list_shards(root / "samples") == [] or verify(root) == []
    return str(caught.value)
