"""push and pull leave alone what is somebody else's, and undo no takedown."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import rows_path
from pipeline.share.index import CARD, INDEX, LOCK, PENDING, RECIPE
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stores.transfer import copy_bytes
from pipeline.stores.web import WebStore
from pipeline.web.serve import serve_folder
from pipeline.work import Work
from tests.files import fail_to_read, files_in
from tests.real_commands import Source
from tests.shard_stores import both
from tests.shares import QUIET, forge_files, load_index, pull_to


@pytest.mark.usefixtures("scratch_dir")
def test_a_store_of_another_folders_is_left_alone(local: Source, tmp_path: Path) -> None:
    """Neither does a folder of the same plan bring back what was taken down there."""
    store, owner = tmp_path / "store", Work(tmp_path / "owner")
    other = Work(local.root / "undisturbed")
    both(local, owner, str(store))
    before = files_in(store)
    with pytest.raises(UserError, match="shards of another work folder, which `--store` put"):
        push(other, str(store), QUIET)
    assert files_in(store) == before
    push(owner, str(store), QUIET)
    with pytest.raises(UserError, match="shards of another work folder, which `--store` put"):
        push(other, str(store), QUIET)  # although it would push the same
    take_down(owner, [2], store=str(store))
    before = files_in(store)
    for recipe_only in (False, True):
        with pytest.raises(UserError, match="posts were taken down there, and .* still knows"):
            push(other, str(store), QUIET, recipe_only=recipe_only)
    assert files_in(store) == before
    push(owner, str(store), QUIET)


@pytest.mark.slow
def test_a_takedown_that_was_pushed_is_not_undone_by_another_folder(
    work: Work, tmp_path: Path
) -> None:
    other, there = Work(tmp_path / "other"), tmp_path / "there"
    shutil.copytree(work.root, other.root)
    push(work, str(there), QUIET)
    push(other, str(there), QUIET)
    behind = pull_to(there, tmp_path / "behind")
    take_down(work, [2])
    push(work, str(there), QUIET)
    before = files_in(there)
    for folder in (other, behind):
        with pytest.raises(UserError, match="posts were taken down there, and .* knows them: 2;"):
            push(folder, str(there), QUIET)
    assert files_in(there) == before
    take_down(other, [2])
    assert push(other, str(there), QUIET).num_moved == 0
    push(pull_to(there, behind.root), str(there), QUIET)
    samples = {name for name in before if name.startswith("samples/")}
    assert all(files_in(there)[name] == before[name] for name in samples)


SHARD = "samples/train-000000.tar"
FOREIGN: dict[str, Callable[[Path], object]] = {
    CARD: lambda place: (place / CARD).write_text("thesis"),
    "readme.md": lambda place: (place / "readme.md").write_text("one file with README.md, or not"),
    LOCK: lambda place: (place / LOCK).write_text("letters"),
    INDEX: lambda place: (place / INDEX).write_text('{"name": "a site"}'),
    PENDING: lambda place: (place / PENDING).write_text('{"name": "a site"}'),
    SHARD: lambda place: (place / SHARD).write_text("tar"),
    RECIPE: lambda place: (place / RECIPE).symlink_to("notes.txt"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_no_push_brought_are_left_alone(work: Work, tmp_path: Path, name: str) -> None:
    place = tmp_path / "proj"
    (place / name).parent.mkdir(parents=True)
    (place / "notes.txt").write_text("are in nobody's way")
    FOREIGN[name](place)
    before = files_in(place)
    with pytest.raises(UserError, match=f"proj: holds {name.split('/')[0]}, and no `push`"):
        push(work, str(place), QUIET)
    assert files_in(place) == before
    assert (place / name).is_symlink() == (name == RECIPE)
    (place / name).unlink()
    push(work, str(place), QUIET)
    assert files_in(place).items() >= {"notes.txt": b"are in nobody's way"}.items()


def test_all_that_is_in_the_way_of_a_push_is_named_at_once(work: Work, there: Path) -> None:
    (there / INDEX).write_text("damaged")  # so that it cannot say what that push brought
    before = files_in(there)
    entries = [CARD, "croissant.json", INDEX, LOCK, RECIPE, "samples"]
    with pytest.raises(UserError, match=f"{there}: holds {', '.join(entries)}, and no `push`"):
        push(work, str(there), QUIET)
    assert files_in(there) == before
    away = there.with_name("away")
    away.mkdir()
    for entry in entries:  # as it says
        (there / entry).rename(away / entry)
    push(work, str(there), QUIET)
    assert verify(there) == []


def test_another_work_folder_is_left_alone(made: Path, work: Work) -> None:
    before = files_in(work.root)
    with pytest.raises(UserError, match="is a work folder; push to a folder of its own"):
        push(Work(made / "work"), str(work.root), QUIET)
    assert files_in(work.root) == before


@pytest.mark.parametrize(
    "name",
    [
        *("posts.parquet", "share/README.md", "samples/train-000000.tar"),
        *("share", "samples"),
    ],
)
def test_a_pull_leaves_files_alone_that_no_pull_brought(
    made: Path, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "mine"
    (mine / name).parent.mkdir(parents=True)
    (mine / name).write_text("mine")
    with pytest.raises(UserError, match=f"mine/{name.split('/')[0]}: is there already"):
        pull_to(made / "there", mine)
    assert files_in(mine) == {name: b"mine"}


def test_a_link_to_nowhere_is_left_alone(made: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "posts.parquet").symlink_to(tmp_path / "moved.parquet")
    with pytest.raises(UserError, match=r"mine/posts\.parquet: is there already"):
        pull_to(made / "there", mine)


def test_what_a_pull_left_before_it_had_a_plan_is_in_nobodys_way(
    made: Path, tmp_path: Path
) -> None:
    work = Work(tmp_path / "again")
    work.share_dir.mkdir(parents=True)
    work.incoming_dir.mkdir()
    shutil.copy(made / "there" / LOCK, work.incoming_dir)
    pull_to(made / "there", work.root)
    assert not work.incoming_dir.exists()


def test_what_lies_beside_files_that_come_stays(made: Path, tmp_path: Path) -> None:
    mine = tmp_path / "again" / "incoming" / CARD
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    pull_to(made / "there", tmp_path / "again", split="test")
    pull_to(made / "there", tmp_path / "again")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["share", ".incoming", "samples"])
def test_a_file_for_a_folder_of_a_pull_is_a_sentence(made: Path, tmp_path: Path, name: str) -> None:
    again = pull_to(made / "there", tmp_path / "again", split="test")
    shutil.rmtree(again.root / name, ignore_errors=True)
    (again.root / name).write_text("mine")
    with pytest.raises(UserError, match=f"again/{name}: is no folder, and one goes there"):
        pull_to(made / "there", again.root)
    assert (again.root / name).read_text() == "mine"


def test_a_push_follows_no_link_out_of_its_folder(work: Work, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for folder in (mine, tmp_path / "there"):
        folder.mkdir()
    (mine / "train-000000.tar").write_text("mine")
    (tmp_path / "there" / "samples").symlink_to(mine)
    with pytest.raises(UserError, match="there/samples: is a link; a data set holds none"):
        push(work, str(tmp_path / "there"), QUIET)
    assert [path.read_text() for path in mine.iterdir()] == ["mine"]


def test_whom_to_ask_is_kept(work: Work, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(work, str(there), QUIET, contact="me@example.org")
    assert push(work, str(there), QUIET).num_moved == 0
    assert load_index(there).contact == "me@example.org"
    push(work, str(there), QUIET, contact="you@example.org")
    assert load_index(there).contact == "you@example.org"
    with pytest.raises(UserError, match="what no card can show"):
        push(work, str(there), QUIET, contact="me\nyou")


def refuse_at(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a call on a path within ``place`` fail as for want of permission, whoever runs this."""
    real = getattr(Path, name)

    def refuse(path: Path, *rest: Any, **options: Any) -> Any:
        if path == place or path.parent == place:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(Path, name, refuse)


