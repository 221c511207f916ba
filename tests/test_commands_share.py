"""push, pull and takedown, as the command line calls them."""

import re
import shlex
from pathlib import Path

from tests.calls import call
from tests.crashing import make_work


def test_a_pull_of_a_recipe_alone_says_how_to_fetch_the_pictures(tmp_path: Path) -> None:
    work, again = make_work(tmp_path), tmp_path / "with a space"
    assert call("push", work.root, tmp_path / "there", "--recipe-only").exit_code == 0
    pulled = call("pull", tmp_path / "there", again)
    assert pulled.exit_code == 0, pulled.output
    told = re.search(r"^no pictures are shared there; .*: `(.*) TEMPLATE`$", pulled.stdout, re.M)
    assert told is not None
    template = tmp_path / "original" / "{id}.jpg"
    done = call(*shlex.split(told[1]), template, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "6  fetched" in done.stdout
