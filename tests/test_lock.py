import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.check import check_size
from pipeline.lockfile.differences import compare
from pipeline.lockfile.lock import LOCK_ENCODING, Lock, lock_beside, read_lock, write_lock
from pipeline.lockfile.posts import lock_posts, restore_plan
from pipeline.maintenance.repair import repair
from pipeline.planning.plan import plan_posts, planned_shards, read_planned
from pipeline.recipe import OnnxSettings, Recipe, SketchSettings, SplitSettings
from pipeline.run import fetch, prepare
from pipeline.schema import LOCK, RAW, SAMPLES
from pipeline.settings import convert, to_table
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, read_shard, rows_path, tar_path
from pipeline.work import Work
from tests.onnx_models import write_model
from tests.works import EXPECTED, POST, build, make_source, odd_original

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Recipe, Lock]:
    root = tmp_path_factory.mktemp("built")
    work, recipe = build(root)
    return work, recipe, write_lock(work, root / "posts.parquet")


def test_it_says_of_every_post_what_was_got(built: tuple[Work, Recipe, Lock]) -> None:
    work, recipe, lock = built
    assert lock.info.fates == EXPECTED
    assert lock.info.counts == {"planned": 30, "filtered/tag_missing": 1}
    assert lock.info.recipe.prepare == recipe.prepare
    assert lock.info.recipe.select == recipe.select
    assert lock.info.ratings == ("s",)
    assert {"numpy", "opencv-python-headless", "pyarrow"} <= set(lock.info.versions)
    posts = {row["post_id"]: row for row in lock.posts.to_pylist()}
    assert sorted(posts) == list(range(1, 31))
    for name in planned_shards(work.plan_path):
        raw, _ = read_shard(work.raw_dir, name, RAW)
        samples, _ = read_shard(work.samples_dir, name, SAMPLES)
        for original, sample in zip(raw.to_pylist(), samples.to_pylist(), strict=True):
            post = posts[original["post_id"]]
            assert f"{post['split']}-{post['shard']:06d}" == name
            for column in ("status", "reason", "character", "family"):
                assert post[column] == sample[column]
            assert (post["sha256"] or b"").hex() == (original["sha256"] or "")
            assert (post["sample_sha256"] or b"").hex() == (sample["sha256"] or "")


