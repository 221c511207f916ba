"""What a stranger may have forged, and push, pull, verify, report and train then."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import run
from pipeline.errors import UserError
from pipeline.recipe_file import load_recipe
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import rows_path, tar_path
from pipeline.share.index import CARD, INDEX, LOCK, RECIPE, SharedFile, shard_files, write_index
from pipeline.share.push import push
from pipeline.share.stream import RemoteShards
from pipeline.verify import verify
from pipeline.work import Work
from tests.calls import call
from tests.shares import (
    QUIET,
    forge_files,
    forge_index,
    forge_rows,
    forge_tar,
    load_index,
    pull_to,
    refused,
)

SHARD = "train-000000"


# Whatever the index says fits the files, but for what is tried.


def swap_names(there: Path) -> None:
    a, b = (tar_path(there / "samples", f"train-00000{n}") for n in (0, 1))
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def pickle_member(data: bytearray) -> None:
    """Call a member ``.pkl``, with a checksum that fits: readers of WebDatasets would unpickle."""
    set_name(data, data[:100].rstrip(b"\0").replace(b".color.jpg", b".color.pkl"))


def set_name(data: bytearray, name: bytes | bytearray) -> None:
    data[:100] = name.ljust(100, b"\0")
    set_checksum(data)


def set_type(data: bytearray, kind: bytes, target: bytes = b"") -> None:
    data[156:157] = kind
    data[157:257] = target.ljust(100, b"\0")
    set_checksum(data)


def set_checksum(data: bytearray) -> None:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])


def grow_header(data: bytearray) -> None:
    """Make the first header one of a comment of eight gigabytes."""
    data[124:136] = b"77777777777\0"
    set_type(data, b"x")


def set_owner(data: bytearray) -> None:
    data[108:115] = b"0001750"
    set_checksum(data)


def append_archive(data: bytearray) -> None:
    data += bytes(10240)
    data[-10240:-9728] = data[:512]


ANOTHER_HEADER = "its tar holds another header than"

TARS: dict[str, tuple[Callable[[bytearray], object], str]] = {
    "a path out of the folder": (
        lambda data: set_name(data, b"../000000001.color.jpg"),
        ANOTHER_HEADER,
    ),
    "an absolute path": (lambda data: set_name(data, b"/etc/passwd"), ANOTHER_HEADER),
    "a link": (lambda data: set_type(data, b"2", b"/etc/passwd"), ANOTHER_HEADER),
    "a hard link": (lambda data: set_type(data, b"1", b"/etc/passwd"), ANOTHER_HEADER),
    "a device": (lambda data: set_type(data, b"3"), ANOTHER_HEADER),
    "a pickle": (pickle_member, ANOTHER_HEADER),
    "a name that another member has": (
        lambda data: set_name(data, data[:100][:9] + b".json"),
        ANOTHER_HEADER,
    ),
    "a giant header": (grow_header, ANOTHER_HEADER),
    "an archive after the end": (append_archive, "its tar holds more, or less, than its rows name"),
    "another owner": (set_owner, ANOTHER_HEADER),
}


@pytest.mark.parametrize("what", TARS)
def test_a_forged_tar_is_refused(there: Path, tmp_path: Path, what: str) -> None:
    forge, why = TARS[what]
    forge_tar(there / "samples", SHARD, forge)
    forge_files(there)
    assert f"{SHARD} is refused: {why}" in refused(there, tmp_path / "again")
    assert not rows_path(tmp_path / "again" / "samples", SHARD).exists()
    found = [str(problem) for problem in verify(there / "samples")]
    assert any(f"{SHARD}.tar: " in problem for problem in found), found


def add_a_column(there: Path) -> None:
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    write_rows(path, [table.append_column("code", pa.array(["x"] * len(table)))], read_info(path))


def repeat_rows(there: Path, times: int) -> None:
    path = rows_path(there / "samples", SHARD)
    write_rows(path, [pa.concat_tables([read_rows(path, SAMPLES)] * times)], read_info(path))


def spoil_type(there: Path, value: pa.Array) -> None:
    """Let every post's tags be something else than text."""
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    column = pa.concat_arrays([value] * len(table))
    table = table.set_column(SAMPLES.get_field_index("tags"), "tags", column)
    write_rows(path, [table], read_info(path))


