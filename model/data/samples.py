"""Shards -> batches: random access through the rows' offsets, decoded ahead by threads.

No DataLoader: libjpeg and libpng release the interpreter's lock, so threads of this process
decode side by side, and no batch is copied between processes.
"""

import hashlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.decode import decode_color, decode_sketch
from model.data.order import Indices, Window
from model.data.shards import LocalShards, Shards
from pipeline.errors import DamagedError, UserError
from pipeline.records import Status
from pipeline.schema import MAX_SIDE, MEMBERS, SKETCH, SPLITS, members_of, place_columns
from pipeline.settings import Table
from pipeline.shards.shard import Span, check_split
from pipeline.words import counted


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples, decoded.

    Attributes:
        indices: int64 N, their places in the ``Samples``.
        post_ids: int64 N.
        color: uint8 N x 3 x H x W, RGB; channels last in memory, as decoded.
        sketch: uint8 N x 1 x H x W.
        reference: uint8 N x 3 x H x W, what to colour after; ``color`` itself where every sample
            is its own reference.
    """

    indices: Indices
    post_ids: Indices
    color: Tensor
    sketch: Tensor
    reference: Tensor


class Samples:
    """The kept samples of one split, in the order of their shards and rows.

    Attributes:
        size: sides of the pictures in pixels, (height, width).
        post_ids: int64, one a sample.
        shards: int64, the number of each sample's shard, ascending.
        characters: character tags of each sample, space-separated, "" for none.
        families: int64, equal for samples of one family (parents and children).
        recipe: the effective recipe that they were prepared by.
        fingerprint: of everything that decides what lies where: equal fingerprint, equal samples.

    Args:
        source: folder of prepared shards, or shards that the caller closes.
        split: train, val or test.
        sketches: the members that sketches may be taken from: ``sketch``, the only one by default,
            and each ``sketch_NAME``.

    Raises:
        UserError: where there is no such split, it has no samples or no such sketches, or its
            shards are damaged.
    """

    def __init__(self, source: Path | Shards, split: str, *sketches: str) -> None:
        check_split(split, repr(split))
        self.split = split
        self._source = LocalShards(source) if isinstance(source, Path) else source
        self._is_local = isinstance(source, Path)
        self._names = self._source.names(split)
        shards, post_ids, families, spans = [], [], [], []
        self.characters: list[str] = []
        self.recipe: Table = {}
        digest, num_posts = hashlib.sha256(), 0
        for number, name in enumerate(self._names):
            rows, info = self._source.rows(name)
            digest.update(f"{name} {info['tar_sha256']}\n".encode())
            num_posts += len(rows)
            rows = rows.filter(pc.equal(rows["status"], Status.KEPT))
            shards.append(np.full(len(rows), number))
            post_ids.append(rows["post_id"].to_numpy())
            families.append(rows["family"].to_numpy())
            spans.append(self._spans_of(name, rows, sketches or (SKETCH,), info["tar_size"]))
            self.characters += rows["character"].to_pylist()
            recipe = info.get("recipe", {})
            if number and recipe.get("prepare") != self.recipe.get("prepare"):
                raise UserError(
                    f"{self._source.place}: {name} was prepared with other settings than the "
                    "shards before it. Run prepare again, to its end."
                )
            self.recipe = recipe
        if not self.characters:
            remedy = "Run prepare or pull; samples lie in WORK/samples."
            if num_posts:
                remedy = (
                    f"Of its {counted(num_posts, 'post')} none was kept: `status WORK` counts what "
                    "became of them, and docs/fates.md explains that. Where other splits have "
                    "samples, a larger share in the recipe and `fetch --replan` help as well."
                )
            elif any(map(self._source.names, SPLITS)):
                remedy = (
                    "Run prepare or pull, or give this split a larger share in the recipe and "
                    "`fetch --replan`."
                )
            raise UserError(f"{self._source.place}: no samples in the split {split!r}. {remedy}")
        self.post_ids: Indices = np.concatenate(post_ids)
        self.families: Indices = np.concatenate(families)
        self.shards: Indices = np.concatenate(shards)
        self._spans = np.concatenate(spans)
        self.fingerprint = digest.hexdigest()
        self.size: tuple[int, int] = self._find_size()

    def __len__(self) -> int:
        return len(self.post_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_local:
            self._source.close()

    def expect(self, windows: Sequence[Window]) -> None:
        """Say which shards will be read, a window after the other."""
        self._source.expect([[self._names[shard] for shard in w.shards] for w in windows])

    def keep(self) -> None:
        """Say that all of this split will be read again and again."""
        self._source.keep(self._names)

    def shard_sizes(self) -> list[int]:
        """Return how many samples each shard has."""
        sizes: list[int] = np.bincount(self.shards, minlength=len(self._names)).tolist()
        return sizes

    def load(self, indices: Sequence[int] | Indices, *, pin: bool = False) -> Batch:
        """Decode some samples; safe to call from several threads.

        Args:
            indices: their places, N for samples that are their own references, N x 2 for places
                of samples and of their references, or N x 3: these, and which of the members
                each sketch is taken from, the first one otherwise.
            pin: put the pictures into page-locked memory, for copies to a GPU.

        Raises:
            UserError: on a member that is not the picture it should be.
        """
        height, width = self.size
        columns = np.atleast_2d(np.asarray(indices, dtype=np.int64).T)
        places, others = columns[0], columns[:2][-1]
        members = columns[2] if len(columns) == 3 else np.zeros_like(places)
        color = torch.empty(len(places), height, width, 3, dtype=torch.uint8, pin_memory=pin)
        sketch = torch.empty(len(places), height, width, dtype=torch.uint8, pin_memory=pin)
        outs = zip(places, members, color.numpy(), sketch.numpy(), strict=True)
        for index, member, color_out, sketch_out in outs:
            self._decode(int(index), color_out, sketch_out, int(member))
        reference = color
        if not np.array_equal(places, others):
            reference = torch.empty_like(color, pin_memory=pin).copy_(color)
            for i in np.flatnonzero(places != others):
                self._decode(int(others[i]), reference[i].numpy())
        return Batch(
            places,
            self.post_ids[places],
            color.permute(0, 3, 1, 2),
            sketch.unsqueeze(1),
            reference.permute(0, 3, 1, 2),
        )

    def _decode(
        self,
        index: int,
        color_out: NDArray[np.uint8],
        sketch_out: NDArray[np.uint8] | None = None,
        member: int = 0,
    ) -> None:
        color, sketch = self._members(index, member)
        with self._blaming(index, "color"):
            decode_color(color, color_out)
        if sketch_out is not None:
            with self._blaming(index, "sketch"):
                decode_sketch(sketch, sketch_out)

    @contextmanager
    def _blaming(self, index: int, member: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise self._damaged(index, f"its {member}: {error}") from error

    def _spans_of(
        self, name: str, rows: pa.Table, sketches: Sequence[str], tar_size: int
    ) -> Indices:
        """Return where colour and sketches lie in their tar: each one's offset and size."""
        known = members_of(rows.schema)[len(MEMBERS) - 1 :]
        if unknown := next((sketch for sketch in sketches if sketch not in known), None):
            raise UserError(
                f"{self._source.place}: {name} holds no {unknown!r}; it has {', '.join(known)}. "
                "Take train.sketch and train.sketches, or eval.sketch, from these, or prepare "
                "again with prepare.sketches."
            )
        columns = [c for member in ("color", *sketches) for c in place_columns(member)]
        path, remedy = f"{self._source.place}/{name}.parquet", self._source.remedy
        if any(rows[column].null_count for column in columns):
            raise DamagedError(f"{path}: lacks places of members. {remedy}")
        spans = np.stack([rows[c].to_numpy() for c in columns], axis=1).astype(np.int64)
        if (spans < 0).any() or (spans > tar_size).any():
            raise DamagedError(f"{path}: names impossible places. {remedy}")
        return spans

    def _members(self, index: int, member: int = 0) -> tuple[bytes, bytes]:
        """Return a sample's colour, and the sketch that is the ``member``-th of its sketches."""
        color_span, *sketch_spans = self._spans[index].reshape(-1, 2).tolist()
        spans = (Span(*color_span), Span(*sketch_spans[member]))
        color, sketch = self._source.read(self._names[self.shards[index]], spans)
        if len(color) != spans[0].size or len(sketch) != spans[1].size:
            raise self._damaged(index, "the tar ends before its members")
        return color, sketch

    def _find_size(self) -> tuple[int, int]:
        """Take the recipe's word, or else the first picture's; decoding checks every one."""
        side = self.recipe.get("prepare", {}).get("size")
        if isinstance(side, int) and 0 < side <= MAX_SIDE:
            return side, side
        color, _ = self._members(0)
        with self._blaming(0, "color"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(color)
            if max(height, width) > MAX_SIDE:  # memory for a batch of it is taken before decoding
                raise ValueError(f"is {(height, width)}, larger than any sample")
        return height, width

    def _damaged(self, index: int, what: str) -> UserError:
        name = self._names[self.shards[index]]
        return UserError(
            f"{self._source.place}/{name}.tar: sample {self.post_ids[index]:09d}: {what}. "
            f"{self._source.remedy}"
        )


def iterate_batches(
    samples: Samples,
    order: Indices,
    batch_size: int,
    *,
    num_threads: int = 2,
    pin: bool = False,
) -> Generator[Batch]:
    """Yield the samples of ``order`` in batches, decoded ahead by a few threads.

    To resume in the middle of an epoch, pass its order from ``position`` on, the position being
    the number of samples that were consumed. At most ``num_threads + 2`` batches are held.

    Args:
        samples: where they come from.
        order: places of the samples; see the ``indices`` of ``Samples.load``.
        batch_size: samples a batch.
        num_threads: batches that are decoded side by side.
        pin: see ``Samples.load``.
    """
    parts = (order[i : i + batch_size] for i in range(0, len(order), batch_size))
    pending: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        for part in parts:
            pending.append(pool.submit(samples.load, part, pin=pin))
            if len(pending) == num_threads + 2:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def spread_places(num_places: int, num_samples: int) -> Indices:
    """Return at most ``num_places`` places spread evenly over all: neighbours are often alike."""
    return np.linspace(0, num_samples - 1, min(num_places, num_samples)).astype(np.int64)


def to_unit(
    picture: Tensor,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Bring uint8 pictures (N x C x H x W) to a device as floats in [0, 1]."""
    moved = picture.to(device, non_blocking=True).to(torch.float32, memory_format=memory_format)
    return moved.div_(255)


def to_bytes(picture: Tensor) -> Tensor:
    """Bring float pictures to uint8, rounded; what lies outside [0, 1] is clamped."""
    return picture.float().clamp(0, 1).mul(255).round().to(torch.uint8)
