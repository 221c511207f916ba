"""What is exported in tests, and what may not be in it."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from pipeline.pictures.sketch import dodge
from pipeline.recipe_file import load_recipe
from pipeline.settings import to_table
from pipeline.shards.rows import write_rows
from tests.model_checkpoints import write_checkpoint, write_metrics
from tests.pictures import draw_picture

ROOT = Path(__file__).resolve().parent.parent
SECRET = "/disk/pictures"
RECIPE = to_table(
    load_recipe(
        "dolls-64",
        [
            f"source.metadata={SECRET}/metadata",
            f"source.images={SECRET}/{{id}}.jpg",
            f"select.nsfw_ids={SECRET}/nsfw.txt",
            "prepare.sketches.net.method=onnx",
            f"prepare.sketches.net.onnx.model={SECRET}/net.onnx",
            f"train.style_weights={SECRET}/vgg19.pth",
        ],
    )
)
SKETCH = Image.fromarray(dodge(draw_picture(1, 90, 150), 3.5))
REFERENCE = Image.fromarray(draw_picture(2))


def make_exported_work(root: Path) -> Path:
    """Write a work folder with one run, its evaluations and a lock to ``root``; returns it."""
    checkpoint = write_checkpoint(
        root / "runs" / "first" / "best.safetensors", "reference", recipe=RECIPE
    )
    tensors, info = load_checkpoint(checkpoint)
    random = torch.Generator().manual_seed(0)
    tensors["generator.out.weight"].normal_(std=0.05, generator=random)  # zeros hide mistakes
    guided = dataclasses.replace(info.train, drop_reference=0.1)
    save_checkpoint(checkpoint, tensors, dataclasses.replace(info, train=guided))
    write_metrics(checkpoint.parent / "eval-test" / "metrics.json")
    write_metrics(checkpoint.parent / "eval-val" / "metrics.json", step=2)
    write_rows(root / "posts.parquet", [pa.table({"post_id": [1]})], {})
    return root
