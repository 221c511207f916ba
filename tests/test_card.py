"""The card: its front matter reads as the Hub's does, and each of its three ways to load works."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard

from pipeline.lockfile.lock import Lock, read_lock
from pipeline.recipe import Recipe, SourceSettings
from pipeline.share.card import Split, find_splits, write_card
from pipeline.share.index import CARD, LOCK, Index
from pipeline.share.push import push
from pipeline.work import Work
from tests.calls import call
from tests.plurals import plurals_of_one
from tests.shares import NUM_SAMPLES, QUIET, load_index, make_prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("card")
    push(make_prepared(root), str(root / "there"), QUIET, contact="someone@example.org")
    return root


@pytest.fixture
def card(made: Path) -> str:
    """Return the card, with what its reader puts in place of FOLDER."""
    return (made / "there" / CARD).read_text(encoding="utf-8").replace("FOLDER", f"{made}/there")


def parts(made: Path) -> tuple[Index, Lock]:
    return load_index(made / "there"), read_lock(made / "there" / LOCK)


def code_of(card: str, heading: str, language: str = "python") -> str:
    """Return the code block of a language that follows some words, exactly as it stands there."""
    found = re.search(rf"{heading}.*?^```{language}\n(.+?)^```", card, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def front_matter(card: str) -> dict[str, Any]:
    """Return what the Hub's own client makes of a card."""
    about: dict[str, Any] = DatasetCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    return about