def spoil_words(there: Path) -> None:
    """Let every post's tags be two bytes that no text has."""
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    ends = pa.array(range(0, 2 * len(table) + 1, 2), pa.int32()).buffers()[1]
    words = pa.py_buffer(b"\xff" * 2 * len(table))
    column = pa.Array.from_buffers(pa.string(), len(table), [None, ends, words])
    at = SAMPLES.get_field_index("tags")
    write_rows(path, [table.set_column(at, SAMPLES.field(at), column)], read_info(path))


def rows(**columns: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    """Return what changes columns of a shard's rows."""
    return lambda there: forge_rows(there / "samples", SHARD, **columns)


def not_locked(column: str) -> str:
    return f"{SHARD} is refused: the {column} of its posts is not that of the lock"


def forge_info(there: Path, **changes: object) -> None:
    path = rows_path(there / "samples", SHARD)
    info = read_info(path) | changes
    write_rows(path, [read_rows(path, SAMPLES)], {k: v for k, v in info.items() if v is not None})


def add_a_shard(there: Path) -> None:
    """Let the index name one more; ``forge_files`` gives its files' sizes and sums."""
    for old, new in zip(shard_files(SHARD), shard_files("train-000077"), strict=True):
        shutil.copy(there / old, there / new)
    index = load_index(there)
    more = (SharedFile(name, 1, "0" * 64) for name in shard_files("train-000077"))
    files = tuple(sorted([*index.files, *more]))
    (there / INDEX).write_bytes(write_index(replace(index, files=files).seal()))


ROWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "huge sizes": (
        rows(color_size=lambda v: [s and 2**62 for s in v]),
        "its rows name an impossible size",
    ),
    "negative offsets": (
        rows(color_offset=lambda v: [o and -o for o in v]),
        "color.jpg is not where its rows say",
    ),
    "members that overlap": (
        rows(sketch_offset=lambda v: [o and o - 512 for o in v]),
        "sketch.png is not where its rows say",
    ),
    "no places": (
        rows(json_size=lambda v: [None] * len(v)),
        "its rows do not say where a member lies",
    ),
    "other keys": (
        rows(key=lambda v: [k and "../" + k for k in v]),
        "its rows give a post another key than its own",
    ),
    "other posts": (rows(post_id=lambda v: [i + 1000 for i in v]), not_locked("post_id")),
    "other fates": (rows(status=lambda v: ["blank"] * len(v)), not_locked("status")),
    "unknown fates": (rows(reason=lambda v: ["x"] * len(v)), not_locked("reason")),
    "other sums": (rows(sha256=lambda v: [s and "0" * 64 for s in v]), not_locked("sha256")),
    "other splits": (rows(split=lambda v: ["val"] * len(v)), not_locked("split")),
    "other families": (rows(family=lambda v: [f + 1 for f in v]), not_locked("family")),
    "characters in other splits": (
        rows(character=lambda v: ["x"] * len(v)),
        not_locked("character"),
    ),
    "a text that grows with every row": (
        rows(tags=lambda v: ["x" * 2**17] * len(v)),
        "holds more text than so many posts have",
    ),
    "a text that fills the footer": (
        lambda t: forge_info(t, more=[[]] * 1_500_000),
        "its footer is larger than that of any lock",
    ),
    "a fate that grows with every row": (
        rows(reason=lambda v: ["x" * 2**17] * len(v)),
        "holds more text than so many posts have",
    ),
    "texts that are no texts": (
        lambda t: spoil_type(t, pa.array([1])),
        "its columns are not those of this version's tables",
    ),
    "texts of numbers": (
        lambda t: spoil_type(t, pa.array([1]).dictionary_encode()),
        "its columns are not those of this version's tables",
    ),
    "posts without end": (
        lambda t: repeat_rows(t, 1000),
        "too large; it may have",
    ),
    "an unknown column": (add_a_column, "its columns are not those of this version's tables"),
    "words that are no text": (spoil_words, "Invalid UTF8"),
    "another shard's files": (swap_names, "its rows are of "),
    "no Parquet": (
        lambda t: rows_path(t / "samples", SHARD).write_bytes(b"PAR1" * 100),
        f"{SHARD}.parquet: cannot be read",
    ),
    "a giant footer": (
        lambda t: rows_path(t / "samples", SHARD).write_bytes(
            b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1"
        ),
        f"{SHARD}.parquet: cannot be read",
    ),
    "no sum of the tar": (lambda t: forge_info(t, tar_sha256=None), "rows are of another tar"),
    "another tar's sum": (lambda t: forge_info(t, tar_sha256="0" * 64), "rows are of another tar"),
    "no recipe": (lambda t: forge_info(t, recipe=5), "rows do not say how they were prepared"),
    "no recipe for samples": (
        lambda t: forge_info(t, recipe={}),
        "rows do not say how they were prepared",
    ),
    "another version's columns": (
        lambda t: forge_info(t, schema_version=99),
        "rows are of version 99, and this program reads version",
    ),
    "a shard that the lock does not plan": (
        add_a_shard,
        "its index names train-000077, and its lock does not",
    ),
    "a lock of nothing": (
        lambda t: (t / LOCK).write_bytes(b"PAR1" * 100),
        f"{LOCK}: cannot be read",
    ),
    "a recipe of something else": (
        lambda t: (t / RECIPE).write_text('name = "other"\n'),
        f"{RECIPE}: is not the recipe of its lock",
    ),
    "a recipe that names a host": (
        lambda t: (t / RECIPE).write_text(
            (t / RECIPE).read_text().replace('images = ""', 'images = "http://127.0.0.1/{id}"')
        ),
        f"{RECIPE}: is not the recipe of its lock",
    ),
}