def test_a_folder_that_may_not_be_looked_into_is_in_nobodys_way(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    refuse_at(disk / "lost+found", monkeypatch, "iterdir")
    push(work, str(disk), QUIET)
    refuse_at(disk / "samples", monkeypatch, "iterdir")
    with pytest.raises(UserError, match="disk/samples: cannot be read: .*Permission denied"):
        push(work, str(disk), QUIET)


def test_a_folder_that_may_not_be_written_is_a_sentence(
    made: Path, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shutil.copytree(made / "there", tmp_path / "there")
    with monkeypatch.context() as patch:
        rows = rows_path(there / "samples", "train-000000")
        write_rows(rows, [read_rows(rows, SAMPLES)], read_info(rows) | {"fingerprint": "0" * 16})
        forge_files(there)  # so the old rows have to go
        refuse_at(there / "samples", patch, "unlink")
        with pytest.raises(UserError, match=r"there/samples.*: cannot be written: Permission"):
            push(work, str(there), QUIET)
    again = pull_to(made / "there", tmp_path / "again", split="test")
    refuse_at(again.incoming_dir, monkeypatch, "replace")
    with pytest.raises(UserError, match=r"again/\.incoming/.*: cannot be used: Permission denied"):
        pull_to(made / "there", again.root)


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.parquet"])
def test_what_cannot_be_read_here_is_named(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(source: Any, *rest: Any) -> None:
        if Path(source.name).name == name:
            raise OSError(errno.EIO, "Input/output error")
        copy_bytes(source, *rest)

    fail_to_read(work.samples_dir / name, monkeypatch)
    monkeypatch.setattr("pipeline.stores.folder.copy_bytes", fail)
    for place in (str(tmp_path / "there"), "memory://failing/tiny"):
        with pytest.raises(UserError, match=rf"work/samples/{name}: cannot be read: Input/output"):
            push(work, place, QUIET)


def test_a_link_to_itself_is_a_sentence(work: Work, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match=r"loop.*: Too many levels of symbolic links"):
        push(work, str(loop), QUIET)


@pytest.mark.parametrize("value", ["Bearer é€", "Bearer a\nb", "Bearer \x07"])
def test_authorization_that_no_header_may_hold_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NURIE_AUTHORIZATION", value)
    with pytest.raises(UserError, match="NURIE_AUTHORIZATION: .* copy it anew") as caught:
        WebStore("http://127.0.0.1:9/x", "URL")
    assert "Bearer" not in str(caught.value)


def test_a_line_end_after_authorization_does_not_matter(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NURIE_AUTHORIZATION", "Bearer x\n")
    with serve_folder(made / "there") as url:
        pull(url, Work(tmp_path / "again"), QUIET, split="test")
