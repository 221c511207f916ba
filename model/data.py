"""Shards -> batches: random access through the rows' offsets, an order that is a pure function.

No DataLoader: libjpeg and libpng release the interpreter's lock, so threads of this process
decode side by side, and no batch is copied between processes.
"""

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow.compute as pc
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decode import decode_color, decode_sketch
from pipeline.errors import UserError
from pipeline.records import Status
from pipeline.schema import MEMBERS, SAMPLES, SKETCH, members_of
from pipeline.settings import Table
from pipeline.shard import list_shards, read_shard, tar_path

Indices = NDArray[np.int64]


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
        characters: character tags of each sample, space-separated, "" for none.
        families: int64, the same for pictures that must not be told apart (variants, parents).
        recipe: the effective recipe that they were prepared by.
        fingerprint: of everything that decides what lies where: equal fingerprint, equal samples.

    Args:
        samples_dir: folder of prepared shards.
        split: train, val or test.
        sketch: the member to take sketches from: ``sketch``, or ``sketch_NAME``.

    Raises:
        UserError: where the split has no samples or no such sketches, or its shards are damaged.
    """

    def __init__(self, samples_dir: Path, split: str, sketch: str = SKETCH) -> None:
        self.split = split
        self._remedy = f"python cli.py verify {samples_dir.parent}"
        self._tars: list[Path] = []
        self._files: list[int] = []
        shards, post_ids, families, spans = [], [], [], []
        self.characters: list[str] = []
        self.recipe: Table = {}
        digest = hashlib.sha256()
        for name in list_shards(samples_dir, split):
            rows, info = read_shard(samples_dir, name, SAMPLES)
            digest.update(f"{name} {info['tar_sha256']}\n".encode())
            rows = rows.filter(pc.equal(rows["status"].cast("string"), Status.KEPT))
            self._tars.append(tar_path(samples_dir, name))
            self._files.append(os.open(self._tars[-1], os.O_RDONLY))
            shards.append(np.full(len(rows), len(self._tars) - 1))
            post_ids.append(rows["post_id"].to_numpy())
            families.append(rows["family"].to_numpy())
            if sketch not in (known := members_of(rows.schema)[len(MEMBERS) - 1 :]):
                raise UserError(
                    f"{samples_dir}: {name} holds no {sketch!r}; it has {', '.join(known)}. Set "
                    "train.sketch to one of these, or prepare again with prepare.sketches."
                )
            columns = ("color_offset", "color_size", f"{sketch}_offset", f"{sketch}_size")
            spans.append(np.stack([rows[c].to_numpy() for c in columns], axis=1).astype(np.int64))
            self.characters += rows["character"].to_pylist()
            recipe = info.get("recipe", {})
            if shards[1:] and recipe.get("prepare") != self.recipe.get("prepare"):
                raise UserError(
                    f"{samples_dir}: {name} was prepared with other settings than the shards "
                    "before it. Run prepare again, to its end."
                )
            self.recipe = recipe
        if not self.characters:
            raise UserError(
                f"{samples_dir}: no samples in the split {split!r}. Run prepare, or give this "
                "split a larger share in the recipe."
            )
        self.post_ids: Indices = np.concatenate(post_ids)
        self.families: Indices = np.concatenate(families)
        self._shards = np.concatenate(shards)
        self._spans = np.concatenate(spans)
        self.fingerprint = digest.hexdigest()
        self.size: tuple[int, int] = self._probe_size()

    def __len__(self) -> int:
        return len(self.post_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()

    def load(self, indices: Sequence[int] | Indices, *, pin: bool = False) -> Batch:
        """Decode some samples; safe to call from several threads.

        Args:
            indices: their places, N for samples that are their own references, or N x 2: places
                of samples and of their references.
            pin: put the pictures into page-locked memory, for copies to a GPU.

        Raises:
            UserError: on a member that is not the picture it should be.
        """
        height, width = self.size
        places = np.asarray(indices, dtype=np.int64)
        places, others = places.T if places.ndim == 2 else (places, places)
        color = torch.empty(len(places), height, width, 3, dtype=torch.uint8, pin_memory=pin)
        sketch = torch.empty(len(places), height, width, dtype=torch.uint8, pin_memory=pin)
        for index, color_out, sketch_out in zip(places, color.numpy(), sketch.numpy(), strict=True):
            self._decode(int(index), color_out, sketch_out)
        reference = color
        if not np.array_equal(places, others):
            reference = torch.empty_like(color, pin_memory=pin).copy_(color)
            for i in np.flatnonzero(places != others):
                self._decode_color(others[i], self._members(others[i])[0], reference[i].numpy())
        return Batch(
            places,
            self.post_ids[places],
            color.permute(0, 3, 1, 2),
            sketch.unsqueeze(1),
            reference.permute(0, 3, 1, 2),
        )

    def _decode_color(self, index: int, data: bytes, out: NDArray[np.uint8]) -> None:
        with self._blaming(index, "color"):
            decode_color(data, out)

    def _decode(
        self, index: int, color_out: NDArray[np.uint8], sketch_out: NDArray[np.uint8]
    ) -> None:
        color, sketch = self._members(index)
        self._decode_color(index, color, color_out)
        with self._blaming(index, "sketch"):
            decode_sketch(sketch, sketch_out)

    @contextmanager
    def _blaming(self, index: int, member: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise self._damaged(index, f"its {member}: {error}") from error

    def _members(self, index: int) -> tuple[bytes, bytes]:
        file = self._files[self._shards[index]]
        color_offset, color_size, sketch_offset, sketch_size = map(int, self._spans[index])
        color = os.pread(file, color_size, color_offset)
        sketch = os.pread(file, sketch_size, sketch_offset)
        if len(color) != color_size or len(sketch) != sketch_size:
            raise self._damaged(index, "the tar ends before its members")
        return color, sketch

    def _probe_size(self) -> tuple[int, int]:
        color, _ = self._members(0)
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(color)
        except ValueError as error:
            raise self._damaged(0, f"its color: {error}") from error
        return height, width

    def _damaged(self, index: int, what: str) -> UserError:
        return UserError(
            f"{self._tars[self._shards[index]]}: sample {self.post_ids[index]:09d}: {what}. "
            f"Find out what else is damaged with: {self._remedy}"
        )


def epoch_order(
    num_samples: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> Indices:
    """Return the order in which one rank sees the samples of an epoch: a pure function.

    Each epoch is a permutation of all samples; the ranks' parts are disjoint and cover it. It is
    sorted by raw Philox words, whose stream NumPy promises never to change.

    Args:
        num_samples: in the whole data set.
        seed: of the run.
        epoch: from 0 on.
        rank: of this process, from 0 on.
        world_size: number of processes.
    """
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(num_samples)
    return np.argsort(words, kind="stable")[rank::world_size]


def iterate_batches(
    samples: Samples,
    order: Indices,
    batch_size: int,
    *,
    num_threads: int = 2,
    pin: bool = False,
    drop_last: bool = False,
) -> Generator[Batch]:
    """Yield the samples of ``order`` in batches, decoded ahead by a few threads.

    To resume in the middle of an epoch, pass ``epoch_order(...)[position:]``, the position being
    the number of samples that were consumed. At most ``num_threads + 2`` batches are held.

    Args:
        samples: where they come from.
        order: places of the samples, N or N x 2; see ``Samples.load``.
        batch_size: samples a batch.
        num_threads: batches that are decoded side by side.
        pin: see ``Samples.load``.
        drop_last: leave out a last batch that is not full.
    """
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    parts = (order[i : i + batch_size] for i in range(0, end, batch_size))
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