def run(code: str) -> None:
    exec(compile(code, CARD, "exec"), {})


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> pytest.MonkeyPatch:
    """Go to an empty folder: nothing that a card says may depend on where one is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return monkeypatch


def test_what_is_shared_names_no_path_of_its_makers_machine(made: Path) -> None:
    for path in (made / "there").rglob("*"):
        assert path.is_dir() or str(made).encode() not in path.read_bytes(), path
    card = (made / "there" / CARD).read_text(encoding="utf-8")
    assert "`FOLDER` stands for the folder that holds this data set." in card
    assert "python cli.py pull FOLDER data/tiny" in card


@pytest.mark.usefixtures("elsewhere")
def test_this_tool_loads_it_as_the_card_says(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.split(code_of(card, "With Nurie", ""))
    assert command[:3] == ["python", "cli.py", "pull"]
    pulled = call(*command[2:])
    assert pulled.exit_code == 0, pulled.output
    run(code_of(card, "With Nurie"))
    assert capsys.readouterr().out.endswith(
        "torch.Size([4, 1, 64, 64]) torch.Size([4, 3, 64, 64])\n"
    )


@pytest.mark.usefixtures("elsewhere")
def test_datasets_loads_it_as_the_card_says(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(code_of(card, "With `datasets`"))
    assert capsys.readouterr().out.endswith("(64, 64) miku smile solo\n")


@pytest.mark.usefixtures("elsewhere")
def test_webdataset_loads_it_as_the_card_says(
    card: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(code_of(card, "With `webdataset`"))
    assert capsys.readouterr().out.endswith("(64, 64) miku smile solo\n")


@pytest.mark.usefixtures("elsewhere")
def test_the_front_matter_is_what_datasets_finds(made: Path, tmp_path: Path) -> None:
    """Without streaming it counts the samples itself, and compares with the card."""
    data = load_dataset(str(made / "there"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in data.items()} == {"train": 25, "test": 1}
    train: Dataset = data["train"]
    assert train[0]["json"]["post_id"] == int(train[0]["__key__"])
    index, lock = parts(made)
    stated = {split.name: split.num_examples for split in find_splits(index, lock)}
    assert stated == {"train": 25, "test": 1}


def test_the_front_matter_reads_as_the_hubs_own_client_reads_it(card: str) -> None:
    about = front_matter(card)
    assert about["pretty_name"] == "tiny"
    assert about["license"] == "other"
    assert about["size_categories"] == ["n<1K"]
    info = about["dataset_info"]
    assert [split["num_examples"] for split in info["splits"]] == [25, 1]
    assert {feature["name"] for feature in info["features"]} == {
        *("color.jpg", "json", "sketch.png", "__key__", "__url__")
    }


def test_the_card_says_what_a_stranger_needs(card: str) -> None:
    for words in (
        f"{NUM_SAMPLES} samples of 64 x 64 pixels",
        "| kept | 26 |",
        "| corrupt/truncated | 1 |",
        "| filtered/tag_missing | 1 |",
        "| **all records** | **31** |",
        "belong to their makers",
        "Write to someone@example.org",
        "python cli.py takedown WORK ID",
        "a Danbooru snapshot of 2021; ratings s; tags `solo`",
        'tags = [\n    "solo",\n]',
    ):
        assert words in card, words


def test_a_card_of_a_recipe_alone_promises_no_pictures(made: Path, tmp_path: Path) -> None:
    push(Work(made / "work"), str(tmp_path / "there"), QUIET, recipe_only=True)
    card = (tmp_path / "there" / CARD).read_text(encoding="utf-8")
    assert "without any picture" in card
    assert "load_dataset" not in card
    assert "configs" not in front_matter(card)
    lines = re.findall(r"^python cli\.py (\w+)", card, re.MULTILINE)
    assert lines == ["pull", "fetch", "prepare", "takedown", "push"]


@pytest.mark.parametrize("recipe_only", [False, True])
def test_a_card_of_one_sample_says_so(tmp_path: Path, recipe_only: bool) -> None:
    work = make_prepared(tmp_path, 1)
    push(work, str(tmp_path / "there"), QUIET, recipe_only=recipe_only)
    card = (tmp_path / "there" / CARD).read_text(encoding="utf-8")
    assert ("hashes of 1 picture, without" if recipe_only else "1 sample of 64 x 64") in card
    assert plurals_of_one(card) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hf://datasets/someone/tiny@main", 'load_dataset("someone/tiny", split="train"'),
        ("s3://bucket/tiny/", '"s3://bucket/tiny/samples/train-*.tar"'),
        ("s3://bucket/tiny", "With `webdataset`, after the `pull`:"),
        ("s3://bucket/tiny", '"data/tiny/samples/train-{000000..000003}.tar"'),
        ("gs://bucket/tiny", '"gs://bucket/tiny/samples/train-{000000..000003}.tar"'),
    ],
)
def test_the_lines_to_load_fit_the_store(made: Path, url: str, words: str) -> None:
    index, lock = parts(made)
    assert words in write_card(replace(index, url=url), lock)


def test_what_a_recipe_says_is_no_markdown(made: Path) -> None:
    index, lock = parts(made)
    select = replace(
        index.recipe.select, any_tags=("<o>_<o>", "a`b"), exclude_tags=("x\n# Heading",)
    )
    hostile = "<img src=x>\n\n# [Free](https://example.org)"
    sketch = replace(index.recipe.prepare.sketch, method=hostile)
    prepare = replace(index.recipe.prepare, sketch=sketch)
    recipe = replace(index.recipe, description=hostile, select=select, prepare=prepare)
    card = write_card(replace(index, recipe=recipe, contact=hostile), lock)
    before_recipe = card.partition("## The recipe")[0]
    assert "\nimg src=x # Free (https://example.org)\n" in before_recipe
    assert "its sketch by `<img src=x> # [Free](https://example.org)` (`sketch.png`)" in card
    assert "Write to img src=x # Free (https://example.org), and" in before_recipe
    assert "; at least one of `<o>_<o>`, `a'b`; without `x # Heading`." in before_recipe


def test_what_a_lock_says_is_no_markdown(made: Path) -> None:
    """It may be a stranger's, and ``push`` publishes it once it was fetched or pulled."""
    evil = "x\n\n# [Log in](https://evil.example) | <b>`"
    index, lock = parts(made)
    words: dict[str, Any] = {
        "ratings": (evil,),
        "versions": {evil: evil},
        "counts": {evil: 1, **lock.info.counts},
    }
    card = write_card(index, replace(lock, info=replace(lock.info, **words)))
    assert "evil.example" in card
    assert not re.search(r"^# [^t]|\[Log in\]|<b>", card, re.MULTILINE)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("/disk/512px/{id}.jpg", "copies on their publisher's disk"),
        ("https://me:hunter2@example.org/x/{id}.jpg?key=hunter3", "`https://example.org`"),
        ("http://a`b/{id}.jpg", "`http://a'b`"),
        ("{file_url}", "what each record names as its file"),
    ],
)
def test_the_origin_names_no_path_and_no_secret(made: Path, images: str, words: str) -> None:
    index, lock = parts(made)
    recipe: Recipe = replace(lock.info.recipe, source=SourceSettings(images=images))
    card = write_card(index, replace(lock, info=replace(lock.info, recipe=recipe)))
    assert f"- Pictures: {words}." in card
    assert "hunter" not in card
    assert "/disk/" not in card


@pytest.mark.parametrize(
    ("numbers", "braces"),
    [
        ([4], "val-000004"),
        ([0, 1, 2], "val-{000000..000002}"),
        ([0, 2], "val-{000000,000002}"),
    ],
)
def test_shards_are_named_by_one_pattern(numbers: list[int], braces: str) -> None:
    assert Split("val", [f"val-{n:06d}" for n in numbers], 1, 1).braces == braces


def test_the_same_data_set_has_the_same_card(made: Path) -> None:
    index, lock = parts(made)
    assert write_card(index, lock) == (made / "there" / CARD).read_text(encoding="utf-8")
