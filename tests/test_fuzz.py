"""Hostile input: readers say no in their own way, in little memory, and write nowhere else."""

import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.maintenance.verify import verify
from pipeline.metadata.files import read_posts
from pipeline.metadata.record import Malformed
from pipeline.planning.selection import load_nsfw_ids
from pipeline.recipe import SourceSettings
from pipeline.recipe_file import load_recipe
from pipeline.records import Post
from pipeline.stages.originals import inspect
from pipeline.work import Work
from tests.crashing import fetch, make_source, original_path, prepare
from tests.fuzzing import read_metadata, try_target
from tests.pictures import draw_picture, encoded

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 700 * 2**20
"""Bytes of address space that a reader may take beside what the program has when it starts."""

NUMBERS = {"metadata": 12, "pictures": 15, "recipes": 150, "shards": 10, "work folder": 3}

READ_IN_LITTLE_MEMORY = """
import resource, sys
from collections import Counter
from pipeline.metadata.files import read_posts
list(read_posts(sys.argv[2]))  # brings all imports and pools into being
pages = int(open("/proc/self/statm").read().split()[0])
cap = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
print(Counter(type(item).__name__ for path in sys.argv[3:] for item in read_posts(path)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", NUMBERS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, target: str) -> None:
    outcomes = try_target(target, NUMBERS[target], tmp_path)
    assert len(outcomes) > 1 or target == "metadata"  # where damage is an item, not an outcome


@pytest.mark.soak
@pytest.mark.parametrize("target", NUMBERS)
def test_many_more_damaged_files(tmp_path: Path, target: str) -> None:
    try_target(target, 20 * NUMBERS[target], tmp_path)


def packed(pack: Callable[[bytes], bytes], num_mib: int) -> bytes:
    """Return one line of blanks, compressed: many streams one after the other."""
    return pack(b" " * 2**26) * (num_mib // 64)


def large_dictionary() -> bytes:
    """Return xz data whose header asks for a dictionary of 4 GB."""
    data = bytearray(lzma.compress(b'{"id": 1, "rating": "s"}\n'))
    size = 4 * (data[12] + 1)
    data[12 + 4] = 40
    data[12 + size - 4 : 12 + size] = zlib.crc32(data[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(data)


def long_header(kind: bytes, form: Literal[0, 1]) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 2**31
    blocks = gzip.compress(b"a" * 2**26, 1) * 16
    return gzip.compress(member.tobuf(form)) + blocks


def texts_of_one(num_rows: int) -> bytes:
    """Return a Parquet file in which many rows share a long text, stored once."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows), pa.array(["a" * 600_000]))
    columns = {"id": list(range(1, num_rows + 1)), "rating": ["s"] * num_rows, "tag_string": text}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


BOMBS: dict[str, Callable[[int], bytes]] = {
    "line.json.gz": lambda num_mib: packed(lambda data: gzip.compress(data, 6), num_mib),
    "line.json.xz": lambda num_mib: packed(lambda data: lzma.compress(data, preset=0), num_mib),
    "dictionary.json.xz": lambda _: large_dictionary(),
    "name.tar.gz": lambda _: long_header(tarfile.GNUTYPE_LONGNAME, tarfile.GNU_FORMAT),
    "header.tar.gz": lambda _: long_header(tarfile.XHDTYPE, tarfile.USTAR_FORMAT),
    "deep.json": lambda _: b'[{"id":' + b"[" * 10**6,
    "texts.parquet": lambda _: texts_of_one(3000),
}


def read_bombs(tmp_path: Path, num_mib: int) -> None:
    (tmp_path / "sound.json").write_text('{"id": 1, "rating": "s"}\n')
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make(num_mib))
        arguments = [str(MEMORY), str(tmp_path / "sound.json"), str(tmp_path / name)]
        command = [sys.executable, "-c", READ_IN_LITTLE_MEMORY, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, done.stderr)
        expected = "'Post': 3000" if name == "texts.parquet" else "'Malformed': 1"
        assert expected in done.stdout, (name, done.stdout)
        (tmp_path / name).unlink()


