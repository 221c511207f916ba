"""fetch and prepare, as the command line calls them."""

import errno
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.shards.shard import rows_path, tar_path
from pipeline.stages.prepare import PrepareStage
from pipeline.work import Work
from tests.calls import call
from tests.crashing import contents, fetch, make_source, make_work, prepare
from tests.files import flip
from tests.metadata_records import make_post, new_record


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path)


@pytest.mark.parametrize("name", ["a [/b] [bold]c :x:", "long" * 25])
def test_advice_names_paths_as_they_are_in_one_line(name: str, tmp_path: Path) -> None:
    make_source(tmp_path)
    work = Work(tmp_path / name)
    fetch(tmp_path, work)
    prepare(tmp_path, work)
    command = ["prepare", tmp_path / "recipe.toml", "--work", work.root, "--workers", 1]
    said = call(*command, "--set", "prepare.size=48").stderr
    assert said.startswith(f"{work.samples_dir}: 2 shards have other settings and will be made ")
    assert said.count("\n") == 1


def test_a_file_that_is_no_metadata_is_told_from_a_recipe_that_wants_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "512px").mkdir()
    images = ["--images", f"{tmp_path}/512px/{{id}}.jpg", "--work", tmp_path / "work"]
    (tmp_path / "a.png").write_bytes(bytes(range(256)) * 9)
    error = call("fetch", "dolls-64", "--metadata", tmp_path / "a.png", *images).exception
    assert str(error).startswith(f"{tmp_path}/a.png: holds no record of a post; the first that it")
    assert str(error).endswith("Is it Danbooru's metadata?")
    (tmp_path / "posts.json").write_text(json.dumps(new_record(make_post(1, "solo"))))
    error = call("fetch", "dolls-64", "--metadata", tmp_path / "posts.json", *images).exception
    assert "no post is left after selection" in str(error)


def test_pictures_in_no_bucket_are_refused_before_any_work(tmp_path: Path) -> None:
    make_source(tmp_path)
    command = ["fetch", tmp_path / "recipe.toml", "--work", tmp_path / "w"]
    refused = call(*command, "--images", "s3:///{id}.jpg", "--workers", 1)
    assert isinstance(refused.exception, UserError)
    assert "give one, as in s3://BUCKET/{id}.jpg." in str(refused.exception)
    assert not (tmp_path / "w").exists()


def test_metadata_that_is_cut_off_is_said_each_time(tmp_path: Path) -> None:
    make_source(tmp_path)
    packed = gzip.compress((tmp_path / "posts.json").read_bytes() + Random(0).randbytes(20000))
    metadata = tmp_path / "posts.json.gz"
    metadata.write_bytes(packed[:-2000])
    command = ["fetch", tmp_path / "recipe.toml", "--metadata", metadata, "--work", tmp_path / "w"]
    for options in (["--dry-run"], [], []):
        done = call(*command, *options)
        assert done.exit_code == 0, done.output
        said = done.stderr
        assert f"{metadata}:0: unreadable from here on: " in said
        assert "is the file whole?\n" in said  # on a slow machine, progress comes after it


def test_originals_are_not_cropped_as_another_layout(work: Work, tmp_path: Path) -> None:
    before = contents(work)
    recipe = tmp_path / "recipe.toml"
    other = ["--set", "source.layout=512px"]
    refused = call("prepare", recipe, "--work", work.root, *other).exception
    assert isinstance(refused, UserError)
    assert "was fetched with source.layout 'original'" in str(refused)
    assert "--set source.layout=original" in str(refused)
    assert contents(work) == before


@pytest.mark.parametrize("option", [("--rank", 0), ("--world-size", 2)])
@pytest.mark.parametrize("command", ["fetch", "prepare"])
def test_a_rank_goes_with_a_world_size(
    command: str, option: tuple[str, int], tmp_path: Path
) -> None:
    make_source(tmp_path)
    words = (command, tmp_path / "recipe.toml", "--work", tmp_path / "w", *option)
    error = call(*words).exception
    assert isinstance(error, UserError)
    assert str(error).startswith("--rank I and --world-size N go together")
    assert not (tmp_path / "w").exists()


def test_shards_that_failed_are_for_the_same_command(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stage: PrepareStage, name: str, tick: object) -> Fates:
        if name == "val-000000":
            raise OSError(errno.EIO, "Input/output error")
        return prepare_shard(stage, name, tick)

    prepare_shard: Callable[..., Fates] = PrepareStage.__call__
    shutil.rmtree(work.samples_dir)
    command = ("prepare", tmp_path / "recipe.toml", "--work", work.root, "--workers", 1)
    with monkeypatch.context() as patch:
        patch.setattr(PrepareStage, "__call__", fail)
        done = call(*command)
    assert done.exit_code == 1
    assert done.stderr == (
        "shard val-000000 failed: OSError: [Errno 5] Input/output error\n"
        "1 shard is not done; run the same command again. "
        f"If that is no help: `verify {work.root}`.\n"
    )
    assert call(*command).exit_code == 0
    assert call("verify", work.root).exit_code == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "loss of the tar", "flip in the rows"])
def test_damaged_originals_are_for_repair(damage: str, work: Work, tmp_path: Path) -> None:
    tar, rows = (find(work.raw_dir, "val-000000") for find in (tar_path, rows_path))
    shutil.rmtree(work.samples_dir)
    if damage == "loss of the tar":
        tar.unlink()
    elif damage == "cut":
        os.truncate(tar, 700)
    else:
        flip(tar if damage == "flip" else rows, 700)
    command = ("prepare", tmp_path / "recipe.toml", "--work", work.root, "--workers", 1)
    done = call(*command)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"shard val-000000 failed: {work.raw_dir}/val-000000.")
    assert done.stderr.endswith(
        f"1 shard is not done; `repair {work.root}` makes damaged originals anew. Then run the "
        "same command again.\n"
    )
    assert call("repair", work.root, "--workers", 1).exit_code == 0
    assert call(*command).exit_code == 0
    assert call("verify", work.root).exit_code == 0


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_source(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipeline.executor_ray", raising=False)
    words = ("fetch", tmp_path / "recipe.toml", "--work", tmp_path / "w", "--executor", "ray")
    error = call(*words).exception
    assert isinstance(error, UserError)
    assert str(error).startswith("--executor ray needs Ray: pip install -e '.[ray]'")
