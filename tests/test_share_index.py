import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.recipe import OnnxSettings, PrepareSettings, Recipe, SketchSettings, SourceSettings
from pipeline.recipe_file import load_recipe, recipe_toml
from pipeline.recipe_shared import shared_recipe, without_secrets
from pipeline.settings import convert
from pipeline.share.index import (
    MAX_INDEX_BYTES,
    SIDECARS,
    Index,
    SharedFile,
    read_index,
    shard_files,
    write_index,
)

SUM = "0" * 64


def make_index() -> Index:
    names = sorted([*SIDECARS, *shard_files("test-000000"), *shard_files("train-000012")])
    files = tuple(SharedFile(name, 10, SUM) for name in names)
    return Index("x", "s3://bucket/x", "", "2026-01-01", Recipe("x"), files).seal()


def test_an_index_reads_as_it_was_written() -> None:
    index = make_index()
    assert read_index(write_index(index), "index.json") == index
    assert index.shards == ["test-000000", "train-000012"]


NAMES = [
    "../posts.parquet",
    "samples/../../x/train-000000.tar",
    "/etc/passwd",
    "samples/",
    "samples//train-000000.tar",
    "samples/train-000000.TAR",
    "Samples/train-000000.tar",
    "samples/train-00000.tar",
    "samples/train-0000000.tar",
    "samples/other-000000.tar",
    "samples/train-000000.tar\n",
    "samples/train-٠٠٠٠٠٠.tar",
    "samples/train-000000.pkl",
    "samples\\train-000000.tar",
    "raw/train-000000.tar",
    "runs/first/best.safetensors",
    "selection.parquet",
    ".lock",
    "pipe:cat /etc/passwd",
    "pipe:cat samples/train-000000.tar",
    "http://169.254.169.254/latest",
    "file:///etc/passwd",
    "s3://bucket/samples/train-000000.tar",
    "samples/train-000000.tar::zip://x",
    "index.json",
    "",
    "a" * 100_000,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:40]))
def test_a_name_outside_the_vocabulary_is_refused(name: str) -> None:
    index = make_index()
    files = tuple(sorted([*index.files, SharedFile(name, 10, SUM)]))
    with pytest.raises(UserError, match="which no"):
        read_index(write_index(replace(index, files=files).seal()), "index.json")


TAR = "samples/train-000012.tar"
NO_SUM = f"has no SHA-256 of {TAR}"
MAX_TAR_BYTES = 2**42


def file_of(table: dict[str, Any], name: str) -> dict[str, Any]:
    return next(file for file in table["files"] if file["name"] == name)


def set_file(name: str, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda table: file_of(table, name).update(values)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["files"].remove(file_of(table, name))


SEALED_LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "twice": (lambda t: t["files"].append(t["files"][-1]), "names a file twice, or not in order"),
    "not in order": (lambda t: t["files"].reverse(), "names a file twice, or not in order"),
    "lacks rows": (drop("samples/train-000012.parquet"), r"lacks samples/train-000012\.parquet"),
    "lacks a tar": (drop(TAR), f"lacks {TAR}"),
    "lacks the lock": (drop("posts.parquet"), r"lacks posts\.parquet"),
    **{
        f"{what}: {name}": (set_file(name, size=size), f"says that {name} has {size} bytes")
        for what, size in (("a negative size", -1), ("no bytes", 0), ("too many", 2**50))
        for name in ("README.md", "posts.parquet", TAR)
    },
    "one byte too many": (set_file(TAR, size=MAX_TAR_BYTES + 1), f"says that {TAR} has"),
    "no sum": (set_file(TAR, sha256=""), NO_SUM),
    "a sum in capitals": (set_file(TAR, sha256="A" * 64), NO_SUM),
    "a sum and more": (set_file(TAR, sha256=SUM + "\n"), NO_SUM),
    "no sum of the card": (set_file("README.md", sha256=""), r"has no SHA-256 of README\.md"),
    "another name": (lambda t: t.update(name="y"), "is not named as its recipe"),
    "a recipe that names a host": (
        lambda t: t["recipe"]["source"].update(images="http://x/{id}"),
        "its recipe names places",
    ),
    "a recipe that names a file": (
        lambda t: t["recipe"]["prepare"]["sketch"]["onnx"].update(model="/etc/passwd"),
        "its recipe names places",
    ),
    "a url that moves the cursor": (
        lambda t: t.update(url="\x1b[2J"),
        "its url or contact holds what nobody can print",
    ),
    "a day over lines": (
        lambda t: t.update(published="2026-01-01\n\n# More"),
        "does not say on which day it was published",
    ),
    "a contact over lines": (
        lambda t: t.update(contact="me\nyou"),
        "its url or contact holds what nobody can print",
    ),
}


