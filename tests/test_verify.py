import hashlib
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.disk import temporary_path
from pipeline.errors import UserError
from pipeline.maintenance.status import read_status, status_table
from pipeline.maintenance.verify import verify
from pipeline.maintenance.verify_shards import Problem
from pipeline.planning.plan import planned_shards, write_plan
from pipeline.run import prepare
from pipeline.schema import LEDGER, RAW, SAMPLES, SELECTION, build_table
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import ShardWriter, read_shard, rows_path, tar_path
from pipeline.work import Work
from tests.calls import call
from tests.files import append, fail_to_read, flip
from tests.works import EXPECTED, fetch_all, make_work, odd_original


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    work, recipe = make_work(root, 30, odd_original)
    fetch_all(work, recipe)
    prepare(recipe, work, Console(quiet=True))
    return root


def test_a_whole_folder_keeps_every_promise(work: Work) -> None:
    for directory in (work.root, work.raw_dir, work.samples_dir):
        assert verify(directory) == []
        assert verify(directory, quick=True) == []


def first(work: Work) -> str:
    return next(iter(planned_shards(work.plan_path)))


DAMAGE: dict[str, tuple[Callable[[Work], object], str]] = {
    "flip in samples tar": (
        lambda w: flip(tar_path(w.samples_dir, first(w)), 700),
        "its bytes do not match the sum in its rows",
    ),
    "flip in tar padding": (
        lambda w: flip(tar_path(w.samples_dir, first(w)), -1),
        "goes on after its end",
    ),
    "flip in raw tar": (
        lambda w: flip(tar_path(w.raw_dir, first(w)), 5000),
        "its bytes do not match their sum",
    ),
    "flip in rows": (
        lambda w: flip(rows_path(w.samples_dir, first(w)), 300),
        "its bytes do not match its seal",
    ),
    "flip in plan": (lambda w: flip(w.plan_path, 300), "its bytes do not match its seal"),
    "tar missing": (
        lambda w: tar_path(w.samples_dir, first(w)).unlink(),
        "missing, or not as long as its rows say",
    ),
    "rows missing": (lambda w: rows_path(w.samples_dir, first(w)).unlink(), "has no rows"),
    "tar too long": (
        lambda w: append(tar_path(w.samples_dir, first(w))),
        "missing, or not as long as its rows say",
    ),
    "ledger missing": (
        lambda w: rows_path(w.ledger_dir, first(w)).unlink(),
        "cannot be read: No such file",
    ),
    "flip in ledger": (
        lambda w: flip(rows_path(w.ledger_dir, first(w)), 300),
        "its bytes do not match its seal",
    ),
    "another shard's ledger": (
        lambda w: swap_ledger(w, first(w)),
        "its posts are not the planned ones",
    ),
    "foreign file": (
        lambda w: (w.samples_dir / "notes.txt").write_text("?"),
        "does not belong here",
    ),
    "foreign file with a shard's name": (
        lambda w: (w.samples_dir / f"{first(w)}.json").write_text("?"),
        "does not belong here",
    ),
    "half-written file": (
        lambda w: (w.samples_dir / ".x.tar.tmp").write_text("?"),
        "does not belong here",
    ),
    "another shard's files": (
        lambda w: swap(w.samples_dir, first(w)),
        "holds the rows of test-000000",
    ),
    "a count of fates that lies": (
        lambda w: lie(rows_path(w.samples_dir, first(w)), SAMPLES),
        "its fates are not those that its commit record counts",
    ),
    "a ledger's sums that lie": (
        lambda w: lie(rows_path(w.ledger_dir, first(w)), LEDGER),
        "its sums are not those that its commit record gives",
    ),
    "a shard that is not planned": (
        lambda w: rename(w.samples_dir, first(w)),
        "no such shard is planned",
    ),
    "rows out of order": (
        lambda w: rearrange(w.samples_dir, first(w), [1, 0]),
        "its posts are not in order, or one is there twice",
    ),
    "a row twice": (
        lambda w: rearrange(w.samples_dir, first(w), [0, 0, 1]),
        "its posts are not in order, or one is there twice",
    ),
    "another family than the planned": (
        lambda w: adopt(rows_path(w.samples_dir, first(w)), SAMPLES),
        "its posts are not the planned ones",
    ),
}


def lie(path: Path, schema: pa.Schema) -> None:
    """Change what a commit record says about its rows, and seal it anew."""
    info = read_info(path)
    if "fates" in info:
        info["fates"] = {"blank/flat": sum(info["fates"].values())}
    else:
        info["asked"]["num_attempts"] += 1
    write_rows(path, [read_rows(path, schema)], info)


