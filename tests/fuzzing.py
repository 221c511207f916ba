"""Files that are almost right: every reader is fed damaged ones, made by code from sound ones.

As a program, ``python -m tests.fuzzing TARGET NUM``, it tries NUM mutations of each sound file of a
target and prints, as JSON, how often each outcome came. A reader may say no in its own way (a
``UserError``, a fate, a malformed record); any other exception ends the program.
"""

import gzip
import json
import lzma
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.maintenance.verify import verify
from pipeline.metadata.files import read_posts
from pipeline.metadata.record import Counted, Unparsed
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.recipe import PrepareSettings, SourceSettings
from pipeline.recipe_file import load_recipe
from pipeline.schema import RAW, SAMPLES
from pipeline.settings import to_table
from pipeline.shards.rows import check_seal, peek_info, read_info, read_rows, read_seal
from pipeline.stages.originals import inspect
from pipeline.stages.prepare import prepare_picture
from pipeline.work import Work
from tests.crashing import fetch, make_source, prepare
from tests.indexed_tars import pack
from tests.metadata_items import zstd
from tests.metadata_records import lines_of, make_post, new_record, old_record
from tests.pictures import draw_picture, encoded

Read = Callable[[Path], str]
ODD = [
    *(b"\0", b"\xff" * 4, b"\x80", b"\xff\xff\xff\x7f", b"\n", b'"'),
    *(b"\\u0000", b"../", b"9" * 20, b"-1"),
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return a few small lies in, cuts of, and repetitions of ``data``."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(result) + 1)
        if rng.random() < 0.3:
            at = min(at, rng.randrange(64))  # where formats keep what they are
        kind = rng.randrange(6)
        if kind == 0 and result:
            result[at % len(result)] ^= 1 << rng.randrange(8)
        elif kind == 1 and result:
            result[at % len(result)] = rng.randrange(256)
        elif kind == 2:
            result[at:at] = rng.choice(ODD)
        elif kind == 3:
            odd = rng.choice(ODD)
            result[at : at + len(odd)] = odd
        elif kind == 4:
            del result[at : at + rng.choice([1, 4, 64, 1024])]
        else:
            stop = at + rng.choice([1, 16, 512])
            result[at:at] = result[at:stop]
    return bytes(result[: rng.randrange(len(result) + 1)] if rng.random() < 0.05 else result)


def metadata_files() -> dict[str, bytes]:
    posts = [make_post(i, "solo", f"tag_{i}", 'quo"te', "new\nline") for i in range(1, 30)]
    lines = lines_of([new_record(post) for post in posts])
    columns = {"id": list(range(1, 30)), "rating": ["s"] * 29, "tag_string": ["solo a"] * 29}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return {
        "new.json": lines,
        "old.json": lines_of([old_record(post) for post in posts]),
        "list.json": json.dumps([new_record(post) for post in posts]).encode(),
        "a.json.gz": gzip.compress(lines),
        "a.json.xz": lzma.compress(lines),
        "a.json.zst": zstd(lines),
        "a.tar": pack({"a.json": lines, "b/2.json.gz": gzip.compress(lines)}),
        "a.tar.xz": lzma.compress(pack({"a.json": lines})),
        "a.parquet": bytes(sink.getvalue()),
        "a.db": database(),
    }


def database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with closing(sqlite3.connect(path)) as base, base:
            base.execute("CREATE TABLE post (id INTEGER PRIMARY KEY, rating INTEGER, md5 TEXT)")
            base.execute("CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, type INTEGER)")
            base.execute("CREATE TABLE posttag (post_id INTEGER, tag_id INTEGER)")
            base.executemany("INSERT INTO post VALUES (?, 1, '')", [(i,) for i in range(1, 30)])
            base.execute("INSERT INTO tag VALUES (1, 'solo', 0)")
            base.executemany("INSERT INTO posttag VALUES (?, 1)", [(i,) for i in range(1, 30)])
        return path.read_bytes()


def read_metadata(path: Path) -> str:
    for tags in ([], ["solo"]):
        num_counted = num_items = 0
        for item in read_posts(path, tags):
            if isinstance(item, Counted):
                num_counted += item.num_records
            else:
                num_items += item.num_records if isinstance(item, Unparsed) else 1
        assert num_counted == num_items, path
    return "read"


def picture_files() -> dict[str, bytes]:
    picture = draw_picture(1, 60, 80)
    image = Image.fromarray(picture)
    profile = bytes(range(256)) * 2
    deep = Image.fromarray((np.arange(4800).reshape(60, 80) * 13).astype(np.uint16))
    return {
        "a.jpg": encoded(image, "jpeg"),
        "progressive.jpg": encoded(image, "jpeg", progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "jpeg"),
        "exif.jpg": encoded(
            image, "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
        ),
        "profile.jpg": encoded(image, "jpeg", icc_profile=profile),
        "a.png": encoded(image, "png"),
        "palette.png": encoded(image.convert("P"), "png", transparency=0),
        "deep.png": encoded(deep, "png"),
        "a.webp": encoded(image, "webp"),
        "a.avif": encoded(image, "avif"),
        "a.gif": encoded(image, "gif", save_all=True, append_images=[image.rotate(90)]),
    }


def read_picture(path: Path) -> str:
    post = {"post_id": 1, "md5": "", "width": 60, "height": 80}
    data = path.read_bytes()
    source = SourceSettings(images="", max_pixels=10**6)
    found = inspect(post, data, source)
    made = prepare_picture(data, 60, 80, "512px", 10**6, PrepareSettings(size=16, min_side=16))
    assert str(made.fate) == "corrupt/undecodable" or found["status"] == "fetched", (found, made)
    return f"{found['status']}/{found['reason']}, {made.fate}"


def recipe_files() -> dict[str, bytes]:
    text = """
name = "mine"
[select]
tags = ["solo", "white_background"]
snapshot = 2021
[source]
images = "https://example.org/{bucket}/{id}.jpg"
rate = 2.5
[prepare]
size = 256
sketch = {method = "dodge", sigma = 3.5}
[split]
seed = 7
[train]
epochs = 3
"""
    return {"recipe.toml": text.encode()}


def read_recipe(path: Path) -> str:
    return f"read, {len(json.dumps(to_table(load_recipe(str(path))))) > 0}"


def work_files() -> dict[str, bytes]:
    """Return the files of a finished work folder, by their paths in it."""
    root = Path(tempfile.mkdtemp())
    make_source(root)
    work = Work(root / "work")
    fetch(root, work)
    prepare(root, work)
    work.duplicates_path.unlink()  # only remembered: found anew where it is damaged
    paths = [path for path in work.root.rglob("*.*") if path.suffix in (".tar", ".parquet")]
    return {str(path.relative_to(work.root)): path.read_bytes() for path in sorted(paths)}


def read_shard_file(path: Path) -> str:
    """Read rows in every way in which the program does; tars are read by what rows say."""
    outcomes = []
    readers: list[Callable[[], object]] = [
        lambda: check_seal(path),
        lambda: read_seal(path),
        lambda: read_info(path),
        lambda: peek_info(path),
        lambda: read_rows(path, RAW),
        lambda: read_rows(path, SAMPLES),
        lambda: [read_planned(path, name) for name in planned_shards(path)],
    ]
    for read in readers:
        try:
            read()
            outcomes.append("read")
        except UserError:
            outcomes.append("refused")
    return "+".join(sorted(set(outcomes)))


class MutatedWork:
    """A whole work folder in which one file at a time is mutated."""

    def __init__(self) -> None:
        self.files = work_files()
        self.root = Path(tempfile.mkdtemp())
        for name, data in self.files.items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_bytes(data)

    def read(self, path: Path) -> str:
        name = path.name.replace("!", "/")
        (self.root / name).write_bytes(path.read_bytes())
        problems = verify(self.root)
        assert problems or path.read_bytes() == self.files[name], name
        try:
            read_status(Work(self.root))
            outcome = "found, status reads"
        except UserError:
            outcome = "found, status refuses"
        (self.root / name).write_bytes(self.files[name])
        return outcome


def flat(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace("/", "!"): data for name, data in files.items()}


def targets() -> dict[str, Callable[[], tuple[dict[str, bytes], Read]]]:
    def whole() -> tuple[dict[str, bytes], Read]:
        folder = MutatedWork()
        return flat(folder.files), folder.read

    return {
        "metadata": lambda: (metadata_files(), read_metadata),
        "pictures": lambda: (picture_files(), read_picture),
        "recipes": lambda: (recipe_files(), read_recipe),
        "shards": lambda: (
            {k: v for k, v in flat(work_files()).items() if k.endswith(".parquet")},
            read_shard_file,
        ),
        "work folder": whole,
    }


def try_target(name: str, num: int, folder: Path) -> Counter[str]:
    """Feed ``num`` mutations of each sound file to a target's reader; return the outcomes."""
    files, read = targets()[name]()
    outcomes: Counter[str] = Counter()
    for file_name, data in files.items():
        path = folder / file_name
        for seed in range(num):
            path.write_bytes(mutate(data, random.Random(f"{file_name} {seed}")))
            try:
                outcomes[read(path)] += 1
            except UserError:
                outcomes["refused"] += 1
            except Exception as error:
                raise AssertionError(f"{file_name}, seed {seed}: {error!r}") from error
        path.unlink()
    return outcomes


if __name__ == "__main__":
    print(json.dumps(try_target(sys.argv[1], int(sys.argv[2]), Path(tempfile.mkdtemp()))))
