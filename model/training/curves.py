"""Learning curves as PNG: of one run, and of several beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.training.runs import MEASURES, Log, Run, read_log
from pipeline.disk import reason, replacing, telling_unwritable
from pipeline.errors import UserError, install
from pipeline.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 1000
"""A longer curve is drawn as the means of so many stretches."""

TITLES = {
    "mse": "MSE (lower is better)",
    "psnr": "PSNR in dB (higher is better)",
    "chroma_error": "chroma error (lower; 1: no colour at all)",
    "regional_error": "regional chroma error (lower; 1: no colour at all)",
    "paper_error": "paper error (lower; 0: no haze on white)",
    "following": "following (0: ignores the reference; 1: follows it)",
}
LEVELS = {"chroma_error": (1.0,), "regional_error": (1.0,), "following": (0.0, 1.0)}
"""Values to compare a measure with, drawn as dotted lines."""

Points = Sequence[tuple[int, float]]


def draw_curves(runs: Sequence[Run], runs_dir: Path) -> list[Path]:
    """Draw each run's curves into its folder, and all runs beside each other where several are.

    Args:
        runs: of ``read_runs``; those without a log are passed over.
        runs_dir: folder of their folders.

    Returns:
        The PNGs written: ``RUN/curves.png``, and ``curves.png`` beside them.

    Raises:
        UserError: where matplotlib is missing, no run has a log yet, or a PNG cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401  an extra, and slow to import
    except ImportError as error:
        raise UserError(
            f"learning curves need matplotlib: {install('curves')}, or leave --curves out."
        ) from error
    logs = {run.name: read_log(runs_dir / run.name) for run in runs if run.model is not None}
    drawn = [run for run in runs if run.name in logs and logs[run.name].train]
    if not drawn:
        raise UserError(f"{runs_dir}: no run has written a line of its log yet.")
    paths = [_save(draw_run(run, logs[run.name]), runs_dir / run.name) for run in drawn]
    if len(drawn) > 1:
        paths.append(_save(draw_comparison(drawn, logs), runs_dir))
    return paths


def draw_run(run: Run, log: Log) -> "Figure":
    """Return a run's curves: loss terms on top, and below a panel for each measure."""
    from matplotlib.ticker import SymmetricalLogLocator

    measures = [name for name in MEASURES if name in log.validation]
    num_rows = 1 + -(-len(measures) // 3)
    title = f"{_literal(run.name)}: {run.model}, {counted(run.step, 'step')}, {run.state}"
    figure = _figure(num_rows, title)
    grid = figure.add_gridspec(num_rows, 3, height_ratios=[1.4, *[1] * (num_rows - 1)])
    axes = figure.add_subplot(grid[0, :])
    rest = ("samples_per_second", "data_wait", "norm_")  # speed, and norms of gradients
    terms = {name: p for name, p in log.train.items() if not name.startswith(rest)}
    for i, (name, points) in enumerate(terms.items()):
        _plot(axes, points, 1, i, _literal(name))
    axes.set_yscale("symlog", linthresh=1e-3)  # an adversary's terms may be negative
    # Powers of ten alone leave a run, whose terms span one of them, without any number to read.
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1e-3, subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    _label(axes, "loss terms, weighted", "steps")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for i, name in enumerate(measures):
        axes = figure.add_subplot(grid[1 + i // 3, i % 3])
        _plot(axes, log.validation[name], 1, 0, "", marker=".")
        best = [point for point in log.validation[name] if point[0] == run.best_step]
        if best:
            axes.plot(*best[0], "o", color="black", fillstyle="none", markersize=9)
        _draw_levels(axes, name)
        is_criterion = name == run.best_by
        _label(axes, TITLES[name] + ("\nring: the kept checkpoint" if is_criterion else ""), "")
    return figure


def draw_comparison(runs: Sequence[Run], logs: Mapping[str, Log]) -> "Figure":
    """Return a panel for each measure, with a curve for each run over the samples that it saw.

    Not over steps, for batches may be of different sizes.
    """
    measures = [name for name in MEASURES if any(name in logs[r.name].validation for r in runs)]
    panels = ["l1", *measures]
    num_rows = -(-len(panels) // 4)
    title = f"{counted(len(runs), 'run')}: training loss and validation"
    figure = _figure(num_rows, title, width=18)
    grid = figure.add_gridspec(num_rows, 4)
    for i, name in enumerate(panels):
        axes = figure.add_subplot(grid[i // 4, i % 4])
        for j, run in enumerate(runs):
            log = logs[run.name]
            points = (log.train if name == "l1" else log.validation).get(name, [])
            label, marker = _literal(run.name), "" if name == "l1" else "."
            _plot(axes, points, run.batch_size or 1, j, label, marker)
        _draw_levels(axes, name)
        _label(axes, TITLES.get(name, "training: L1, by each run's weight"), "samples seen")
        if name == "l1":
            axes.set_yscale("log")
            # By itself it would leave out what begins with an underscore.
            labels = [str(line.get_label()) for line in axes.lines]
            figure.legend(axes.lines, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _figure(num_rows: int, title: str, width: int = 14) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 1 + 3.2 * num_rows), layout="constrained")
    figure.suptitle(title)
    return figure


def _plot(
    axes: "Axes", points: Points, scale: int, index: int, label: str, marker: str = ""
) -> None:
    """Draw one curve; its colour and dashes follow from its index."""
    from matplotlib import color_sequences

    colors = color_sequences["petroff10"]
    dashes = ("-", "--", ":", "-.")[index // len(colors) % 4]
    if points:
        x, y = thin_out(points)
        axes.plot(
            x * scale, y, dashes, marker=marker, color=colors[index % len(colors)], label=label
        )


def _literal(name: str) -> str:
    """Return a name as matplotlib shows it: what stands between dollars would be a formula."""
    return name.replace("$", r"\$")


def _draw_levels(axes: "Axes", name: str) -> None:
    for level in LEVELS.get(name, ()):
        axes.axhline(level, color="0.6", linestyle=":", linewidth=1)


def _label(axes: "Axes", title: str, x_label: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x_label)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def thin_out(points: Points, num_points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values, as means of at most ``num_points`` stretches of equal length."""
    steps, values = np.array(points, dtype=np.float64).T
    length = -(-len(steps) // num_points)
    starts = np.arange(0, len(steps), length)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _save(figure: "Figure", directory: Path) -> Path:
    path = directory / "curves.png"
    try:
        with telling_unwritable(path), replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)
    except (ValueError, OverflowError) as error:  # of numbers such as no training writes
        raise UserError(f"{path}: cannot be drawn: {reason(error)}.") from error
    return path