def rearrange(directory: Path, name: str, begin: list[int]) -> None:
    """Let a shard's rows begin otherwise than with the first two, and seal them anew."""
    table, info = read_shard(directory, name, SAMPLES)
    write_rows(rows_path(directory, name), [table.take([*begin, *range(2, len(table))])], info)


def adopt(path: Path, schema: pa.Schema) -> None:
    """Let all posts be of one family, and seal them anew."""
    table, info = read_rows(path, schema), read_info(path)
    at = schema.get_field_index("family")
    table = table.set_column(at, schema.field(at), pa.array([1] * len(table)))
    if schema is SELECTION:
        write_plan(path, table, info)
    else:
        write_rows(path, [table], info)


def swap(directory: Path, name: str) -> None:
    other = "test-000000"
    for path in (tar_path, rows_path):
        shutil.copy(path(directory, other), path(directory, name))


def swap_ledger(work: Work, name: str) -> None:
    shutil.copy(rows_path(work.ledger_dir, "test-000000"), rows_path(work.ledger_dir, name))


def rename(directory: Path, name: str) -> None:
    for path in (tar_path, rows_path):
        path(directory, name).rename(path(directory, "train-000999"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found_and_named(work: Work, damage: str) -> None:
    make, what = DAMAGE[damage]
    make(work)
    problems = verify(work.root)
    assert all(str(work.root) in str(problem) for problem in problems)
    assert any(what in problem.what for problem in problems), problems


def test_what_a_run_at_work_has_half_written_is_no_problem(work: Work) -> None:
    with work.lock(), ShardWriter(work.raw_dir, first(work)):
        ledger = temporary_path(rows_path(work.ledger_dir, first(work)))
        ledger.touch()
        for directory in (work.root, work.raw_dir):
            assert verify(directory) == []
        (work.raw_dir / "notes.txt").touch()
        for directory in (work.root, work.raw_dir):
            said = call("verify", directory).stderr
            assert said.startswith(f"1 problem; a run is using {work.root}: run `verify` again")
    ledger.touch()
    assert ledger in [problem.path for problem in verify(work.root)]
    assert call("verify", work.root).stderr.startswith(f"2 problems; `repair {work.root}` makes")


def test_a_run_that_has_ended_since_is_named_too(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work.raw_dir / "notes.txt").touch()
    with ExitStack() as stack:
        stack.enter_context(work.lock())

        def verify_and_end(directory: Path, quick: bool) -> list[Problem]:
            problems = verify(directory, quick)
            stack.close()
            return problems

        monkeypatch.setattr("pipeline.maintenance.verify.verify", verify_and_end)
        said = call("verify", work.root).stderr
    assert said.startswith(f"1 problem; a run is using {work.root}: run `verify` again")


def test_a_family_in_two_splits_is_found(work: Work) -> None:
    """Its rows are those of its plan, so that nothing else is wrong."""
    adopt(work.plan_path, SELECTION)
    for directory, schema in ((work.raw_dir, RAW), (work.samples_dir, SAMPLES)):
        for name in planned_shards(work.plan_path):
            adopt(rows_path(directory, name), schema)
    found = {problem.what for problem in verify(work.root)}
    assert found == {"family 1 lies in test and in train"}


def test_a_disk_that_fails_is_a_damage_and_hides_no_other(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tar_path(work.raw_dir, "train-000000")
    damaged = tar_path(work.samples_dir, "train-000000")
    flip(damaged, 700)
    fail_to_read(failing, monkeypatch)
    found = {problem.path: problem.what for problem in verify(work.root)}
    assert found[failing] == "cannot be read: Input/output error."
    assert damaged in found


def test_one_damage_hides_no_other(work: Work) -> None:
    swap(work.raw_dir, first(work))
    flip(tar_path(work.samples_dir, "test-000000"), 700)
    rows_path(work.samples_dir, "train-000001").unlink()
    found = {(problem.path.parent.name, problem.shard) for problem in verify(work.root)}
    assert found == {
        ("raw", first(work)),
        ("samples", "test-000000"),
        ("samples", "train-000001"),
    }


def test_shards_without_their_plan_are_a_problem(work: Work) -> None:
    work.plan_path.unlink()
    assert [problem.path for problem in verify(work.root)] == [work.plan_path]


def make_small_shard(directory: Path) -> list[Path]:
    """Write a shard with one original; return its files."""
    row = {"post_id": 1, "split": "train", "status": "fetched", "reason": "", "md5": ""}
    row |= {"character": "", "family": 1, "rating": "s", "ext": "jpg", "width": 1, "height": 1}
    row |= {"parent_id": 0, "tags": "", "http_status": 200, "key": "000000001"}
    row |= {"format": "jpeg", "sha256": hashlib.sha256(b"picture").hexdigest()}
    with ShardWriter(directory, "train-000000") as shard:
        span = shard.add("000000001.jpeg", b"picture")
        row |= {"offset": span.offset, "size": span.size}
        shard.commit(build_table([row], RAW), {"fingerprint": "f", "stage": "fetch"})
    assert verify(directory) == []
    return [path(directory, "train-000000") for path in (tar_path, rows_path)]


def check_bits(directory: Path, step: int) -> int:
    """Flip every ``step``-th bit of a shard in its turn; return how many were found."""
    num_found = 0
    for path in make_small_shard(directory):
        whole = path.read_bytes()
        for bit in range(0, len(whole) * 8, step):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            assert {problem.shard for problem in verify(directory)} == {"train-000000"}, bit
            num_found += 1
        path.write_bytes(whole)
    return num_found


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    assert check_bits(tmp_path, step=397) > 300


@pytest.mark.slow
def test_flipped_bits_are_found_close_to_each_other(tmp_path: Path) -> None:
    assert check_bits(tmp_path, step=29) > 4000


def test_the_sums_cover_every_single_bit(tmp_path: Path) -> None:
    """The two sums that verify compares: each bit of the tar is in its; for rows see test_rows."""
    tar, rows = make_small_shard(tmp_path)
    promised = read_info(rows)["tar_sha256"]
    whole = bytearray(tar.read_bytes())
    assert hashlib.sha256(whole).hexdigest() == promised
    for bit in range(8 * len(whole)):
        whole[bit // 8] ^= 1 << bit % 8
        assert hashlib.sha256(whole).hexdigest() != promised
        whole[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("damage", ["tar missing", "tar too long", "foreign file", "flip in rows"])
def test_quick_finds_what_sizes_and_indexes_show(work: Work, damage: str) -> None:
    make, what = DAMAGE[damage]
    make(work)
    assert any(what in problem.what for problem in verify(work.root, quick=True))


def test_quick_reads_no_tar(work: Work) -> None:
    flip(tar_path(work.samples_dir, first(work)), 700)
    assert verify(work.root, quick=True) == []


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other" / "raw").mkdir(parents=True)
    (tmp_path / "other" / "raw" / "1.arw").write_text("a photograph")
    for place in (tmp_path, *(tmp_path / name for name in ("file", "missing", "other"))):
        with pytest.raises(UserError, match="neither a work folder nor"):
            verify(place)


def test_status_adds_up_and_shows_when_it_does_not(work: Work) -> None:
    found = read_status(work)
    assert found.adds_up
    assert found.stages["prepare"].fates == EXPECTED
    table = status_table(found)
    assert table["prepare"]["num_posts"] == 30
    assert table["adds_up"] is True
    assert table["ledger"]["num_posts"] == table["ledger"]["num_attempts"] == 30
    assert table["ledger"]["http_statuses"] == {"0": 30}
    swap(work.samples_dir, first(work))
    assert not read_status(work).adds_up


def test_status_counts_rows_whose_commit_record_does_not(work: Work) -> None:
    found = read_status(work)
    for directory, schema in ((work.samples_dir, SAMPLES), (work.ledger_dir, LEDGER)):
        path = rows_path(directory, first(work))
        info = read_info(path)
        del info["fates" if schema is SAMPLES else "asked"]
        write_rows(path, [read_rows(path, schema)], info)
    assert read_status(work) == found


@pytest.mark.parametrize("damage", ["tar missing", "cut ledger", "another word", "odd count"])
def test_status_of_a_damaged_folder_is_a_sentence(work: Work, damage: str) -> None:
    path = rows_path(work.ledger_dir, first(work))
    if damage == "tar missing":
        path = tar_path(work.samples_dir, first(work))
        path.unlink()
    elif damage == "cut ledger":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path = rows_path(work.samples_dir, first(work))
        table = read_rows(path, SAMPLES)
        words = pa.array(["kept"] * (len(table) - 1) + ["vanished"]).dictionary_encode()
        index = SAMPLES.get_field_index("status")
        status = words.cast(SAMPLES.field(index).type)
        odd = table.set_column(index, SAMPLES.field(index), status)
        info = read_info(path)
        if damage == "another word":
            del info["fates"]
        else:
            odd, info["fates"] = table, {"kept": "many"}
        write_rows(path, [odd], info)
    with pytest.raises(UserError, match=path.name):
        read_status(work)
