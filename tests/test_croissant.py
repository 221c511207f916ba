"""``croissant.json``: valid Croissant 1.1 by the reference library, which reads its records too."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.share.croissant import VERSION
from pipeline.share.index import CROISSANT
from pipeline.share.push import push
from tests.shares import NUM_POSTS, NUM_SAMPLES, QUIET, make_prepared

READ = """
import json, sys
import mlcroissant as mlc

data = mlc.Dataset(sys.argv[1])
found = {"version": data.metadata.ctx.conforms_to.value}
found["issues"] = [*data.metadata.issues.errors, *data.metadata.issues.warnings]
for name in sys.argv[2:]:
    rows = [dict(row) for row in data.records(name)]
    found[name] = [
        {key: value if isinstance(value, int) else getattr(value, "size", None) or str(value)
         for key, value in row.items()}
        for row in rows
    ]
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("croissant")
    work = make_prepared(root)
    push(work, str(root / "there"), QUIET)
    push(work, str(root / "recipe"), QUIET, recipe_only=True)
    return root / "there"


def read(path: Path, cache: Path, *record_sets: str) -> dict[str, Any]:
    """Let the reference library read it, in a process of its own: its cache is chosen at import."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), *record_sets],
        capture_output=True,
        text=True,
        check=False,
        env={"CROISSANT_CACHE": str(cache), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_reference_library_finds_nothing_wrong_and_reads_it(
    there: Path, tmp_path: Path
) -> None:
    found = read(there / CROISSANT, tmp_path, "splits", "posts", "color", "sketch")
    assert found["version"] == VERSION
    assert found["issues"] == []
    posts = found["posts"]
    assert len({row["posts/post_id"] for row in posts}) == NUM_POSTS
    assert sum(row["posts/status"] == "b'kept'" for row in posts) == NUM_SAMPLES
    keys = [row["color/key"] for row in found["color"]]
    assert len(set(keys)) == NUM_SAMPLES
    assert sorted(row["sketch/key"] for row in found["sketch"]) == sorted(keys)
    assert {tuple(row["sketch/picture"]) for row in found["sketch"]} == {(64, 64)}
    assert [row["splits/num_samples"] for row in found["splits"]] == [25, 0, 1]


def test_of_a_recipe_alone_it_has_the_posts(there: Path, tmp_path: Path) -> None:
    found = read(there.parent / "recipe" / CROISSANT, tmp_path, "posts")
    assert found["issues"] == []
    assert len(found["posts"]) == NUM_POSTS


def test_its_sums_are_those_of_the_files(there: Path) -> None:
    described = json.loads((there / CROISSANT).read_text())
    files = [node for node in described["distribution"] if node["@type"] == "cr:FileObject"]
    assert len(files) == 12
    for node in files:
        data = (there / node["contentUrl"]).read_bytes()
        assert node["sha256"] == hashlib.sha256(data).hexdigest()
        assert node["contentSize"] == f"{len(data)} B"
