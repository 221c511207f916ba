"""Recipes as files: found by name or path, read, and written."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson
import tomli_w

from pipeline.disk import reason
from pipeline.errors import UserError
from pipeline.recipe import Recipe
from pipeline.settings import Table, apply_overrides, convert, to_table
from pipeline.words import did_you_mean

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"

_PART = r"""(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.){0,99}+"|'[^'\n]*+')"""
_DEEP = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{64}}")  # tomllib takes time by its square


def load_recipe(
    name_or_path: str, overrides: Iterable[str] = (), sections: Mapping[str, type] | None = None
) -> Recipe:
    """Load a recipe by its name in ``manifests/`` or by the path of a TOML file.

    Args:
        name_or_path: which one.
        overrides: each ``section.key=value``.
        sections: see ``settings.convert``.

    Raises:
        UserError: when there is no such recipe, or it does not say what a recipe may say.
    """
    path = find_recipe(name_or_path)
    try:
        table = _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as TOML: {reason(error)}.") from error
    overrides = list(overrides)
    where = " ".join([str(path), *(f"--set {override}" for override in overrides)])
    folder = path.parent.resolve() if path.parent.name in ("", "..") else path.parent
    table.setdefault("name", folder.name if path.name == "recipe.toml" else path.stem)
    try:
        recipe = convert(apply_overrides(table, overrides), Recipe, where, sections)
        plain = to_table(recipe)
        orjson.dumps(plain)  # as it will be written into what it makes, ...
        json.dumps(plain, allow_nan=False)  # ... where inf and nan would be null
    except (RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: nested too deeply, or a value cannot be kept: {error}."
        ) from error
    name = recipe.name
    if not name.isprintable() or not name.strip() or name[0] == "." or set(name) & set("/\\"):
        raise UserError(f"{where}: name: {name!r} is not plain; a folder is called by it.")
    return recipe


def _parse(text: str) -> Table:
    if _DEEP.search(text):
        raise ValueError("a key of more than 64 parts")
    return tomllib.loads(text)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the program."""
    return sorted(path.parent.name for path in MANIFESTS.glob("*/recipe.toml"))


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as the TOML that ``load_recipe`` reads."""
    return tomli_w.dumps(to_table(recipe))


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe, by its name in ``manifests/``, its folder or its path.

    Raises:
        UserError: when there is none.
    """
    named = MANIFESTS / name_or_path / "recipe.toml"
    if "/" not in name_or_path and named.is_file():
        return named
    path = Path(name_or_path)
    path = path / "recipe.toml" if path.is_dir() else path
    if path.is_file():
        return path
    names = recipe_names()
    hint = did_you_mean(name_or_path, names)
    raise UserError(
        f"no recipe {name_or_path!r}{hint}: give one of {', '.join(names)}, or the path of a TOML "
        "file."
    )
