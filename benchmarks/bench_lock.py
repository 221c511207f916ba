"""lock: bytes of a lock of 30,000 posts, and the seconds to write and to read one.

    python -m benchmarks.bench_lock [--metadata PATH] [--posts 30000]

PATH is a file or folder of Danbooru records; the first of them are taken, whatever they show.
Where none is given, records are invented with 27 of 12,000 tags each. Every post gets the address
that the live site would give, and invented sums, which compress as little as true ones: nothing
is fetched.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lockfile.lock import LOCK_ENCODING, library_versions, read_lock
from pipeline.lockfile.posts import lock_posts
from pipeline.metadata.files import read_posts
from pipeline.metadata.record import parse_record
from pipeline.planning.plan import plan_posts
from pipeline.recipe import Recipe
from pipeline.records import Post
from pipeline.schema import SCHEMA_VERSION
from pipeline.settings import to_table
from pipeline.shards.rows import write_rows


def posts_of(metadata: Path) -> Iterator[Post]:
    seen: set[int] = set()
    for post in read_posts(metadata):
        if isinstance(post, Post) and post.id not in seen:
            seen.add(post.id)
            yield post


def invent_posts() -> Iterator[Post]:
    rng = np.random.default_rng(1)
    shares = 1 / np.arange(1, 12_001) ** 0.9  # by rank, about as Danbooru's
    post_id = 0
    while True:
        post_id += int(rng.integers(1, 160))
        picks = rng.choice(len(shares), 27, replace=True, p=shares / shares.sum())
        record = {"id": post_id, "md5": rng.bytes(16).hex(), "rating": "s", "file_ext": "jpg"}
        record |= {f"image_{side}": int(rng.integers(300, 4000)) for side in ("width", "height")}
        record["tag_string"] = " ".join(f"some_tag_{pick}" for pick in picks)
        yield parse_record(record)


def with_url(post: Post) -> Post:
    m = post.md5
    return replace(post, file_url=f"https://cdn.donmai.us/{m[:2]}/{m[2:4]}/{m}.{post.ext}")


def invent_samples(num_posts: int) -> pa.Table:
    rng = np.random.default_rng(0)
    sums = [[rng.bytes(32).hex() for _ in range(num_posts)] for _ in range(2)]
    return pa.table(
        {
            "status": pa.array(["kept"] * num_posts).dictionary_encode().cast(WORD),
            "reason": pa.array([""] * num_posts).dictionary_encode().cast(WORD),
            "source_sha256": sums[0],
            "sha256": sums[1],
        }
    )


WORD = pa.dictionary(pa.int8(), pa.string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--posts", type=int, default=30_000)
    options = parser.parse_args()
    recipe = Recipe(name="bench")
    posts_in = invent_posts() if options.metadata is None else posts_of(options.metadata)
    plan = plan_posts(map(with_url, islice(posts_in, options.posts)), recipe.split)
    info = {
        "schema_version": SCHEMA_VERSION,
        "recipe": to_table(recipe),
        "ratings": ["s"],
        "versions": library_versions(),
        "counts": {"planned": len(plan)},
        "num_records": len(plan),
        "fates": {"kept": len(plan)},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posts.parquet"
        started = time.perf_counter()
        posts = lock_posts(plan, invent_samples(len(plan))).combine_chunks()
        write_rows(path, [posts], info, **LOCK_ENCODING)
        written = time.perf_counter()
        read_lock(path)
        read = time.perf_counter()
        size = path.stat().st_size
        group = pq.read_metadata(path).row_group(0)
    num_tags = sum(len(tags) for tags in posts["tags"].to_pylist()) / len(posts)
    print(f"{len(posts)} posts, {num_tags:.1f} tags a post: {size / 1e6:.2f} MB")
    print(f"written in {written - started:.2f} s, read and checked in {read - written:.2f} s")
    columns = [group.column(i) for i in range(group.num_columns)]
    for column in sorted(columns, key=lambda c: -c.total_compressed_size)[:7]:
        print(f"{column.total_compressed_size:>10}  {column.path_in_schema}")


if __name__ == "__main__":
    main()