def test_the_plan_comes_back_whole(built: tuple[Work, Recipe, Lock]) -> None:
    work, _, lock = built
    planned = [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    assert restore_plan(lock.posts).to_pylist() == pa.concat_tables(planned).to_pylist()
    urls = restore_plan(lock.posts)["file_url"].to_pylist()
    assert len(set(urls)) == 30
    assert set(lock.posts["file_url"].to_pylist()) == {"https://cdn.example/{md5}.jpg"}


def test_a_url_with_the_locks_own_mark_comes_back_whole(built: tuple[Work, Recipe, Lock]) -> None:
    work, _, _ = built
    name = min(planned_shards(work.plan_path))
    plan = read_planned(work.plan_path, name)
    samples = read_rows(rows_path(work.samples_dir, name), SAMPLES)
    md5 = plan["md5"][0].as_py()
    for url in ("{md5}", "{md5:}{md5::}", f"{{md5{md5}}}{{md5}}", f"{md5}{md5}", "{md5:", "{md55}"):
        urls = pa.array([url] * len(plan))
        column = plan.column_names.index("file_url")
        odd = plan.set_column(column, plan.schema.field("file_url"), urls)
        assert restore_plan(lock_posts(odd, samples))["file_url"].to_pylist() == [url] * len(plan)


def test_what_no_lock_can_say_is_named(
    built: tuple[Work, Recipe, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.lockfile.posts._unfold_url", lambda url, md5: url)
    with pytest.raises(UserError, match=r"file_url of post \d+ holds what .* `takedown`"):
        write_lock(built[0], tmp_path / "posts.parquet")


def test_the_same_folder_gives_the_same_lock(
    built: tuple[Work, Recipe, Lock], tmp_path: Path
) -> None:
    work, _, lock = built
    again = write_lock(work, tmp_path / "posts.parquet")
    assert again.seal == lock.seal
    assert again.path.read_bytes() == lock.path.read_bytes()


def test_it_lies_beside_its_recipe() -> None:
    assert lock_beside(Path("a/recipe.toml")) == Path("a/posts.parquet")
    assert lock_beside(Path("a/mine.toml")) == Path("a/mine.posts.parquet")


def test_no_secret_and_no_metadata_path_is_in_it(tmp_path: Path) -> None:
    work, _ = build(tmp_path)
    plan = pa.concat_tables(
        read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)
    )
    info = read_info(work.plan_path)
    images = "https://me:hunt/er2@mirror.example/{bucket}/{id}.jpg?key=hunter2"
    info["recipe"]["source"] |= {"images": images}
    groups = [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    write_rows(work.plan_path, groups, info)
    lock = write_lock(work, tmp_path / "posts.parquet")
    assert len(lock.posts) == len(plan)
    assert lock.info.recipe.source.images == "https://mirror.example/{bucket}/{id}.jpg"
    assert lock.info.recipe.source.metadata == ""
    text = json.dumps(read_info(lock.path))
    assert "hunt" not in text
    assert str(tmp_path) not in text


def test_no_path_of_this_machine_is_in_it(tmp_path: Path) -> None:
    """Nor in the samples: ``repair`` has a network's path from the recipe of the plan alone."""
    recipe = make_source(tmp_path, 30, odd_original)
    ids = tmp_path / "nsfw.txt"
    ids.write_text("7\n")
    network = OnnxSettings(str(write_model(tmp_path / "lines.onnx")))
    recipe = replace(
        recipe,
        select=replace(recipe.select, nsfw_ids=str(ids)),
        prepare=replace(recipe.prepare, sketch=SketchSettings(method="onnx", onnx=network)),
    )
    recipe = convert(to_table(recipe), Recipe, "test")  # with whole numbers as it reads them
    work = Work(tmp_path / "work")
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    lock = write_lock(work, tmp_path / "posts.parquet")
    assert str(tmp_path) not in json.dumps(read_info(lock.path))
    assert lock.info.recipe.prepare.sketch.onnx.model == "lines.onnx"
    assert compare(lock, work, recipe).num_different == 0
    samples = work.samples_dir / f"{list_shards(work.samples_dir)[0]}.parquet"
    before = samples.read_bytes()
    assert str(tmp_path) not in json.dumps(read_info(samples))
    samples.with_suffix(".tar").unlink()
    assert repair(work, QUIET).problems == []
    assert samples.read_bytes() == before


def test_a_folder_that_is_not_finished_has_no_lock(tmp_path: Path) -> None:
    recipe = make_source(tmp_path, 30, odd_original)
    work = Work(tmp_path / "work")
    path = tmp_path / "posts.parquet"
    with pytest.raises(UserError, match="`fetch` makes it"):
        write_lock(work, path)
    fetch(recipe, work, QUIET)
    with pytest.raises(UserError, match="run `prepare` first"):
        write_lock(work, path)
    prepare(recipe, work, QUIET)
    name = list_shards(work.samples_dir)[0]
    prepare(replace(recipe, prepare=replace(recipe.prepare, size=32)), work, QUIET)
    small = rows_path(work.samples_dir, name).read_bytes()
    prepare(recipe, work, QUIET)
    rows_path(work.samples_dir, name).write_bytes(small)
    with pytest.raises(UserError, match="of different settings"):
        write_lock(work, path)
    prepare(recipe, work, QUIET)
    for picture in (tmp_path / "512px").glob("*/*.jpg"):
        picture.write_bytes(odd_original(int(picture.stem) + 100) or b"")
    rows_path(work.raw_dir, name).unlink()
    fetch(recipe, work, QUIET)
    with pytest.raises(UserError, match="not made of what"):
        write_lock(work, path)
    prepare(recipe, work, QUIET)
    for directory in (work.samples_dir, work.raw_dir):
        tar_path(directory, name).unlink()
        with pytest.raises(DamagedError, match=f"{directory.name}/{name}.tar: missing"):
            write_lock(work, path)
    rows_path(work.raw_dir, name).unlink()
    with pytest.raises(UserError, match="run `fetch` first"):
        write_lock(work, path)
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_named(
    built: tuple[Work, Recipe, Lock], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_lock(built[0], tmp_path / "file" / "posts.parquet")


def column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    """Return what changes a column's values and leaves their type."""

    def forge(posts: pa.Table) -> pa.Table:
        field = LOCK.field(name)
        values = pa.array(change(posts[name].to_pylist()), pa.string() if name == "ext" else None)
        if pa.types.is_dictionary(field.type):
            values = values.dictionary_encode()
        return posts.set_column(LOCK.get_field_index(name), field, values.cast(field.type))

    return forge


def with_a_tag_missing(posts: pa.Table) -> pa.Table:
    """Give each post one tag, the first of them null."""
    words = pa.array([None, *["solo"] * (len(posts) - 1)]).dictionary_encode()
    offsets = pa.array(range(len(posts) + 1), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, words, type=LOCK.field("tags").type)
    return posts.set_column(LOCK.get_field_index("tags"), LOCK.field("tags"), lists)


FORGED: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "negative id": ("post_id is under 1", column("post_id", lambda v: [-v[0], *v[1:]])),
    "same id": ("twice|order", column("post_id", lambda v: [v[1], *v[1:]])),
    "negative family": ("family is under 1", column("family", lambda v: [0, *v[1:]])),
    "negative parent": ("parent_id is under 0", column("parent_id", lambda v: [-1, *v[1:]])),
    "negative shard": ("shard is under 0", column("shard", lambda v: [-1, *v[1:]])),
    "huge shard": ("shards too high", column("shard", lambda v: [*v[:-1], 2**31 - 1])),
    "negative width": ("width is under 0", column("width", lambda v: [-5, *v[1:]])),
    "negative height": ("height is under 0", column("height", lambda v: [-5, *v[1:]])),
    "path in ext": ("ext is no extension", column("ext", lambda v: ["/../../etc/x", *v[1:]])),
    "dots in ext": ("ext is no extension", column("ext", lambda v: ["..", *v[1:]])),
    "newline in ext": ("ext is no extension", column("ext", lambda v: ["jpg\n", *v[1:]])),
    "path in split": ("split is not one of", column("split", lambda v: ["../x", *v[1:]])),
    "unknown rating": ("rating is not one of", column("rating", lambda v: ["z", *v[1:]])),
    "unknown status": ("no post ends with", column("status", lambda v: ["stolen", *v[1:]])),
    "unknown reason": ("no post ends with", column("reason", lambda v: ["why", *v[1:]])),
    "planned": ("no post ends with", column("status", lambda v: ["planned"] * len(v))),
    "no original": ("sha256 does not go", column("sha256", lambda v: [None] * len(v))),
    "sample": ("sample_sha256 does not go", column("sample_sha256", lambda v: [b"x" * 32] * 30)),
    "out of order": ("plan's order", lambda posts: posts.take(list(range(29, -1, -1)))),
    "one less": ("counts are not those", lambda posts: posts.slice(1)),
    "gap among tags": ("has gaps", with_a_tag_missing),
    "none": ("holds no posts", lambda posts: posts.slice(0, 0)),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_lock_is_refused(
    built: tuple[Work, Recipe, Lock], tmp_path: Path, what: str
) -> None:
    message, forge = FORGED[what]
    lock = built[2]
    path = tmp_path / "posts.parquet"
    write_rows(path, [forge(lock.posts)], read_info(lock.path))
    with pytest.raises(UserError, match=message) as caught:
        read_lock(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"schema_version": "one"}, "schema_version"),
        ({"recipe": {"name": "x", "select": {"tgas": []}}}, "select.tags"),
        ({"recipe": 3}, "recipe"),
        ({"counts": {"planned": -30}}, "counts are not those"),
        ({"counts": {"planned": 31}}, "counts are not those"),
        ({"fates": {}}, "counts are not those"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_forged_word_about_all_posts_is_refused(
    built: tuple[Work, Recipe, Lock], tmp_path: Path, info: dict[str, Any], message: str
) -> None:
    lock = built[2]
    path = tmp_path / "posts.parquet"
    write_rows(path, [lock.posts], read_info(lock.path) | info)
    with pytest.raises(UserError, match=message):
        read_lock(path)


def test_other_columns_and_flipped_bits_are_refused(
    built: tuple[Work, Recipe, Lock], tmp_path: Path
) -> None:
    lock = built[2]
    path = tmp_path / "posts.parquet"
    odd = lock.posts.set_column(0, "post_id", lock.posts["post_id"].cast(pa.string()))
    for posts in (odd, lock.posts.drop_columns(["shard"])):
        write_rows(path, [posts], read_info(lock.path))
        with pytest.raises(UserError, match="columns"):
            read_lock(path)
    whole = lock.path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*rng.integers(0, len(whole), 60).tolist(), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(UserError):
            read_lock(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError):
        read_lock(path)
    with pytest.raises(UserError, match="`lock` makes it"):
        read_lock(tmp_path / "none.parquet")


def test_a_small_file_that_grows_in_memory_is_refused(
    built: tuple[Work, Recipe, Lock], tmp_path: Path
) -> None:
    lock = built[2]
    path = tmp_path / "posts.parquet"
    long = pa.array(["x" * 2**20]).dictionary_encode().dictionary
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(150_000, np.int32)), long)
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(31, dtype=np.int32) * 5000), words, type=LOCK.field("tags").type
    )
    tags = LOCK.get_field_index("tags")
    posts = lock.posts.set_column(tags, LOCK.field("tags"), lists)
    write_rows(path, [posts], read_info(lock.path))
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="more text"):
        read_lock(path)


