from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe, recipe_names
from pipeline.settings import convert, fingerprint_of, to_table


def test_the_recipes_that_come_along_load() -> None:
    assert {"white-background-256", "portrait-256", "dolls-64"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.select.tags or recipe.select.any_tags
        assert convert(to_table(recipe), Recipe, name) == recipe


def test_the_articles_recipe_is_the_articles() -> None:
    recipe = load_recipe("white-background-256")
    assert recipe.select.rating == ("safe",)
    assert recipe.select.tags == ("white_background",)
    assert recipe.source.layout == "512px"
    prepare = recipe.prepare
    assert (prepare.size, prepare.min_side, prepare.fit) == (256, 256, "stretch")
    assert prepare.sketch.method == "dodge"


def test_a_recipe_is_a_file_a_folder_or_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine" / "recipe.toml"
    path.parent.mkdir()
    path.write_text('[select]\ntags = ["solo"]\n')
    for place in (path, path.parent):
        assert load_recipe(str(place), ["prepare.size=32"]).prepare.size == 32
        assert load_recipe(str(place)).name == "mine"
    (path.parent / "pictures").mkdir()
    for folder, name in ((".", "recipe.toml"), (".", "."), ("pictures", "..")):
        monkeypatch.chdir(path.parent / folder)
        assert load_recipe(name).name == "mine"
    with pytest.raises(UserError, match="white-background-256"):
        load_recipe("white-backgruond")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[select", "TOML"),
        ('[select]\ntag = ["a"]', "did you mean 'select.tags'"),
        ('[select]\nrating = ["g", "x"]', "select.rating: 'x' is none of safe, g, s, q, e"),
        ('[select]\nextensions = ["jpg", ".png"]', "select.extensions: '.png' is none"),
        ('[select]\nextensions = ["JPG"]', "select.extensions: 'JPG' is none"),
        ("[select]\nmin_side = -1", "select.min_side: -1 is not in 0 to 2147483647"),
        ("[select]\nsnapshot = 21", "select.snapshot: 21 is not in 2005 to 9999"),
        ("[select]\nrating = []", "select.rating: name one of safe, g, s, q, e at least"),
        ('[source]\nlayout = "256px"', "layout"),
        ("[source]\nrate = -1", "rate"),
        ('[prepare]\nfit = "crop"', "fit"),
        ("[prepare]\nsize = 3", "size"),
        ("[prepare.sketch]\nkernel = 20", "sketch.kernel: 20 is not odd"),
        ("[prepare.sketch]\nsigma = 0", "sigma and kernel are both 0"),
        ("[prepare.sketch]\nsigma = nan", "sketch.sigma: nan is not in 0"),
        ("[prepare.sketch.xdog]\nsigma = 0", "xdog.sigma: 0.0 is not in 0.1 to 64"),
        ("[prepare.sketch.xdog]\nphi = 1", "unknown key 'prepare.sketch.xdog.phi'"),
        ('name = "\\u001b[2J"', "is not plain; a folder is called by it"),
        ('name = " "', "is not plain; a folder is called by it"),
        ('[prepare.sketches."a/b"]\nsigma = 1', "'a/b' is not a name of a-z, 0-9 and _"),
        ("[prepare.sketches.ink]\nsigna = 1", "did you mean 'prepare.sketches.ink.sigma'"),
        (
            "[prepare.sketches]\nfine = {}\nink = {sigma = 'x'}",
            "toml: prepare.sketches.ink.sigma: Expected `float`, got `str`",
        ),
        (
            "[prepare.sketches]\nfine = {}\nink = {xdog = {k = 0}}",
            "toml: prepare.sketches.ink: xdog.k: 0.0 is not in 1.01 to 16",
        ),
        ("[sketches.ink]\nsigma = 1", "did you mean 'prepare.sketches'"),
        ("[train]\nlr = inf", "a value cannot be kept: Out of range float"),
        ("[train]\nwarmup = [nan]", "a value cannot be kept: Out of range float"),
        ("[split]\ntrain = -1", "split"),
        ("[split]\nshard_size = 0", "shard_size"),
    ],
)
def test_what_a_recipe_may_not_say_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(path))
    assert "a.toml" in str(caught.value)


def test_what_the_command_line_may_not_say_is_not_put_down_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[prepare]\nsize = 64")
    with pytest.raises(
        UserError, match=r"a\.toml --set prepare\.sze=3: unknown key 'prepare\.sze'"
    ):
        load_recipe(str(path), ["prepare.sze=3"])


def test_equal_settings_have_equal_fingerprints() -> None:
    one, other = load_recipe("portrait-256"), load_recipe("portrait-256", ["prepare.size=64"])
    assert fingerprint_of(one.prepare) == fingerprint_of(load_recipe("portrait-256").prepare)
    assert fingerprint_of(one.prepare) != fingerprint_of(other.prepare)
    assert fingerprint_of(one.prepare, {"a": 1, "b": 2}) == fingerprint_of(
        one.prepare, {"b": 2, "a": 1}
    )


def test_sketches_have_members_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        "[prepare.sketches.ink]\nmethod = 'xdog'\n"
        "[prepare.sketches.broad]\nmethod = 'xdog'\nxdog = {sigma = 2.0}\n"
    )
    recipe = load_recipe(str(path), ["prepare.sketches.ink.xdog.k=2"])
    assert convert(to_table(recipe), Recipe, "a") == recipe
    members = recipe.prepare.sketch_members
    assert list(members) == ["sketch", "sketch_broad", "sketch_ink"]
    assert [members[name].method for name in members] == ["dodge", "xdog", "xdog"]
    assert (members["sketch_broad"].xdog.sigma, members["sketch_ink"].xdog.k) == (2.0, 2.0)
