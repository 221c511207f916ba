"""What a sketch at full size gains by colours that are led along its lines.

    python -m benchmarks.study_full_size CHECKPOINT WORK [--pictures 64]

Pictures of WORK's test split as they were fetched, without letterbox, each after itself: their
lines are drawn at full size by colour dodge, the model colours them at its own size, and what comes
back is compared with the picture. Once the colours are merely enlarged, once they are filled up to
the lines, as ``colorize`` does. The same for a perfect model, which paints the picture, shrunk.
"""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image

from model.evaluation.metrics import chroma_distances, paper_distances, psnr, ratio
from model.evaluation.seen import Seen
from model.use.enlarge import Layers, resize_to_sketch
from model.use.load import load_painter
from model.use.painter import Painter
from model.use.pictures import Pixels, fit, fit_sketch
from pipeline.pictures.image import UndecodableError, decode
from pipeline.pictures.letterbox import crop, find_letterbox
from pipeline.pictures.sketch import line_drawer
from pipeline.records import Status
from pipeline.schema import RAW
from pipeline.shards.shard import Span, list_shards, read_shard, read_span, tar_path
from pipeline.work import Work


def read_pictures(work: Work) -> Iterator[Pixels]:
    """Yield what decodes of the test split's originals, uint8 H x W x 3, without letterbox."""
    for name in list_shards(work.raw_dir):
        if name.startswith("test-"):
            rows, _ = read_shard(work.raw_dir, name, RAW)
            with tar_path(work.raw_dir, name).open("rb") as tar:
                for row in rows.to_pylist():
                    if row["status"] == Status.FETCHED:
                        with suppress(UndecodableError):
                            picture = decode(read_span(tar, Span(row["offset"], row["size"])))
                            box, _ = find_letterbox(picture, row["width"], row["height"])
                            yield crop(picture, box)


def measure(found: list[Pixels], truths: list[Pixels]) -> str:
    """Return PSNR, chroma error and paper error of pictures of different sizes."""
    ratios: dict[str, list[np.ndarray]] = {"chroma error": [], "paper error": []}
    decibels = []
    for picture, truth in zip(found, truths, strict=True):
        tensors = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None] for p in (picture, truth)]
        decibels.append(float(psnr(*tensors)))
        seen = [Seen(tensor) for tensor in tensors]
        ratios["chroma error"].append(chroma_distances(*seen))
        ratios["paper error"].append(paper_distances(*seen))
    parts = {name: ratio(np.concatenate(rows)) for name, rows in ratios.items()}
    said = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    return f"PSNR {np.mean(decibels):.2f}, {said}"


def colour(painter: Painter, truth: Pixels, is_perfect: bool) -> Pixels:
    """Return a picture's lines, coloured after the picture itself."""
    sketch = Image.fromarray(line_drawer("dodge", painter.recipe.get("prepare", {}))(truth))
    seen = fit_sketch(sketch, painter.size, painter.pad)
    small = np.asarray(fit(Image.fromarray(truth), painter.size, painter.pad))
    answer = small if is_perfect else painter.answer(seen, small, 1.0)
    return np.asarray(resize_to_sketch(answer, seen, sketch, painter.pad))


def only_enlarge(layers: Layers, own: Image.Image) -> Layers:
    """Take the place of ``enlarge._fill``: what follows enlarges any layers smoothly."""
    return layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    painter = load_painter(options.checkpoint, device="cpu")
    truths = list(islice(read_pictures(Work(options.work)), options.pictures))
    print(f"{len(truths)} pictures, model's size {painter.size[0]} x {painter.size[1]} px")
    for who, is_perfect in (("the model", False), ("a perfect model", True)):
        filled = [colour(painter, truth, is_perfect) for truth in truths]
        with patch("model.use.enlarge._fill", only_enlarge):
            enlarged = [colour(painter, truth, is_perfect) for truth in truths]
        print(f"{who}, enlarged: {measure(enlarged, truths)}")
        print(f"{who}, filled: {measure(filled, truths)}")


if __name__ == "__main__":
    main()
