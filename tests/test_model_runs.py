import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from model.config import CRITERIA
from model.training.curves import TITLES, draw_comparison, draw_run, thin_out
from model.training.runs import MEASURES, Log, Run, read_log, read_runs, tabulate
from model.training.state import TrainState
from model.training.train import train
from pipeline.errors import UserError
from tests.calls import call
from tests.model_checkpoints import CONFIG
from tests.model_samples import write_samples

SHORT = dataclasses.replace(CONFIG, gan="none", epochs=1, log_every=1)

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that was stopped after its first validation, and an unreadable one."""
    work = tmp_path_factory.mktemp("work")
    samples_dir = write_samples(work / "samples")
    for name, max_steps in (("whole", None), ("stopped", 2)):
        run_dir = work / "runs" / name
        train(SHORT, samples_dir, run_dir, max_steps=max_steps, console=Console(quiet=True))
    (work / "runs" / "torn").mkdir()
    (work / "runs" / "torn" / "config.json").write_text('{"train": {"model": "zhang20')
    (work / "runs" / "no-run").mkdir()
    return work


def test_runs_say_what_they_are_and_how_far_they_came(work: Path) -> None:
    stopped, torn, whole = read_runs(work / "runs")
    lines = [orjson.loads(s) for s in (work / "runs/whole/log.jsonl").read_bytes().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    best = min(validations, key=lambda line: line["mse"])
    assert (whole.name, whole.state, whole.step, whole.num_steps) == ("whole", "finished", 4, 4)
    assert (whole.model, whole.epochs, whole.num_epochs) == ("zhang2017", 1, 1)
    assert (whole.best_by, whole.best_step) == ("mse", best["step"])
    assert whole.metrics == {name: best[name] for name in whole.metrics}
    assert whole.metrics.keys() >= {"mse", "psnr", "chroma_error", "following"}
    assert whole.style == "vgg19 random 0"
    speeds = [line["samples_per_second"] for line in lines if line["kind"] == "train"]
    assert whole.samples_per_second == np.median(speeds)
    state = TrainState.build(SHORT, torch.device("cpu"))
    assert whole.num_parameters == state.count_parameters()
    assert (stopped.state, stopped.step, stopped.num_steps) == ("interrupted", 2, 4)
    assert torn.state.startswith("cannot be read: ")
    assert torn.model is None


def test_a_run_under_way_is_running_and_its_torn_line_is_passed_over(work: Path) -> None:
    run_dir = work / "runs" / "stopped"
    whole = (run_dir / "log.jsonl").read_bytes()
    with FileLock(run_dir / ".lock"):
        (run_dir / "log.jsonl").write_bytes(whole + b'{"kind": "train", "st')
        log = read_log(run_dir)
        assert read_runs(work / "runs")[0].state == "running"
    (run_dir / "log.jsonl").write_bytes(whole)
    assert log == read_log(run_dir)
    assert [step for step, _ in log.train["l1"]] == [1, 2]
    assert read_runs(work / "runs")[0].state == "interrupted"


def test_the_table_shows_every_run_on_one_line(work: Path) -> None:
    shown = call("runs", work)
    assert shown.exit_code == 0
    header, stopped, torn, whole = (line.rstrip() for line in shown.output.splitlines())
    columns = "run model steps epochs psnr chroma regional following best by state"
    assert header.split() == columns.split()
    metrics = read_runs(work / "runs")[2].metrics
    chroma, following = metrics["chroma_error"], metrics["following"]
    assert re.fullmatch(
        rf"whole +zhang2017 +4/4 +1/1 +{metrics['psnr']:.2f} +{chroma:.4f} +\d\.\d+ +"
        rf"{following:.4f} +mse +finished",
        whole,
    )
    assert stopped.endswith("interrupted")
    assert "cannot be read" in torn


def test_the_table_of_a_long_training_fits_a_hundred_columns() -> None:
    figures = {"psnr": 23.2, "chroma_error": 0.48, "regional_error": 0.6, "following": -0.01}
    run = Run("clothes", "interrupted", "zhang2017", step=12345, num_steps=12345, epochs=123)
    run = dataclasses.replace(run, num_epochs=123, best_by="regional_error", metrics=figures)
    with (console := Console(width=1000)).capture() as shown:
        console.print(tabulate([run]))
    assert 80 < max(map(len, shown.get().splitlines())) <= 100


def test_the_table_is_not_cut_to_a_narrow_terminal(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = call("runs", work).output
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal
    monkeypatch.setenv("COLUMNS", "40")
    narrow = re.sub(r"\x1b\[[\d;]*m", "", call("runs", work).output)
    assert narrow.split() == wide.split()


def test_the_table_for_programs_is_the_same_runs(work: Path) -> None:
    table = json.loads(call("runs", work, "--json").output)
    assert table == [dataclasses.asdict(run) for run in read_runs(work / "runs")]


@pytest.mark.slow
def test_curves_are_drawn_for_each_run_and_for_all(work: Path) -> None:
    shown = call("runs", work, "--curves")
    assert shown.exit_code == 0, shown.output
    paths = [work / "runs" / name / "curves.png" for name in ("stopped", "whole", "")]
    assert shown.output.splitlines()[-3:] == [str(path) for path in paths]
    for path in paths:
        picture = Image.open(path)
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24) or []}
        assert (63, 144, 218) in colors  # the first curve's


def test_curves_show_what_the_log_says(work: Path) -> None:
    stopped, _, whole = read_runs(work / "runs")
    logs = {run.name: read_log(work / "runs" / run.name) for run in (stopped, whole)}
    figure = draw_run(whole, logs["whole"])
    terms = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    assert terms.keys() == {"l1", "l1_guide_grey", "l1_guide_color"}
    for name, line in terms.items():
        assert np.column_stack(line.get_data()).tolist() == [
            list(p) for p in logs["whole"].train[name]
        ]
    low, high = figure.axes[0].get_ylim()
    assert any(low <= tick <= high for tick in figure.axes[0].get_yticks())  # to read them by
    mse, ring = figure.axes[1].get_lines()
    assert np.column_stack(mse.get_data()).tolist() == [
        list(p) for p in logs["whole"].validation["mse"]
    ]
    assert np.column_stack(ring.get_data()).ravel().tolist() == [
        whole.best_step,
        whole.metrics["mse"],
    ]
    both = draw_comparison([stopped, whole], logs)
    steps = [line.get_xdata() for line in both.axes[0].get_lines()]
    assert [list(np.asarray(s)) for s in steps] == [[2, 4], [2, 4, 6, 8]]  # two samples a step


def test_whatever_runs_are_called_curves_have_their_names(tmp_path: Path) -> None:
    """Between dollars matplotlib reads a formula, and legends leave out what begins with _."""
    runs = [Run(name, "finished", "zhang2017", batch_size=2) for name in ("$^$", "_base", "plain")]
    log = Log({"l1": [(1, 0.5), (2, 0.25)]}, {})
    both = draw_comparison(runs, {run.name: log for run in runs})
    alone = draw_run(runs[0], log)
    for figure in (both, alone):
        figure.savefig(tmp_path / "curves.png")
    (legend,) = both.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"\$^\$", "_base", "plain"]


def test_every_measure_is_shown_with_what_it_means() -> None:
    assert set(CRITERIA) <= set(MEASURES) == set(TITLES)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 50))
def test_thinning_out_keeps_order_and_bounds(values: list[float], num_points: int) -> None:
    steps, thinned = thin_out(list(enumerate(values)), num_points)
    assert len(steps) == len(thinned) <= num_points
    assert (np.diff(steps) > 0).all()
    if len(values) % len(thinned) == 0 and len(values) <= num_points:
        assert thinned.tolist() == values
    assert min(values) - 1e-6 <= thinned.min()
    assert thinned.max() <= max(values) + 1e-6


def test_a_point_is_the_mean_of_its_stretch() -> None:
    steps, thinned = thin_out([(i, i % 2) for i in range(100)], 10)
    assert thinned.tolist() == [0.5] * 10
    assert steps.tolist() == [4.5 + 10 * i for i in range(10)]
    assert thin_out([(1, 2.0), (2, 4.0), (3, 9.0)], 2)[1].tolist() == [3.0, 9.0]


def test_what_cannot_be_shown_is_said(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no runs. Give a work folder"):
        read_runs(tmp_path / "runs")
    (tmp_path / "runs" / "new").mkdir(parents=True)
    config = (work / "runs" / "whole" / "config.json").read_bytes()
    (tmp_path / "runs" / "new" / "config.json").write_bytes(config)
    assert isinstance(call("runs", tmp_path, "--curves").exception, UserError)
    assert re.search(
        r"new +zhang2017 +0/4 +0/1 .* - +mse +interrupted", call("runs", tmp_path).output
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    error = call("runs", work, "--curves").exception
    assert isinstance(error, UserError)
    assert "pip install -e '.[curves]'" in str(error)


HUGE = b"9" * 4300
DEEP = b"[" * 10**5 + b"]" * 10**5


def copy_run(work: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(work / "runs" / "whole", tmp_path / "runs" / "whole"))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"kind": "train", "step": 2, "a": ' + DEEP + b"}", id="nested deeply"),
        pytest.param(b'{"kind": "train", "step": 2, "l1": ' + b"9" * 400 + b"}", id="a huge value"),
        pytest.param(b'{"kind": "train", "step": 1e999, "l1": 1}', id="an infinite step"),
        pytest.param(b'{"kind": "train", "step": ' + HUGE + b', "l1": 1}', id="a huge step"),
        pytest.param(b'{"kind": "train", "step": -7, "l1": 1}', id="a negative step"),
    ],
)
def test_a_line_that_no_training_writes_is_passed_over(
    work: Path, tmp_path: Path, line: bytes
) -> None:
    run_dir = copy_run(work, tmp_path)
    before = read_log(run_dir)
    with (run_dir / "log.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert read_log(run_dir) == before


@pytest.mark.parametrize("name", ["config", "last"])
def test_a_run_whose_json_is_nested_deeply_cannot_be_read(
    work: Path, tmp_path: Path, name: str
) -> None:
    run_dir = copy_run(work, tmp_path)
    (run_dir / f"{name}.json").write_bytes(b'{"x": ' + DEEP + b"}")
    (run,) = read_runs(tmp_path / "runs")
    assert run.state.startswith("cannot be read: ")


def test_a_pipe_in_the_place_of_runs_settings_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    os.mkfifo(tmp_path / "runs" / "a" / "config.json")
    (run,) = read_runs(tmp_path / "runs")
    assert "config.json: is no plain file" in run.state


@pytest.mark.slow
def test_curves_of_odd_numbers_are_refused_and_odd_names_shown(work: Path, tmp_path: Path) -> None:
    run_dir = copy_run(work, tmp_path)
    with (run_dir / "log.jsonl").open("ab") as file:
        file.write(orjson.dumps({"kind": "train", "step": 3, r"$\frac{$": 1.0}) + b"\n")
    assert call("runs", tmp_path, "--curves").exit_code == 0
    with (run_dir / "log.jsonl").open("ab") as file:
        for value in (1e308, -1e308):
            line = {"kind": "validation", "step": 3, "psnr": value}
            file.write(orjson.dumps(line) + b"\n")
    error = call("runs", tmp_path, "--curves").exception
    assert isinstance(error, UserError)
    assert "curves.png: cannot be drawn: " in str(error)


def test_looking_at_runs_needs_no_torch(work: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import model.training.curves\n"
        "from model.training.runs import read_runs, tabulate\n"
        "tabulate(read_runs(Path(sys.argv[1])))\n"
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, work / "runs"], cwd=root, check=True)


@pytest.mark.slow
def test_curves_that_cannot_be_written_are_named(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = work / "runs" / "whole" / "curves.png"
    path.unlink(missing_ok=True)
    path.mkdir()
    error = call("runs", work, "--curves").exception
    path.rmdir()
    assert isinstance(error, UserError)
    assert f"{path}: is a folder" in str(error)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    error = call("runs", work, "--curves").exception
    assert isinstance(error, UserError)
    assert "/curves.png: cannot be written: Permission denied." in str(error)


@pytest.mark.parametrize("value", [HUGE, b"-1"])
@pytest.mark.parametrize(
    ("name", "count"), [("config", "num_steps"), ("last", "step"), ("last", "epoch")]
)
def test_a_run_whose_counts_no_training_reaches_cannot_be_read(
    work: Path, tmp_path: Path, name: str, count: str, value: bytes
) -> None:
    path = copy_run(work, tmp_path) / f"{name}.json"
    table = orjson.loads(path.read_bytes())
    before = b'"%s":%d' % (count.encode(), table[count])
    content = orjson.dumps(table)
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, b'"%s":%s' % (count.encode(), value)))
    assert "cannot be read: " in call("runs", tmp_path).output