@pytest.mark.parametrize("what", ROWS)
def test_forged_rows_and_papers_are_refused(there: Path, tmp_path: Path, what: str) -> None:
    forge, why = ROWS[what]
    forge(there)
    forge_files(there)
    again = Work(tmp_path / "again")
    told = refused(there, again.root)
    assert why in told
    assert not rows_path(again.samples_dir, SHARD).exists()
    if f"{SHARD} is refused" in told:
        assert not list(again.incoming_dir.glob(f"{SHARD}.*"))


ELSEWHERE = (
    "a lock",
    "a recipe",
    "a text that",
    "a fate that",
    "characters",
    "no recipe",
    "a shard that",
)
IN_SHARDS = [what for what in ROWS if not what.startswith(ELSEWHERE)]


@pytest.mark.parametrize("what", [*TARS, *IN_SHARDS])
def test_verify_and_report_hold_against_a_forged_folder(
    made: Path, tmp_path: Path, what: str
) -> None:
    """It may have come by other ways than ``pull``."""
    work = pull_to(made / "there", tmp_path / "again")
    if what in TARS:
        forge_tar(work.samples_dir, SHARD, TARS[what][0])
    else:
        ROWS[what][0](work.root)
    assert any(SHARD in str(problem) for problem in verify(work.root)), what
    reported = call("report", work.root)
    assert reported.exception is None or isinstance(reported.exception, UserError), what
    if work.report_path.exists():
        page = work.report_path.read_text()
        assert "root:" not in page
        assert "../" not in page


def test_streamed_rows_of_another_tar_are_refused(there: Path, tmp_path: Path) -> None:
    path = rows_path(there / "samples", SHARD)
    info = read_info(path) | {"tar_sha256": "0" * 64}
    write_rows(path, [read_rows(path, SAMPLES)], info)
    forge_files(there)
    with closing(RemoteShards(str(there), tmp_path, 10**9)) as shards:
        assert SHARD in shards.names("train")
        with pytest.raises(UserError, match=f"{SHARD} is refused: its rows are of another tar"):
            shards.rows(SHARD)


