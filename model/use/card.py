"""The card of an exported model: what it is, what it learnt from, what it reaches, its limits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from model.checkpoint import CheckpointInfo
from model.use.export_onnx import NUM_CHECKED
from pipeline.schema import SKETCH
from pipeline.settings import Table
from pipeline.words import counted, noun, plain, quoted

_FIGURES = (
    *("psnr", "ssim", "lpips", "following", "chroma_error", "regional_error", "paper_error"),
    *("fid", "kid"),
)


@dataclass(frozen=True, slots=True)
class _Figures:
    """What was measured in one setting: a row of cells for the model and each baseline."""

    heading: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def render_card(
    title: str,
    info: CheckpointInfo,
    *,
    stem: str,
    evaluations: Sequence[Table],
    lock: str,
    onnx_name: str,
    difference: float,
) -> str:
    """Return the card in Markdown, with the hub's metadata in front.

    Args:
        title: its heading.
        info: of the checkpoint.
        stem: of its file's name, which says which one of its run it is.
        evaluations: what each ``metrics.json`` says.
        lock: the seal of the data set's lock, "" where there is none.
        onnx_name: of the ONNX file, "" where there is none.
        difference: of the ONNX file's answers from the model's.
    """
    environment = Environment(
        loader=PackageLoader("model.use", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("card.md.j2").render(
        title=plain(title),
        info=info,
        data=_describe_data(info, lock),
        training=_describe_training(info, stem),
        tables=[table for metrics in evaluations for table in _tabulate(metrics, info)],
        methods=_methods(info, info.train.sketches or [info.train.sketch]) or "its recipe",
        onnx_name=onnx_name,
        difference=difference,
        num_checked=NUM_CHECKED,
    )


def _describe_data(info: CheckpointInfo, lock: str) -> list[str]:
    recipe = info.recipe
    select, prepare, split = (recipe.get(name, {}) for name in ("select", "prepare", "split"))
    name, description = (plain(recipe.get(key, "")) for key in ("name", "description"))
    lines = [f"recipe: `{name or 'unknown'}`" + (f": {description}" if description else "")]
    if select:
        ratings, tags, any_tags, without = (
            ", ".join(map(quoted, select.get(key, [])))
            for key in ("rating", "tags", "any_tags", "exclude_tags")
        )
        asked = [f"selection: rating {ratings}", f"tags {tags or 'any'}"]
        asked += [f"at least one of {any_tags}"] if any_tags else []
        lines.append("; ".join([*asked, *([f"without {without}"] if without else [])]))
    if prepare:
        lines.append(
            f"pictures: {plain(prepare.get('size'))} pixels a side, {plain(prepare.get('fit'))}; "
            f"sketches by {_methods(info)}"
        )
    if split:
        lines.append(f"no {plain(split.get('by', 'family'))} is in two of the splits")
    lines.append(f"training samples: SHA-256 {plain(info.samples)}")
    lines.append(f"lock (`posts.parquet`): {f'SHA-256 {plain(lock)}' if lock else 'none'}")
    return lines


def _methods(info: CheckpointInfo, members: Iterable[str] | None = None) -> str:
    """Return how the sketches of samples are drawn, or those ``members`` of samples alone."""
    prepare = info.recipe.get("prepare", {})
    sketches = {SKETCH: prepare.get("sketch", {})}
    sketches |= {f"{SKETCH}_{name}": table for name, table in prepare.get("sketches", {}).items()}
    known = [sketches.get(member, {}) for member in members or sketches]
    return " and ".join(sorted({plain(table["method"]) for table in known if "method" in table}))


def _describe_training(info: CheckpointInfo, stem: str) -> list[str]:
    train = info.train
    versions = ", ".join(f"{plain(n)} {plain(v)}" for n, v in sorted(info.versions.items()))
    muon = f" (Muon: {train.muon_lr:g})" if train.muon_lr else ""
    at_first = ", before it was trained as well" if train.style_train else ""
    began = f"began with the weights of the checkpoint of SHA-256 {plain(info.init)}"
    which = {
        "best": f"the best by {train.best_by} of those that were validated",
        "last": f"the last of its run, whether or not it is the best by {train.best_by}",
        "previous": "the last but one of its run",
    }
    return [
        *([began] if info.init else []),
        f"{info.step:,} {noun(info.step, 'step')} of {counted(train.batch_size, 'picture')}, "
        f"in epoch {info.epoch + 1}",
        f"adversary: {train.gan}; learning rate {train.lr:g}{muon}, {train.schedule}; "
        f"seed {train.seed}",
        f"width {train.width_multiplier:g}; style network{at_first}: {plain(info.style)}",
        f"this checkpoint is {which[stem]}"
        if stem in which
        else "which checkpoint of its run this is, its file's name does not say",
        f"made with {versions}",
    ]


def _tabulate(metrics: Table, info: CheckpointInfo) -> list[_Figures]:
    """Return the tables of a ``metrics.json``, one a setting.

    Intervals of earlier versions, over single pictures, are too narrow, and left out.
    """
    # What is not as in training is said; metrics of earlier versions may not say it.
    sketch, guidance = metrics.get("sketch", info.train.sketch), metrics.get("guidance", 1)
    factor = metrics.get("reduce", 1)
    unlike = f", sketches {quoted(str(sketch))}" if sketch != info.train.sketch else ""
    unlike += f", guidance {guidance:g}" if guidance != 1 else ""
    unlike += f", measured at 1/{factor} of the sides" if factor != 1 else ""
    tables = []
    for block in metrics["settings"].values():
        rows = {metrics["model"]: block, **block["baselines"]}
        names = [name for name in _FIGURES if block.get(name) is not None]
        file = f" ({plain(block['file'])})" if "file" in block else ""
        clusters = block.get("num_clusters")
        within = f" in {counted(clusters, 'cluster')}" if clusters else ""
        heading = (
            f"{counted(block['num_samples'], 'picture')}{within} of the {plain(metrics['split'])} "
            f"split, reference: {plain(block['reference'])}{file}{unlike}."
        )
        for name, measures in (("fid", "FID and KID"), ("lpips", "LPIPS")):
            if name in names and (sha256 := metrics.get(f"{name}_weights")):
                heading += f" {measures}: by weights of SHA-256 {plain(sha256)}."
        tables.append(
            _Figures(
                heading,
                [name.replace("_", " ") for name in names],
                [
                    (plain(name), [_cell(row, n, bool(clusters)) for n in names])
                    for name, row in rows.items()
                ],
            )
        )
    return tables


def _cell(row: dict[str, Any], name: str, with_interval: bool) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    interval = row.get("intervals", {}).get(name) if with_interval else None
    text = f"{round(value, 3) + 0:.3f}"  # without a -0
    return text if interval is None else f"{text} ({interval[0]:.3f} to {interval[1]:.3f})"
