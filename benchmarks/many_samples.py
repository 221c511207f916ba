"""As many samples as a benchmark asks for, out of a few dolls: quick to write, real to read."""

from pathlib import Path

from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.image import encode_jpeg, encode_png, resize
from pipeline.pictures.sketch import dodge
from pipeline.records import Status, key_of
from pipeline.schema import SAMPLES, build_table
from pipeline.shards.shard import ShardWriter, shard_name
from pipeline.stages.prepare import add_sample

NUM_DRAWN = 16


def write_many(directory: Path, split: str, num_samples: int, shard_size: int, size: int) -> None:
    """Write shards of so many samples of ``size`` pixels a side, ``NUM_DRAWN`` dolls in turn."""
    members = []
    for doll in make_dolls(NUM_DRAWN // 4, 4):
        picture = resize(picture_of(doll), size)
        color, sketch = encode_jpeg(picture, 95), encode_png(dodge(picture, 1.5))
        members.append({"color": color, "json": b"{}", "sketch": sketch})
    for index, start in enumerate(range(0, num_samples, shard_size)):
        with ShardWriter(directory, shard_name(split, index)) as shard:
            rows = []
            for post_id in range(start + 1, min(start + shard_size, num_samples) + 1):
                placed = add_sample(key_of(post_id), members[post_id % len(members)], shard)
                rows.append(placed | _plain_post(post_id, split))
            shard.commit(build_table(rows, SAMPLES), {"fingerprint": "benchmark"})


def _plain_post(post_id: int, split: str) -> dict[str, object]:
    words = {"split": split, "status": Status.KEPT, "reason": "", "rating": "s", "ext": "jpg"}
    numbers = {"post_id": post_id, "family": post_id, "width": 512, "height": 512, "parent_id": 0}
    return {**words, **numbers, "md5": "", "character": f"doll_{post_id % 97}", "tags": "doll"}