@pytest.mark.parametrize("lie", SEALED_LIES)
def test_an_index_that_lies_is_refused(lie: str) -> None:
    """Its fingerprint fits, as anybody can make one."""
    change, what = SEALED_LIES[lie]
    table = json.loads(write_index(make_index()))
    change(table)
    sealed = write_index(convert(table, Index, "index.json").seal())
    with pytest.raises(UserError, match=rf"^index\.json: {what}.*`push` writes no such"):
        read_index(sealed, "index.json")


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another fingerprint": (lambda t: t.update(fingerprint="0" * 32), "its fingerprint is not"),
    "another sum": (set_file(TAR, sha256="1" * 64), "its fingerprint is not"),
    "another version": (lambda t: t.update(version=99), "a newer version"),
    "no version": (lambda t: t.update(version="1"), "of a version that this program knows"),
    "a size that is no number": (set_file("README.md", size="10"), "Expected `int`, got `str`"),
    "unknown key": (lambda t: t.update(run="rm"), "unknown key 'run'"),
    "a recipe of nonsense": (lambda t: t["recipe"]["split"].update(by="moon"), "'moon' is neither"),
    "no files": (lambda t: t.update(files=None), "Expected `array`, got `null`"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_says_what_none_says_is_refused(lie: str) -> None:
    change, what = LIES[lie]
    table = json.loads(write_index(make_index()))
    change(table)
    with pytest.raises(UserError, match=rf"^index\.json: .*{what}"):
        read_index(json.dumps(table).encode(), "index.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"null", b"{" * 10**6, b"[" * 10**6],
    ids=lambda data: repr(data[:6]),
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"index\.json"):
        read_index(data, "index.json")


def test_an_index_may_be_no_longer_than_any_is() -> None:
    padded = write_index(make_index()).ljust(MAX_INDEX_BYTES)
    assert read_index(padded, "index.json") == make_index()
    with pytest.raises(UserError, match=r"^index\.json: too large"):
        read_index(padded + b" ", "index.json")


def test_an_index_of_many_small_parts_is_refused_before_it_is_decoded() -> None:
    """64 MiB of them took 1.7 GB."""
    for data in (b"[]," * 10**6, b'{"a":[]},' * 10**6, b"[[]]" * 10**6):
        with pytest.raises(UserError, match=r"index\.json: has too many parts"):
            read_index(b'{"version":1,"x":[' + data + b"0]}", "index.json")


def test_a_pending_index_may_lack_files() -> None:
    pending = replace(make_index(), files=make_index().files[:2])
    assert read_index(write_index(pending), "x", is_whole=False) == pending
    with pytest.raises(UserError, match="lacks"):
        read_index(write_index(pending), "x")


def test_a_shared_recipe_names_no_place(tmp_path: Path) -> None:
    sketch = SketchSettings(method="onnx", onnx=OnnxSettings("/disk/lines.onnx", SUM))
    source = SourceSettings("/disk/metadata", "https://me:secret@host/{id}", hosts=("host",))
    source = replace(source, layout="original", rate=1000)
    train = {"style_weights": "/disk/vgg19.pth", "gan": "none"}
    mine = Recipe(
        "x", source=source, prepare=PrepareSettings(sketches={"ink": sketch}), train=train
    )
    shared = shared_recipe(mine)
    text = recipe_toml(shared)
    assert not any(word in text for word in ("/disk", "host/", "secret", "1000.0"))
    assert shared.prepare.sketches["ink"].onnx == OnnxSettings("lines.onnx", SUM)
    assert shared.source == SourceSettings(layout="original")
    assert shared.train == without_secrets(mine).train == {"gan": "none"}
    assert shared_recipe(shared) == shared
    (tmp_path / "recipe.toml").write_text(text)
    assert load_recipe(str(tmp_path)) == shared


@pytest.mark.parametrize("weights", ["imagenet", "random"])
def test_a_shared_recipe_keeps_weights_that_lie_nowhere(weights: str) -> None:
    mine = Recipe("x", train={"style_weights": weights})
    assert shared_recipe(mine) == without_secrets(mine) == mine


def test_an_index_whose_recipe_has_files_read_is_refused() -> None:
    index = make_index()
    recipe = replace(index.recipe, train={"style_weights": "/net/evil.example/x.pth"})
    with pytest.raises(UserError, match="its recipe names places"):
        read_index(write_index(replace(index, recipe=recipe).seal()), "x")
