"""Imports run one way: cli -> model -> the few modules of pipeline that it may know."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODEL_MAY_USE = (
    "pipeline.console.",
    "pipeline.disk.",
    "pipeline.errors.",
    "pipeline.pictures.bombs.",
    "pipeline.pictures.onnx_session.",
    "pipeline.pictures.rgb.",
    "pipeline.planning.families.",
    "pipeline.progress.",
    "pipeline.records.",
    "pipeline.schema.",
    "pipeline.settings.",
    "pipeline.shards.rows.",
    "pipeline.shards.shard.",
    "pipeline.shards.tar_pool.",
    "pipeline.words.",
)


def imported(path: Path) -> set[str]:
    """Return the dotted names of modules, and of what is taken from them, which may be modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda p: p.stem)
def test_the_pipeline_knows_neither_model_nor_torch(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"model", "cli", "torch", "torchvision"}


@pytest.mark.parametrize("path", sorted((ROOT / "model").rglob("*.py")), ids=lambda p: p.stem)
def test_the_model_knows_only_the_shards(path: Path) -> None:
    used = {name for name in imported(path) if name.startswith("pipeline.")}
    if path.parent.name != "commands":  # these are the command line's, as cli.py
        assert not {name for name in used if not f"{name}.".startswith(MODEL_MAY_USE)}
    assert "cli" not in imported(path)


def test_no_module_imports_itself_by_a_detour() -> None:
    paths = [path for folder in ("pipeline", "model") for path in (ROOT / folder).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    tree = {name: (imported(path) & names.keys()) - {name} for name, path in names.items()}
    assert len(list(TopologicalSorter(tree).static_order())) == len(names)


def test_importing_the_whole_pipeline_leaves_torch_out() -> None:
    paths = [path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("[a-z]*.py")]
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_the_stages_leaves_pandas_out_of_workers() -> None:
    stages = "pipeline.stages.fetch, pipeline.stages.prepare"
    code = f"import sys, {stages}; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_colouring_files_leaves_torch_out_until_a_checkpoint_is_loaded() -> None:
    code = "import sys, model.use.colorize_files, model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_module_has_a_name_of_the_standard_library() -> None:
    names = {
        path.stem for folder in ("pipeline", "model") for path in (ROOT / folder).rglob("*.py")
    }
    assert not (names - {"__init__"}) & sys.stdlib_module_names


@pytest.mark.parametrize("words", ["nosuchrecipe", "dolls-64 --model x", "dolls-64 --run a/b"])
def test_wrong_words_are_answered_without_torch(words: str) -> None:
    code = (
        "import sys, cli\n"
        "try: cli.app(sys.argv[1:], standalone_mode=False)\n"
        "except cli.UserError: sys.exit('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "train", *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
