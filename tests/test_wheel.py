"""What `pip install` puts elsewhere works there: nothing leans on the repository's folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "model", "manifests")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the wheel holds, as pip unpacks it."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools 77 builds the wheel")
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, tree)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tree)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = tree.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def nurie(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -P: nothing is imported from the current folder; the wheel comes before an editable install.
    code = "import sys, cli; sys.argv[0] = 'nurie'; cli.main()"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True
    )


def test_a_wheel_has_every_file_of_the_packages(installed: Path) -> None:
    for name in PACKAGES:
        here = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        here = {path for path in here if "__pycache__" not in path.parts}
        there = {p.relative_to(installed) for p in (installed / name).rglob("*") if p.is_file()}
        assert there == here


def test_the_recipes_are_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    names = [path.parent.name for path in sorted((ROOT / "manifests").glob("*/recipe.toml"))]
    outcome = nurie(installed, tmp_path, "fetch", "nothing")
    assert outcome.returncode == 2
    assert ", ".join(names) in " ".join(outcome.stderr.split())


@pytest.mark.slow
def test_the_whole_job_runs_from_a_wheel(installed: Path, tmp_path: Path) -> None:
    outcome = nurie(installed, tmp_path, "demo", "--characters", "24", "--epochs", "1")
    assert outcome.returncode == 0, outcome.stderr
    (picture,) = (tmp_path / "data" / "demo").rglob("crossing.png")
    assert picture.stat().st_size > 10_000
    report = nurie(installed, tmp_path, "report", "data/demo")
    assert report.returncode == 0, report.stderr