def test_verify_checks_what_was_pushed(there: Path) -> None:
    assert verify(there) == []
    assert verify(there, quick=True) == []
    path = there / CARD
    path.write_text(path.read_text().replace("tiny", "TINY"))
    assert [problem.path for problem in verify(there)] == [path]
    (there / LOCK).unlink()
    rows_path(there / "samples", SHARD).write_bytes(b"cut")
    (there / "samples" / "x.pkl").write_bytes(b"x")
    found = {problem.path.name for problem in verify(there)}
    assert found == {CARD, LOCK, f"{SHARD}.parquet", "x.pkl"}
    (there / INDEX).write_text("{}")
    assert [problem.path for problem in verify(there)] == [there / INDEX]


NOT_AS_SAID = "is not what its index says"
IS_LINK = "is a link; a data set holds none"

LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a sum": (
        lambda t: forge_index(t, lambda i: i["files"][-1].update(sha256="0" * 64)),
        NOT_AS_SAID,
    ),
    "a file that is longer": (lambda t: forge_index(t, shrink), NOT_AS_SAID),
    "a file that is shorter": (lambda t: forge_index(t, grow), NOT_AS_SAID),
    "a file that is not there": (
        lambda t: tar_path(t / "samples", SHARD).unlink(),
        "cannot be read: No such file",
    ),
    "a folder in a file's place": (
        lambda t: to_folder(tar_path(t / "samples", SHARD)),
        "cannot be read: Is a directory",
    ),
    "a link in a file's place": (lambda t: to_link(tar_path(t / "samples", SHARD)), IS_LINK),
    "a link in the folder's place": (lambda t: to_link(t / "samples"), f"samples: {IS_LINK}"),
    "a pipe in a file's place": (
        lambda t: to_pipe(tar_path(t / "samples", SHARD)),
        "is no plain file",
    ),
    "a link in the index's place": (lambda t: to_link(t / INDEX), f"{INDEX}: {IS_LINK}"),
}


def shrink(table: dict[str, Any]) -> None:
    table["files"][-1]["size"] -= 512


def grow(table: dict[str, Any]) -> None:
    table["files"][-1]["size"] += 512


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("what", LIES)
def test_an_index_that_lies_of_its_files_is_refused(there: Path, tmp_path: Path, what: str) -> None:
    lie, why = LIES[what]
    lie(there)
    told = refused(there, tmp_path / "again")
    assert told.startswith(str(there))
    assert why in told


def test_an_index_of_another_place_leads_nowhere(there: Path, tmp_path: Path) -> None:
    forge_index(there, lambda table: table.update(url="http://169.254.169.254/latest"))
    assert verify(pull_to(there, tmp_path / "again").root) == []


def test_no_secret_is_written_anywhere(tmp_path: Path, made: Path) -> None:
    recipe = load_recipe(str(made / "work" / "share"))
    images = f"file://me:hunter2@{made}/512px/{{bucket}}/{{id}}.jpg?key=hunter3"
    source = replace(recipe.source, images=images.replace("file://me:hunter2@", ""))
    assert source.images.endswith("hunter3")
    work = Work(tmp_path / "work")
    shutil.copytree(made / "work", work.root)
    shutil.rmtree(work.samples_dir)
    secret = replace(recipe, source=replace(source, images="https://me:hunter2@h/{id}?k=hunter3"))
    run.prepare(secret, work, QUIET)
    push(work, str(tmp_path / "there"), QUIET)
    again = pull_to(tmp_path / "there", tmp_path / "again")
    call("report", again.root)
    for folder_ in (tmp_path / "there", again.root, work.samples_dir, work.share_dir):
        for path in folder_.rglob("*"):
            assert not path.is_file() or b"hunter" not in path.read_bytes(), path
