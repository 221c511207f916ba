"""Runs whose shards lie in a store, and what to look for in one."""

from pathlib import Path

import fsspec

from pipeline.work import Work
from tests.crashing import contents, fetch, prepare
from tests.real_commands import Source
from tests.s3_server import BUCKET

URL = f"s3://{BUCKET}/sets/tiny"


def both(local: Source, work: Work, store: str, num_workers: int = 1) -> None:
    for command in (fetch, prepare):
        summary = command(local.root, work, store=store, num_workers=num_workers)
        assert not summary.errors


def shards_in(files: "fsspec.AbstractFileSystem") -> dict[str, bytes]:
    """Return the shards that lie in the bucket, as ``contents`` does for a work folder."""
    root = URL.removeprefix("s3://")
    found = {path.removeprefix(f"{root}/"): path for path in files.find(root)}
    names = [name for name in found if name.startswith(("raw/", "samples/"))]
    return {name: files.cat_file(found[name]) for name in names}


def rows_of(shards: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in shards.items() if name.endswith(".parquet")}


def contents_of(store: Path) -> dict[str, bytes]:
    return contents(Work(store))
