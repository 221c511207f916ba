"""Tables of settings <-> frozen dataclasses: types checked, unknown keys named with the nearest."""

import copy
import dataclasses
import hashlib
import json
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import orjson

from pipeline.errors import UserError
from pipeline.words import nearest

T = TypeVar("T")
Table = dict[str, Any]


def convert(
    table: Table, into: type[T], where: str, sections: Mapping[str, type] | None = None
) -> T:
    """Build the dataclass ``into`` from a plain table (of TOML or JSON).

    Args:
        table: keys and plain values; missing keys take the dataclass's defaults.
        into: a dataclass, whose fields may be dataclasses.
        where: the file or option that the table came from, for the error's text.
        sections: dataclasses of tables that ``into`` keeps plain, by field; of these the keys are
            checked.

    Raises:
        UserError: on a key that ``into`` does not have, or a value of another type.
    """
    _check_keys(table, _fields(into) | dict(sections or {}), where)
    try:
        return msgspec.convert(table, into)
    except ValueError as error:  # msgspec's are such
        raise UserError(f"{where}: {_explain(error, table, into)}.") from error


def _explain(error: ValueError, table: Table, into: Any) -> str:
    """Return msgspec's error with the setting in front, in place of a path behind it."""
    what, _, path = str(error).rpartition(" - at `$.")
    if not what:
        return str(error)
    place, is_one_of_several, rest = path.removesuffix("`").partition("[...]")
    if is_one_of_several:
        place = f"{place}.{_find_wrong(place.split('.'), table, into)}"
    if error.__cause__ is None:
        return f"{place}{rest}: {what}"
    # A dataclass that refuses its values names them itself, but does not know its own name.
    return f"{place}: {what}" if is_one_of_several else what


def _find_wrong(keys: Iterable[str], table: Any, into: Any) -> str:
    """Return the name of the first value that does not fit, of a ``dict[str, Inner]`` at a path."""
    for key in keys:
        table, into = table[key], _fields(into)[key]
    inner = typing.get_args(into)[1]
    return next(str(name) for name, value in table.items() if not _fits(value, inner))


def _fits(value: Any, into: Any) -> bool:
    try:
        msgspec.convert(value, into)
    except ValueError:
        return False
    return True


def to_table(settings: Any) -> Table:
    """Return a dataclass as a plain table that ``convert`` turns back into the same dataclass."""
    return typing.cast(Table, msgspec.to_builtins(settings))


def count_parts(json: bytes) -> int:
    """Return about how many values JSON has; each takes a hundred bytes or two once it is read."""
    return sum(map(json.count, (b"{", b"[", b",")))


def fingerprint_of(*parts: Any) -> str:
    """Return a short hash of settings (dataclasses or plain values): equal settings, equal hash."""
    plain = orjson.dumps(msgspec.to_builtins(parts), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(plain).hexdigest()[:32]


def apply_overrides(table: Table, overrides: Iterable[str]) -> Table:
    """Return ``table`` with each ``section.key=value`` of ``overrides`` put in place.

    A value is read as TOML where it is TOML (``256``, ``true``, ``["a", "b"]``) and as a plain
    string otherwise, so that paths and tags need no quotes.

    Raises:
        UserError: on an override without ``=`` or one that goes through a plain value.
    """
    result = copy.deepcopy(table)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UserError(f"--set {override}: write it as section.key=value.")
        node = result
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {override}: {key!r} is a value, not a section.")
        node[keys[-1]] = _value(text.strip())
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        return text


def _fields(into: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(into)
    return {field.name: hints[field.name] for field in dataclasses.fields(into)}


def _check_keys(
    table: Table,
    fields: Mapping[str, Any],
    where: str,
    path: str = "",
    top: Mapping[str, Any] | None = None,
) -> None:
    """Check a table's keys; ``fields`` are those of this table, ``top`` those of the outermost."""
    top = fields if top is None else top
    for key, value in table.items():
        if key not in fields:
            hint = _hint(key, fields, path, top, isinstance(value, dict))
            raise UserError(f"{where}: unknown key {path + key!r}; {hint}")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{where}: {path + key}: holds a NUL byte, which no name has.")
        nested = _fields_in(fields[key], value) if isinstance(value, dict) else None
        if nested is not None:
            _check_keys(value, nested, where, f"{path}{key}.", top)


def _hint(
    key: str, fields: Mapping[str, Any], path: str, top: Mapping[str, Any], is_section: bool
) -> str:
    """Return what an unknown key may have meant, in its table or, failing that, in another one."""
    elsewhere: dict[str, list[str]] = {}
    for name, is_a_section in _names(top):
        if is_a_section == is_section:
            elsewhere.setdefault(name.rpartition(".")[2], []).append(name)
    near = nearest(key, [*fields, *elsewhere])
    found = [path + near] if near in fields else elsewhere.get(near)
    if not found:
        return f"known: {', '.join(fields)}."
    return f"did you mean {' or '.join(map(repr, found))}?"


def _names(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the full names of all settings and sections, and whether each is a section."""
    for key, hint in fields.items():
        nested = _fields_in(hint)
        yield path + key, nested is not None
        yield from _names(nested or {}, f"{path}{key}.")


def _fields_in(hint: Any, names: Iterable[str] = ()) -> dict[str, Any] | None:
    """Return the fields of a section by its hint, None of what is no section.

    Those of ``dict[str, Inner]`` are tables under ``names``.
    """
    if dataclasses.is_dataclass(hint):
        return _fields(hint)
    inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
    return dict.fromkeys(names, inner) if dataclasses.is_dataclass(inner) else None


def name_differences(
    before: Table, wanted: Table, whose: str = "the lock's", path: str = ""
) -> list[str]:
    """Return the settings that differ, each with both values, as ``prepare.size is 96, WHOSE 64``.

    Args:
        before: tables of plain values, as JSON has them.
        wanted: likewise.
        whose: the owner of the values in ``before``, for the text.
        path: of the tables in the recipe, with a dot at its end.
    """
    odd: list[str] = []
    for key in sorted(before.keys() | wanted.keys()):
        then, now, name = before.get(key), wanted.get(key), f"{path}{key}"
        if isinstance(then, dict) and isinstance(now, dict):
            odd += name_differences(then, now, whose, f"{name}.")
        elif then != now and not _is_of_a_network(name, now):
            here, there = (json.dumps(value, ensure_ascii=False) for value in (now, then))
            odd.append(f"{name} is {here}, {whose} {there}")
    return odd


def _is_of_a_network(name: str, now: Any) -> bool:
    """Whether a setting is where an ONNX file lies, or a sum that is not known yet."""
    return name.endswith("onnx.model") or (name.endswith("onnx.sha256") and not now)
