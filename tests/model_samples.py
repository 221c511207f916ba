"""Small folders of samples for the model's tests, written by the pipeline's own shard writer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.pictures.image import encode_jpeg, encode_png
from pipeline.pictures.sketch import dodge, xdog
from pipeline.recipe import XdogSettings
from pipeline.records import Status, key_of
from pipeline.schema import MEMBERS, SAMPLES, build_table, samples_schema
from pipeline.shards.shard import ShardWriter, shard_name
from tests.pictures import draw_picture

SPLITS = {"train": 8, "val": 4, "test": 4}


def write_samples(
    directory: Path,
    num_samples: Mapping[str, int] = SPLITS,
    size: int = 64,
    characters: Sequence[str] = (),
    flat: bool = False,
    ink: bool = False,
    fit: str = "stretch",
) -> Path:
    """Write two shards a split, with one corrupt post before the samples of each.

    Args:
        directory: where the shards go; returned.
        num_samples: of each split.
        size: sides of the pictures.
        characters: of the samples in turn.
        flat: each picture one colour, for what must be computed by hand.
        ink: a second sketch, ``sketch_ink``.
        fit: what the recipe says of it.
    """
    post_id = 1000
    schema = samples_schema((*MEMBERS, "sketch_ink")) if ink else SAMPLES
    for split, count in num_samples.items():
        for index, part in enumerate(np.array_split(np.arange(count), 2)):
            with ShardWriter(directory, shard_name(split, index)) as shard:
                rows = [_row(post_id, split, Status.CORRUPT, "undecodable")]
                for i in part:
                    post_id += 1
                    row = _row(post_id, split, Status.KEPT, "")
                    if characters:
                        row["character"] = characters[int(i) % len(characters)]
                    picture = draw_picture(post_id, size, size)
                    if flat:
                        picture = np.full_like(picture, picture[size // 2, size // 2])
                    members = {
                        "color": ("color.jpg", encode_jpeg(picture, 95)),
                        "json": ("json", b"{}"),
                        "sketch": ("sketch.png", encode_png(dodge(picture, 3.0))),
                    }
                    if ink:
                        drawn = encode_png(xdog(picture, XdogSettings()))
                        members["sketch_ink"] = ("sketch_ink.png", drawn)
                    row["key"] = key_of(post_id)
                    for member, (extension, data) in members.items():
                        span = shard.add(f"{row['key']}.{extension}", data)
                        row |= {f"{member}_offset": span.offset, f"{member}_size": span.size}
                    rows.append(row)
                post_id += 1
                info = {"fingerprint": "f", "recipe": {"prepare": {"fit": fit}}}
                shard.commit(build_table(rows, schema), info)
    return directory


def _row(post_id: int, split: str, status: Status, reason: str) -> dict[str, object]:
    return {
        "post_id": post_id,
        "split": split,
        "status": status,
        "reason": reason,
        "md5": "",
        "character": "",
        "family": post_id,
        "rating": "s",
        "ext": "jpg",
        "width": 512,
        "height": 512,
        "parent_id": 0,
        "tags": "white_background",
    }
