"""Wrong use of ``train`` and ``eval``: one clear sentence, exit 2, and nothing is overwritten."""

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pyarrow as pa
import pytest
import torch
from filelock import FileLock

from pipeline.errors import UserError
from pipeline.shards.rows import read_info, write_rows
from pipeline.shards.shard import rows_path
from tests.calls import call
from tests.files import files_in, fill_disk
from tests.model_samples import write_samples

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    *("--style-weights", "random", "--device", "cpu", "--batch-size", "2", "--epochs", "1"),
    *("--set", "train.width_multiplier=0.125", "--set", "train.gan=none"),
    *("--set", "train.validations_per_epoch=1", "--set", "train.num_following=2"),
]

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a finished run."""
    work = tmp_path_factory.mktemp("finished")
    write_samples(work / "samples")
    assert call(*arguments("train", work, "--run", "one")).exit_code == 0
    return work


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the work folder, to be spoiled."""
    shutil.copytree(finished, tmp_path / "work")
    return tmp_path / "work"


def arguments(command: str, work: Path, *options: str) -> list[str]:
    if command == "train":
        return ["train", "white-background-256", "--work", str(work), *OPTIONS, *options]
    return ["eval", str(work / "runs/one/best.safetensors"), "--work", str(work), *options]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but the locks of runs and what of the style features is computed anew."""
    return {name: data for name, data in files_in(folder).items() if not name.startswith("style/")}


def misuse(work: Path, command: str, *options: str) -> str:
    """Return what is said, having checked how it is said and that nothing is touched."""
    before, runs = contents(work), sorted((work / "runs").iterdir())
    error = call(*arguments(command, work, *options)).exception
    assert isinstance(error, UserError), error
    assert contents(work) == before
    assert sorted((work / "runs").iterdir()) == runs  # not even an empty folder is left
    sentence = str(error)
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    return sentence


def test_a_preparation_that_was_cut_short_by_another(work: Path) -> None:
    other = write_samples(work.parent / "other", size=96, fit="pad")
    for path in other.glob("train-000001.*"):
        shutil.copy(path, work / "samples")
    said = misuse(work, "train", "--run", "two")
    assert "train-000001 was prepared with other settings than the shards before it" in said
    for path in other.glob("train-*"):
        shutil.copy(path, work / "samples")
    said = misuse(work, "train", "--run", "two")
    assert "training pictures are (96, 96), and those of the validation set are (64, 64)" in said
    said = misuse(work, "eval", "--split", "train")
    assert "pictures are (96, 96), and the model was trained on (64, 64)" in said


def with_other_columns(path: Path, info: dict[str, Any]) -> None:
    write_rows(path, [pa.table({"post_id": [1]})], info)


def of_another_version(path: Path, info: dict[str, Any]) -> None:
    rows = pa.parquet.read_table(path).replace_schema_metadata(None)
    write_rows(path, [rows], info | {"schema_version": 99})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (with_other_columns, "its columns are not those of this version's tables"),
        (of_another_version, "its tables are of version 99, and this program reads version 1"),
    ],
)
def test_shards_of_another_schema(
    work: Path, spoil: Callable[[Path, dict[str, Any]], None], said: str
) -> None:
    path = rows_path(work / "samples", "train-000001")
    spoil(path, read_info(path))
    for command, options in (("train", ["--run", "two"]), ("eval", ["--split", "train"])):
        assert f"train-000001.parquet: {said}" in misuse(work, command, *options)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split(work: Path, split: str) -> None:
    for path in (work / "samples").glob(f"{split}-*"):
        path.unlink()
    command = "eval" if split == "test" else "train"
    options = [] if split == "test" else ["--run", "two"]
    assert f"no samples in the split '{split}'. Run prepare" in misuse(work, command, *options)


def test_fewer_samples_than_a_batch(work: Path) -> None:
    said = misuse(work, "train", "--run", "two", "--batch-size", "9")
    assert "8 training samples do not fill a batch of 9: --set train.batch_size=8" in said


def test_a_rank_without_samples(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "RANK": "2", "LOCAL_RANK": "2"}
    for name, value in {"WORLD_SIZE": "3", **place}.items():
        monkeypatch.setenv(name, value)
    said = misuse(work, "train", "--run", "two")
    assert "train.batch_size = 2 leaves some of 3 processes without a sample" in said


def test_a_style_network_that_is_not_there_to_train(work: Path) -> None:
    said = misuse(work, "train", "--run", "two", "--model", "reference", "--style-train")
    assert "train.style_train: the model 'reference' has no style network to train" in said


def test_weights_of_a_style_network_that_is_not_there(work: Path) -> None:
    said = misuse(work, "train", "--run", "two", "--model", "reference")  # OPTIONS have them
    assert said == "--style-weights: the model 'reference' has no style network; leave them out."


def test_missing_weights(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real style networks
    gone = str(work / "gone.pth")
    assert "gone.pth: no such file." in misuse(
        work, "train", "--run", "two", "--style-weights", gone
    )
    assert "gone.pth is not here" in misuse(work, "eval", "--style-weights", gone)

    def offline(*args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(work.parent / "hub"))
    said = misuse(work, "train", "--run", "two", "--style-weights", "imagenet")
    assert "cannot be downloaded" in said
    assert "--style-weights random" in said


def test_out_of_memory_in_the_middle_of_a_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("model.training.train.training_step", full)
    more = ("--run", "one", "--resume", "--epochs", "2")
    before = contents(work)
    error = call(*arguments("train", work, *more)).exception
    assert str(error) == (
        "out of memory with train.batch_size = 2: try --set train.batch_size=1 or --set "
        "train.accumulate=2."
    )
    changed = {name for name, data in contents(work).items() if before.get(name) != data}
    assert {Path(name).name for name in changed if "tfevents" not in name} == {"config.json"}


def test_a_disk_without_room(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("model.training.rundir.save_checkpoint", full)
    checkpoint = (work / "runs/one/best.safetensors").read_bytes()
    options = ("--run", "one", "--resume", "--epochs", "2")
    error = call(*arguments("train", work, *options)).exception
    assert isinstance(error, UserError)
    assert "no space left on device; what was saved before is whole" in str(error)
    assert (work / "runs/one/best.safetensors").read_bytes() == checkpoint
    monkeypatch.undo()
    assert call(*arguments("train", work, *options)).exit_code == 0


def test_a_checkpoint_of_a_newer_version(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.VERSION", 0)
    newer = "written by a newer version of this program (format 1; this one reads up to 0)"
    assert newer in misuse(work, "train", "--run", "one", "--resume")
    assert newer in misuse(work, "eval")


def test_a_checkpoint_of_another_model(work: Path) -> None:
    said = misuse(work, "train", "--run", "one", "--resume", "--model", "batchnorm")
    assert "other settings: train.model (zhang2017 there, batchnorm here)" in said
    assert said.endswith("Give its settings, or name another run.")


def test_a_run_that_was_to_be_shorter_is_the_beginning_of_another(work: Path) -> None:
    options = ("--set", "train.schedule=cosine", "--epochs", "1")
    assert call(*arguments("train", work, "--run", "short", *options)).exit_code == 0
    longer = ("--run", "short", "--resume", *options[:2], "--epochs", "2")
    said = misuse(work, "train", *longer)
    assert "other settings: train.epochs (1 there, 2 here)" in said
    run_dir = work / "runs" / "short"
    assert said.endswith(f"another run; --init {run_dir} begins that one with these weights.")
    begun = ("--run", "long", "--init", str(run_dir), *longer[3:])
    assert call(*arguments("train", work, *begun)).exit_code == 0


def test_a_run_folder_that_holds_a_run_is_in_use_or_is_none(work: Path) -> None:
    assert "holds a run already. Go on with --resume" in misuse(work, "train", "--run", "one")
    with FileLock(work / "runs/one/.lock"):
        said = misuse(work, "train", "--run", "one", "--resume")
        assert "another process is training here" in said
    (work / "runs/file").write_text("mine")
    assert "runs/file: cannot be written" in misuse(work, "train", "--run", "file")
    assert "a plain name, not a path" in misuse(work, "train", "--run", "../elsewhere")


def test_only_grids_of_this_evaluation_are_named_and_there(work: Path) -> None:
    found = work / "runs/one/eval-test"
    own = found / "grid-mine.png"
    for references, grids in ((["self", "any"], "grid.png, grid-any.png"), (["self"], "grid.png")):
        options = [word for name in references for word in ("--reference", name)]
        done = call(*arguments("eval", work, *options))
        assert done.exit_code == 0, done.output
        assert done.stdout.endswith(f"/eval-test: metrics.json, rows.parquet, {grids}\n")
        own.touch()
        assert {path.name for path in found.glob("*.png")} == {*grids.split(", "), own.name}


@pytest.mark.slow
def test_a_checkpoints_own_work_folder_is_taken(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = work / "runs/one"
    for checkpoint in (run, run / "best.safetensors", Path()):
        monkeypatch.chdir(run)
        done = call("eval", checkpoint)
        assert done.exit_code == 0, done.output
        (run / "eval-test/metrics.json").unlink()  # where `export` looks
    shutil.rmtree(work / "samples")
    for there in ([], ["--work", str(work)]):
        error = call("eval", run, *there).exception
        assert str(error).startswith(f"{work}: has no samples. Pull them there, or say with --work")
    shutil.copytree(run, tmp_path / "carried")
    error = call("eval", tmp_path / "carried").exception
    assert isinstance(error, UserError)
    assert "carried: is not in a WORK/runs/NAME; say with --work whose samples." in str(error)
    error = call("eval", work / "runs/noe").exception
    assert str(error).startswith(f"{work}/runs/noe: no such checkpoint. ")
    write_samples(tmp_path / "other/samples")
    other = str(tmp_path / "other")
    done = call("eval", tmp_path / "carried", "--work", other)
    assert done.exit_code == 0, done.output


def test_sketches_that_there_are_not_are_named_with_the_settings_that_choose_them(
    work: Path,
) -> None:
    for command, options in (("train", ["--run", "two"]), ("eval", [])):
        said = misuse(work, command, *options, "--set", f"{command}.sketch=sketch_ink")
        assert "holds no 'sketch_ink'; it has sketch. Take " in said
        assert f"{command}.sketch" in said


def test_a_split_that_there_is_not(work: Path) -> None:
    said = misuse(work, "eval", "--split", "tests")
    assert said.startswith("--split tests (did you mean 'test'?): no such split; there are train,")


@pytest.mark.parametrize(("command", "options"), [("train", ("--run", "two")), ("eval", ())])
def test_a_device_that_there_is_not(work: Path, command: str, options: tuple[str, ...]) -> None:
    said = misuse(work, command, *options, "--device", "gpu")
    assert said == "device 'gpu': no such name. Give auto, cpu, cuda or cuda:1."


def test_options_that_would_do_nothing(work: Path) -> None:
    for option, value in (("--cache", str(work / "c")), ("--cache-size", "1")):
        said = misuse(work, "train", "--run", "two", option, value)
        assert "--cache and --cache-size go with --shards URL" in said
    for size in ("inf", "1e300"):
        said = misuse(work, "train", "--run", "two", "--shards", str(work), "--cache-size", size)
        assert f"--cache-size {float(size)}: give at most 1000000 GB." in said
    said = misuse(work, "eval", "--set", "train.sketch=ink")
    assert said == "--set train.sketch=ink: unknown key 'train'; known: eval."


@pytest.mark.parametrize(
    ("command", "override", "meant"),
    [
        ("train", "lr=1e-3", "'train.lr'"),
        ("train", "epoch=3", "'train.epochs'"),
        ("train", "size=64", "'prepare.size' or 'train.size'"),
        ("train", "prepare.lr=1e-3", "'train.lr'"),
        ("train", "train.batch_sise=2", "'train.batch_size'"),
        ("train", "sketch.method=xdog", "'prepare.sketch'"),
        ("eval", "batch_size=2", "'eval.batch_size'"),
        ("eval", "eval.batch=2", "'eval.batch_size'"),
    ],
)
def test_a_setting_by_half_its_name(work: Path, command: str, override: str, meant: str) -> None:
    key = override.partition("." if "sketch" in override else "=")[0]
    options = ("--run", "two") if command == "train" else ()
    said = misuse(work, command, *options, "--set", override)
    assert f"--set {override}: unknown key '{key}'; did you mean {meant}?" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("eval", "stopped; the same command begins anew.\n"),
        (
            "train",
            "stopped; with --resume the same command goes on from the last checkpoint, or begins "
            "anew where there is none.\n",
        ),
    ],
)
def test_ctrl_c_says_what_the_next_command_goes_on_from(
    work: Path, command: str, said: str
) -> None:
    interrupted = "\n".join(
        [
            "import signal, cli, model.evaluation.evaluate, model.training.train",
            "def interrupt(*rest, **options): signal.raise_signal(signal.SIGINT)",
            "model.evaluation.evaluate.evaluate = model.training.train.train = interrupt",
            "cli.main()",
        ]
    )
    arguments_of = {
        "eval": [str(work / "runs/one")],
        "train": ["white-background-256", "--work", str(work), "--run", "two", *OPTIONS],
    }
    done = subprocess.run(
        [sys.executable, "-c", interrupted, command, *arguments_of[command]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, said)


@pytest.mark.parametrize("name", ["grid.png", "grid-any.png", "rows.parquet", "metrics.json"])
def test_what_is_in_the_way_of_an_evaluation_is_found_before_the_work(
    work: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.evaluation.evaluate.paint_mean", None)
    (work / "out" / name).mkdir(parents=True)
    two = ("--reference", "self", "--reference", "any")
    said = misuse(work, "eval", "--out", str(work / "out"), *two)
    assert said == f"{work}/out/{name}: is a folder; give the path of a file."


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "export"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_disk_that_fills_midway_is_left_as_it_was(
    work: Path, command: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (command, work / "runs/one", *(["--no-onnx"] if command == "export" else []))
    assert call(*words, "--out", work / "old").exit_code == 0
    before = files_in(work)
    fill_disk(monkeypatch, number)
    for name in ("old", "new"):
        error = call(*words, "--out", work / name).exception
        assert str(error) == f"{work / name}: cannot be written: No space left on device."
    assert files_in(work) == before
    assert not (work / "new").exists()


@pytest.mark.parametrize("command", ["eval", "export"])
def test_a_file_where_a_folder_goes(
    work: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.evaluation.evaluate.paint_mean", None)
    monkeypatch.setattr("model.use.export.load_colorizer", None)
    file = work / "file"
    file.write_text("mine")
    for out in (file, file / "folder"):
        error = call(command, work / "runs/one", "--out", out).exception
        assert str(error) == f"{file}: cannot be written: Not a directory."
    error = call(command, work / "runs/one", "--out", "/proc/new").exception
    assert str(error) == "/proc: cannot be written: No such file or directory."
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_the_process_ends_with_2_and_no_traceback(finished: Path) -> None:
    command = [sys.executable, "cli.py", *arguments("train", finished, "--run", "one")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    sentence = f"error: {finished}/runs/one: holds a run already. Go on with --resume, or name"
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