@pytest.mark.slow
def test_bombs_stay_small(tmp_path: Path) -> None:
    read_bombs(tmp_path, 1024)


@pytest.mark.soak
def test_bombs_of_ten_gigabytes_stay_small(tmp_path: Path) -> None:
    read_bombs(tmp_path, 10 * 1024)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


def jpeg_header(width: int, height: int) -> bytes:
    data = encoded(draw_picture(1))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gif_header(width: int, height: int) -> bytes:
    data = encoded(draw_picture(1), "gif")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


@pytest.mark.parametrize(
    "data",
    [
        png_header(100_000, 100_000),
        png_header(2**31 - 1, 2**31 - 1),
        jpeg_header(65_535, 65_535),
        gif_header(65_535, 65_535),
    ],
)
def test_huge_pictures_are_rejected_by_their_headers(data: bytes) -> None:
    post = {"post_id": 1, "md5": "", "width": 1, "height": 1}
    found = inspect(post, data, SourceSettings(images=""))
    assert found["status"] == "rejected"
    assert found["reason"] in ("too_many_pixels", "not_an_image")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 20_000,
        "a" + ".a" * 3000 + " = 1",
        "train" + ".a" * 200_000 + " = 1",
        '"\\"" . ' * 200_000 + "a = 1",
        "[a" + ".'.' " * 100_000 + "]",
        "a = " + "9" * 5000,
        "name = '../../x'",
        "name = ''",
        "name = '.hidden'",
        "train.x = 99999999999999999999999",
        "split.train = nan",
        "split.train = inf",
        "split.seed = -1",
        "split.seed = 99999999999999999999",
        "split.shard_size = 0",
        "source.rate = nan",
        "source.timeout = inf",
        "source.connections = 1_000_000",
        "source.max_pixels = -1",
        "source.max_bytes = 99999999999999999999",
        "prepare.near_duplicates = 64",
        "prepare.size = 10_000_000",
        "\0",
        "select = 5",
    ],
)
def test_odd_recipes_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UserError, match="recipe.toml"):
        load_recipe(str(tmp_path / "recipe.toml"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "rating", "md5", "tags", "tag_string", "parent_id", "file_ext", "image_width"]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=5), st.booleans())
def test_any_json_is_read_or_malformed(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], as_list: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(records) if as_list else "\n".join(map(json.dumps, records))
    path.write_text(text)
    read_metadata(path)


@pytest.mark.parametrize(
    "column",
    [
        {"id": pa.array([2**62], pa.timestamp("ms"))},
        {"id": pa.array([2**30], pa.date32())},
        {"id": pa.array([{"a": 1}])},
        {"id": pa.array([[1]])},
        {"id": pa.array([b"\xff"])},
        {"tag_string": pa.array([5])},
        {"tag_string": pa.array([["solo"]])},
        {"tag_string": pa.array([b"\xff solo"])},
        {"tag_string": pa.array([None], pa.null())},
        {
            "tag_string": pa.Array.from_buffers(
                pa.string(),
                1,
                [None, pa.py_buffer(struct.pack("ii", 0, 2)), pa.py_buffer(b"\xff\xfe")],
            )
        },
    ],
)
def test_parquet_of_wrong_types_is_read_or_malformed(
    tmp_path: Path, column: dict[str, pa.Array]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "rating": ["s"]} | column), path)
    assert read_metadata(path) == "read"
    if column.keys() == {"id"}:
        assert [type(item) for item in read_posts(path) if isinstance(item, Post | Malformed)] == [
            Malformed
        ]


