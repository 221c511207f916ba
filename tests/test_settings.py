from dataclasses import dataclass, field

import pytest

from pipeline.errors import UserError
from pipeline.settings import apply_overrides, convert, to_table


@dataclass(frozen=True, slots=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("inner.size: is negative")


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ValueError("share: must not be negative")


def test_tables_and_dataclasses_round_trip() -> None:
    settings = convert({"name": "a", "inner": {"names": ["x"]}, "share": 1}, Outer, "a.toml")
    assert settings == Outer("a", Inner(1, ("x",)), 1.0)
    assert convert(to_table(settings), Outer, "a.toml") == settings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"nam": "a"}, r"a\.toml: unknown key 'nam'; did you mean 'name'\?"),
        ({"name": "a\0b"}, r"a\.toml: name: holds a NUL byte"),
        ({"name": "a", "inner": {"sise": 2}}, r"'inner\.sise'; did you mean 'inner\.size'\?"),
        ({"name": "a", "sizes": 2}, r"'sizes'; did you mean 'inner\.size'\?"),
        ({"name": "a", "inner": {"share": 2}}, r"'inner\.share'; did you mean 'share'\?"),
        ({"name": "a", "inner": {"qqq": 2}}, r"'inner\.qqq'; known: size, names\."),
        (
            {"name": "a", "inner": {"size": "2"}},
            r"^a\.toml: inner\.size: Expected `int`, got `str`\.$",
        ),
        ({"name": "a", "inner": 3}, r"^a\.toml: inner: Expected `object`, got `int`\.$"),
        ({"name": "a", "share": -1}, r"^a\.toml: share: must not be negative\.$"),
        ({"name": "a", "inner": {"size": -1}}, r"^a\.toml: inner\.size: is negative\.$"),
        ({}, r"^a\.toml: Object missing required field `name`\.$"),
    ],
)
def test_what_does_not_fit_is_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(table, Outer, "a.toml")


def test_overrides_are_toml_where_they_can_be_and_text_elsewhere() -> None:
    table = {"inner": {"size": 1}, "name": "a"}
    changed = apply_overrides(
        table,
        ["inner.size=2", "name=white_background", 'inner.names=["a","b"]', "new.deep.key=0.5"],
    )
    assert changed == {
        "inner": {"size": 2, "names": ["a", "b"]},
        "name": "white_background",
        "new": {"deep": {"key": 0.5}},
    }
    assert table == {"inner": {"size": 1}, "name": "a"}


@pytest.mark.parametrize("override", ["inner", "=3", "inner.=3", "name.x=3"])
def test_overrides_that_name_no_key_are_refused(override: str) -> None:
    with pytest.raises(UserError, match="--set"):
        apply_overrides({"name": "a"}, [override])
