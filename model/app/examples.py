"""Pictures to begin with on the page, out of a work folder."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from model.data.order import epoch_order
from model.data.samples import Samples
from pipeline.records import Status
from pipeline.schema import SAMPLES, SPLITS
from pipeline.shards.rows import read_fates
from pipeline.shards.shard import list_shards, rows_path

NUM_SKETCHES, NUM_REFERENCES = 4, 8


def take_examples(samples_dir: Path, out_dir: Path) -> tuple[list[Path], list[Path]]:
    """Write some samples as pictures: of the test split, if it has any.

    Returns:
        The paths of sketches and of references.

    Raises:
        UserError: where there are no samples.
    """
    split = next((s for s in reversed(SPLITS) if _has_any(samples_dir, s)), SPLITS[0])
    with Samples(samples_dir, split) as samples:
        order = epoch_order(len(samples), seed=0, epoch=0)
        some = samples.load(order[:NUM_SKETCHES])
        others = samples.load(order[-NUM_REFERENCES:])
    sketches = [
        _write(out_dir / f"sketch-{post_id}.png", pixels)
        for post_id, pixels in zip(some.post_ids, some.sketch, strict=True)
    ]
    references = [
        _write(out_dir / f"reference-{post_id}.png", pixels)
        for post_id, pixels in zip(others.post_ids, others.color, strict=True)
    ]
    return sketches, references


def _has_any(samples_dir: Path, split: str) -> bool:
    """Whether any post of a split has a sample."""
    shards = (rows_path(samples_dir, name) for name in list_shards(samples_dir, split))
    return any(read_fates(path, SAMPLES)[Status.KEPT] for path in shards)


def _write(path: Path, pixels: Tensor) -> Path:
    Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze()).save(path)
    return path
