"""The README and docs/: their commands take the options that they give them, and the code runs."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from cli import app
from model.config import train_config
from pipeline.dolls.data_set import doll_of, picture_of, write_dolls
from pipeline.recipe_file import load_recipe, recipe_names
from pipeline.records import REASONS, Fate
from pipeline.run import fetch, prepare
from pipeline.work import Work
from tests.model_checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
DOCS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*DOCS, *sorted(ROOT.glob("benchmarks/*.md"))]


def usages() -> list[list[str]]:
    """Return the words of every command in the README and in docs/, each once."""
    return usages_of("\n".join(page.read_text(encoding="utf-8") for page in DOCS))


def usages_of(text: str) -> list[list[str]]:
    lines = re.findall(
        r"^\$? ?(?:[A-Z_]+=\S+ )*(?:.*-- )?(?:python )?cli\.py (.+)$", text, re.MULTILINE
    )
    return [shlex.split(line) for line in dict.fromkeys(lines)]


def test_the_table_of_commands_is_the_commands_own_help() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", README, re.MULTILINE)
    written = {name: text for name, text in rows if name in COMMANDS}
    assert written == {name: command.get_short_help_str(200) for name, command in COMMANDS.items()}


def test_the_help_shows_every_command_in_a_whole_sentence() -> None:
    shown = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, ["--help"]).output
    lines = [line.split(maxsplit=1) for line in shown.partition("Commands:\n")[2].splitlines()]
    assert [line[0] for line in lines] == list(COMMANDS)
    assert [line[1] for line in lines if not line[1].endswith(".") or "..." in line[1]] == []


def test_the_help_says_what_an_option_takes_and_names_no_type_of_python() -> None:
    shown = [CliRunner().invoke(app, [name, "--help"]).output for name in COMMANDS]
    types = re.findall(r"^  --\S+ <(.+?)>", "\n".join(shown), re.MULTILINE)
    assert {*types} <= {"int range", "float"}


@pytest.mark.parametrize("words", usages(), ids=" ".join)
def test_a_command_in_the_docs_takes_its_options(words: list[str]) -> None:
    command = COMMANDS[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_commands_of_every_page_are_looked_at() -> None:
    used = usages()
    assert ["takedown", "WORK", "ID...", "--store", "s3://BUCKET/w"] in used  # many-machines.md
    assert ["fetch", "live-white-background-256", "--limit", "1000"] in used  # after a variable
    assert any("--cache-size" in words for words in used)  # sharing.md
    assert any(words[0] == "train" and "long" in words for words in used)  # under torchrun


def test_every_fate_is_explained_once() -> None:
    page = (ROOT / "docs" / "fates.md").read_text(encoding="utf-8")
    table, _, _ = page.rpartition("`fetch --")
    fates = re.findall(r"`([a-z_]+(?:/\w+)?)`(?=[^|]*\|[^|]*\|$)", table, re.MULTILINE)
    known = [str(Fate(status, reason)) for status in REASONS for reason in REASONS[status]]
    assert sorted(fates) == sorted(known)


def test_every_extra_that_somebody_is_told_to_install_is_one_of_the_clones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {*project["optional-dependencies"]} - {"bench", "dev"}
    code = [path for room in ("model", "pipeline") for path in ROOT.glob(f"{room}/**/*.py")]
    pages = [*DOCS, ROOT / "notebooks" / "demo.ipynb", *code]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert "nurie[" not in text  # no package index has it
    told = re.findall(r"""-e '\.\[(\w+)|extra `(\w+)`|install\(["'](\w+)""", text)
    assert {"".join(names) for names in told} <= extras
    (listed,) = re.findall(r"`pip install -e '.\[app\]'`, and likewise (.+?);", README, re.DOTALL)
    assert {*re.findall(r"`(\w+)`", listed), "app"} == extras


def test_every_recipe_is_in_the_readme() -> None:
    assert {name for name in recipe_names() if f"| `{name}` |" not in README} == set()


def test_every_file_that_a_page_links_to_is_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
            if "://" in target:
                continue
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors_of(path), f"{page.name}: #{anchor}"


def test_the_contents_of_the_results_name_every_section() -> None:
    path = ROOT / "benchmarks" / "RESULTS.md"
    aims, _, rest = path.read_text(encoding="utf-8").partition("\n## Contents\n")
    assert re.findall(r"^## (.+)$", aims, re.MULTILINE) == ["Aims and results"]  # what comes first
    contents = re.findall(r"\(#([^)]+)\)", rest.partition("\n## ")[0])
    assert ["results", "aims-and-results", "contents", *contents] == anchors_of(path)


def anchors_of(page: Path) -> list[str]:
    """Return what links call a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]