@pytest.mark.parametrize("name", ["status", "split", "character"])
def test_words_that_are_too_long_for_all_posts_together_are_refused(
    built: tuple[Work, Recipe, Lock], tmp_path: Path, name: str
) -> None:
    """Arrow holds two gigabytes of text in one piece, and raises where it should hold more."""
    lock = built[2]
    path, at, field = tmp_path / "posts.parquet", LOCK.get_field_index(name), LOCK.field(name)
    posts = pa.concat_tables([lock.posts] * 40)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * len(posts)), pa.array(["x" * 2**21]))
    posts = posts.set_column(at, field, words.cast(field.type))
    write_rows(path, [posts], read_info(lock.path))
    with pytest.raises(UserError, match="more text"):
        read_lock(path)


def test_thirty_thousand_posts_stay_under_five_megabytes(tmp_path: Path) -> None:
    num_posts, rng = 3000, np.random.default_rng(0)
    vocabulary = [f"{rng.bytes(4).hex()}_{i}" for i in range(12_000)]
    posts = []
    for post_id in np.unique(rng.integers(1, 5_000_000, num_posts)).tolist():
        md5 = rng.bytes(16).hex()
        picks = np.minimum(rng.zipf(1.25, 40), len(vocabulary)) - 1
        posts.append(
            replace(
                POST,
                id=post_id,
                md5=md5,
                width=int(rng.integers(300, 4000)),
                height=int(rng.integers(300, 4000)),
                tags=frozenset(vocabulary[pick] for pick in picks),
                characters=(vocabulary[int(picks[0])],),
                file_url=f"https://cdn.donmai.us/original/{md5[:2]}/{md5[2:4]}/{md5}.jpg",
            )
        )
    plan = plan_posts(posts, SplitSettings())
    samples = {
        "status": pa.array(["kept"] * len(plan)).dictionary_encode().cast(SAMPLES.field(2).type),
        "reason": pa.array([""] * len(plan)).dictionary_encode().cast(SAMPLES.field(3).type),
        "source_sha256": [rng.bytes(32).hex() for _ in posts],
        "sha256": [rng.bytes(32).hex() for _ in posts],
    }
    whole = lock_posts(plan, pa.table(samples))
    sizes = []
    for part in (whole, whole.slice(0, len(whole) // 2)):
        write_rows(tmp_path / "posts.parquet", [part], {}, **LOCK_ENCODING)
        sizes.append((tmp_path / "posts.parquet").stat().st_size)
    a_post = (sizes[0] - sizes[1]) / (len(whole) - len(whole) // 2)
    assert sizes[0] + a_post * (30_000 - len(whole)) < 5e6  # vocabulary and footer grow no more


def test_a_lock_of_too_many_posts_is_refused_by_its_footer(
    built: tuple[Work, Recipe, Lock],
) -> None:
    lock = built[2]
    check_size(lock.path, len(lock.posts))
    with pytest.raises(UserError, match=f"it may have {len(lock.posts) - 1} posts"):
        check_size(lock.path, len(lock.posts) - 1)