def test_members_of_an_archive_that_are_no_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"id": 7, "rating": "s"}\n')
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("../secret.json")
            member.type, member.linkname = kind, str(tmp_path / "secret.json")
            tar.addfile(member)
        member = tarfile.TarInfo("../../1.json")
        data = b'{"id": 1, "rating": "s"}\n'
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    before = sorted(tmp_path.rglob("*"))
    assert [item.id for item in read_posts(tmp_path / "a.tar") if isinstance(item, Post)] == [1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "data", "times"),
    [
        pytest.param(tarfile.XHDTYPE, b"14 comment=ab\n", 3000, id="a chain of headers"),
        pytest.param(tarfile.GNUTYPE_LONGNAME, b"a\0", 3000, id="a chain of names"),
        pytest.param(tarfile.XHDTYPE, b"9" * 25 + b" a=b\n", 1, id="an endless length"),
        pytest.param(
            tarfile.XHDTYPE,
            b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
            1,
            id="a map without numbers",
        ),
    ],
)
def test_an_archive_with_hostile_headers_ends_with_a_complaint(
    kind: bytes, data: bytes, times: int, tmp_path: Path
) -> None:
    header, member = tarfile.TarInfo("a"), tarfile.TarInfo("posts.json")
    header.type, header.size, member.size = kind, len(data), 512
    extra = header.tobuf(tarfile.USTAR_FORMAT) + data.ljust(512, b"\0")
    content = b"9\n".ljust(512, b"x")
    (tmp_path / "a.tar").write_bytes(times * extra + member.tobuf() + content + bytes(1024))
    *_, last = read_posts(tmp_path / "a.tar")
    assert isinstance(last, Malformed)
    assert last.line == 0


@pytest.mark.slow
def test_members_of_an_archive_are_forgotten(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    (tmp_path / "a.tar").write_bytes(20_000 * folder.tobuf() + bytes(1024))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"a\.tar: no metadata in this archive"):
            list(read_posts(tmp_path / "a.tar"))
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", [b"9" * 5000, b"-5", "²".encode(), b"1 2", b"\0"])
def test_odd_lists_of_ids_are_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "nsfw-ids.txt").write_bytes(b"5\n" + line + b"\n")
    recipe = load_recipe("white-background-256")
    with pytest.raises(UserError, match="nsfw-ids.txt:2"):
        load_nsfw_ids(recipe.select, tmp_path)


HOSTILE: list[dict[str, Any]] = [
    {"id": -5},
    {"id": 0},
    {"id": 2**63},
    {"id": "../../evil"},
    {"id": 2**63 - 1, "tag_string": "solo new\nline quo\"te it's \u202e \u0000 <b> ../../evil"},
    {"id": 1, "tag_string": "repeated"},
    {"id": 1, "tag_string": "repeated again"},
    {"id": 8, "md5": "../../evil"},
    {"id": 9, "file_ext": "../evil"},
    {"id": 10, "parent_id": 2**63 - 1},
    {"id": 11, "parent_id": 11},
    {"id": 12, "tags": [{"name": "a b\nc", "category": "4"}, {"name": "", "category": 0}]},
    {"id": 13, "tag_string_character": "name_(\"series'\n)"},
    {"id": 14, "file_url": "file:///etc/passwd"},
    {"id": 15, "image_width": 2**31},
]


def test_hostile_records_go_through_the_whole_chain(tmp_path: Path) -> None:
    root = tmp_path / "source"
    make_source(root)
    known: dict[str, Any] = {
        "rating": "s",
        "file_ext": "jpg",
        "image_width": 72,
        "image_height": 72,
    }
    records = [known | record for record in HOSTILE]
    (root / "posts.json").write_text("\n".join(map(json.dumps, records)))
    for seed, post_id in enumerate((2**63 - 1, 10, 11, 12, 13, 14)):
        original_path(root, post_id).write_bytes(encoded(draw_picture(seed + 50, 72, 72)))
    work = Work(tmp_path / "work")
    outside = sorted(path for path in tmp_path.rglob("*"))
    fetch(root, work)
    prepare(root, work)
    assert sorted(p for p in tmp_path.rglob("*") if not p.is_relative_to(work.root)) == outside
    assert verify(work.root) == []
    status = read_status(work)
    assert status.adds_up
    assert status.num_records == len(HOSTILE)
    assert status.select == Counter(
        {
            "planned": 7,
            "filtered/malformed": 6,
            "filtered/repeated_id": 1,
            "filtered/not_a_picture": 1,
        }
    )
    assert status.stages["prepare"].fates["kept"] == 7