@pytest.mark.slow
def test_the_readmes_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dolls(tmp_path / "mirror", 12, 8)
    work = Work(tmp_path / "data" / "demo")
    overrides = [
        f'source.metadata="{tmp_path}/mirror/metadata"',
        f'source.images="{tmp_path}/mirror/512px/{{bucket}}/{{id}}.jpg"',
    ]
    recipe = load_recipe("dolls-64", overrides)
    fetch(recipe, work, Console(quiet=True))
    prepare(recipe, work, Console(quiet=True))
    monkeypatch.chdir(tmp_path)
    paints, first, second = re.findall(r"^```python\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    write_checkpoint(work.runs_dir / "demo" / "best.safetensors", "reference", drop_reference=0.1)
    for name, doll in (("a.png", doll_of(1_000_000)), ("b.png", doll_of(1_000_100))):
        Image.fromarray(picture_of(doll)).save(name)
    exec(compile(paints, "README.md", "exec"), {})
    assert Image.open("c.png").size == Image.open("a.png").size
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([4, 1, 64, 64]) torch.Size([4, 3, 64, 64])\n"
    found: dict[str, Any] = {}
    exec(compile(second, "README.md", "exec"), found)
    assert (found["sketch"].size, found["color"].size) == ((64, 64), (64, 64))
    assert found["post"]["post_id"] > 0


@pytest.mark.slow
def test_a_folder_of_ones_own_pictures_becomes_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/own-pictures.md says, up to the training."""
    page = (ROOT / "docs" / "own-pictures.md").read_text(encoding="utf-8")
    write_dolls(tmp_path / "mirror", 12, 8)
    drawings = sorted((tmp_path / "mirror" / "512px").rglob("*.jpg"))
    monkeypatch.chdir(tmp_path)
    for character in range(4):
        folder = Path("art", f"who {character}")
        folder.mkdir(parents=True)
        for path in drawings[8 * character : 8 * character + 8]:
            shutil.copy(path, folder / f"{path.stem}.JPG")  # as cameras name them
    (code,) = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(code, "own-pictures.md", "exec"), {})
    first = Path("posts.json").read_text(encoding="utf-8")
    Path("art", "._who.jpg").touch()  # as macOS lays them beside a picture
    shutil.copy(drawings[32], Path("art", "a 猫.png"))  # before all others, and of no character
    for _ in range(2):  # later pictures come below the others, once
        exec(compile(code, "own-pictures.md", "exec"), {})
        now = Path("posts.json").read_text(encoding="utf-8")
        (added,) = map(json.loads, now.removeprefix(first).splitlines())
        assert (added["id"], added["source"]) == (33, "art/a 猫.png")
        assert (added["tag_string_character"], added["file_ext"]) == ("", "png")
    (recipe,) = re.findall(r"^```toml\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    Path("mine.toml").write_text(recipe, encoding="utf-8")
    for words in usages_of(page)[:2]:
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    rows = pd.concat(map(pd.read_parquet, Path("data/mine/samples").glob("*.parquet")))
    kept = rows[rows["status"] == "kept"]  # some of the dolls' files are damaged on purpose
    assert len(kept) >= 20
    named = kept[kept["character"] != ""]
    found = sorted(
        name for _, names in named.groupby("split")["character"] for name in names.unique()
    )
    assert found == [f"who_{character}" for character in range(4)]  # each in one split alone
    mine = load_recipe("mine.toml")
    assert mine.prepare.size == 256
    learnt = train_config(mine.train, "mine.toml").sketches
    assert {f"{member}_offset" for member in learnt} < set(kept)
