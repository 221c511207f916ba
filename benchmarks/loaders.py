"""One loader over the same pairs of pictures: child process of bench_loader.py.

    python benchmarks/loaders.py NAME FOLDER [--batches 120]  # prints JSON: samples/s, CPU ms, ...

Each imports its own library only, so that one of them can live in an environment of its own. The
peers get what their documentation advises: worker processes that stay, batches collated in the
worker, the raw bytes stored as they are, simplejpeg for the colour picture. ``--own-decoders``
gives them our decoder for the sketch in place of OpenCV's, so that only the loading differs.
"""

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader

BATCH_SIZE = 32
NUM_WORKERS = 2
SIZE = 256
OWN_DECODERS = "--own-decoders" in sys.argv  # worker processes are forked, or inherit it as well

cv2.setNumThreads(1)

Pair = tuple[torch.Tensor, torch.Tensor]


def decode_pair(color: bytes, sketch: bytes) -> Pair:
    """Return a pair as uint8 H x W x 3 and H x W."""
    if OWN_DECODERS:
        from model.data.decode import decode_color, decode_sketch

        pair = (
            torch.empty(SIZE, SIZE, 3, dtype=torch.uint8),
            torch.empty(SIZE, SIZE, dtype=torch.uint8),
        )
        decode_color(color, pair[0].numpy())
        decode_sketch(sketch, pair[1].numpy())
        return pair
    grey = cv2.imdecode(np.frombuffer(sketch, np.uint8), cv2.IMREAD_GRAYSCALE)
    return torch.from_numpy(simplejpeg.decode_jpeg(color)), torch.from_numpy(grey)


def ours(folder: Path) -> Iterator[torch.Tensor]:
    from model.data.order import epoch_order
    from model.data.samples import Samples, iterate_batches

    samples = Samples(folder / "samples", "train")
    if len(samples) < BATCH_SIZE:
        raise SystemExit(f"{folder}: {len(samples)} training samples fill no batch of {BATCH_SIZE}")
    for epoch in itertools.count():
        order = epoch_order(len(samples), 0, epoch)
        full = order[: len(order) - len(order) % BATCH_SIZE]
        for batch in iterate_batches(samples, full, BATCH_SIZE, num_threads=NUM_WORKERS):
            yield batch.color


def with_webdataset(folder: Path) -> Iterator[torch.Tensor]:
    import webdataset as wds

    shards = sorted(str(path) for path in (folder / "samples").glob("train-*.tar"))
    dataset = (
        wds.WebDataset(shards, resampled=True, shardshuffle=False)
        .shuffle(1000)
        .to_tuple("color.jpg", "sketch.png")
        .map(lambda pair: decode_pair(*pair))
        .batched(BATCH_SIZE, partial=False, collation_fn=torch.utils.data.default_collate)
    )
    for color, _ in wds.WebLoader(dataset, batch_size=None, num_workers=NUM_WORKERS):
        yield color


def with_litdata(folder: Path) -> Iterator[torch.Tensor]:
    from litdata import StreamingDataLoader, StreamingDataset

    class Pairs(StreamingDataset):  # type: ignore[misc, unused-ignore]
        def __getitem__(self, index: Any) -> Pair:
            return decode_pair(*super().__getitem__(index))

    dataset = Pairs(str(folder / "litdata"), shuffle=True, drop_last=True)
    loader: Any = StreamingDataLoader(
        dataset, batch_size=BATCH_SIZE, num_workers=NUM_WORKERS, persistent_workers=True
    )
    while True:
        for color, _ in loader:
            yield color


def with_mosaicml(folder: Path) -> Iterator[torch.Tensor]:
    from streaming import StreamingDataset

    class Pairs(StreamingDataset):  # type: ignore[misc, unused-ignore]
        def __getitem__(self, index: Any) -> Pair:
            record = super().__getitem__(index)
            return decode_pair(record["color"], record["sketch"])

    dataset = Pairs(local=str(folder / "mosaicml"), shuffle=True, batch_size=BATCH_SIZE)
    loader: Any = DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        for color, _ in loader:
            yield color


def write_litdata(folder: Path, pairs: Iterator[tuple[bytes, bytes]]) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder / "litdata"), chunk_bytes="64MB")
    for i, pair in enumerate(pairs):
        writer[i] = pair
    writer.done()
    writer.merge()


def write_mosaicml(folder: Path, pairs: Iterator[tuple[bytes, bytes]]) -> None:
    from streaming import MDSWriter

    columns = {"color": "bytes", "sketch": "bytes"}
    with MDSWriter(out=str(folder / "mosaicml"), columns=columns) as writer:
        for color, sketch in pairs:
            writer.write({"color": color, "sketch": sketch})


def read_pairs(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the two members of every training sample, from the tars alone."""
    import webdataset as wds

    shards = sorted(str(path) for path in (folder / "samples").glob("train-*.tar"))
    pairs = wds.WebDataset(shards, shardshuffle=False).to_tuple("color.jpg", "sketch.png")
    yield from pairs


LOADERS: dict[str, Callable[[Path], Iterator[torch.Tensor]]] = {
    "ours": ours,
    "webdataset": with_webdataset,
    "litdata": with_litdata,
    "mosaicml": with_mosaicml,
}
WRITERS = {"litdata": write_litdata, "mosaicml": write_mosaicml}


def cpu_seconds() -> float:
    """Return the CPU time of this process and, where Linux tells, of its living children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    ticks = 0
    for child in torch.multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return total + ticks / 100


def measure(name: str, folder: Path, num_batches: int) -> dict[str, float]:
    """Return samples/s and CPU time of so many batches, after a quarter as many to warm up."""
    batches = LOADERS[name](folder)
    for color in itertools.islice(batches, max(num_batches // 4, 1)):
        if color.numel() != BATCH_SIZE * 3 * SIZE * SIZE or color.dtype != torch.uint8:
            raise SystemExit(f"{name}: a batch of {tuple(color.shape)}, {color.dtype}")
    started, cpu_started = time.perf_counter(), cpu_seconds()
    num_samples = sum(len(color) for color in itertools.islice(batches, num_batches))
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_started
    if num_samples != num_batches * BATCH_SIZE:
        raise SystemExit(f"{name}: {num_samples} samples in {num_batches} batches of {BATCH_SIZE}")
    return {"rate": num_samples / seconds, "cpu_ms": cpu / num_samples * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=LOADERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="write the peer's own format first")
    parser.add_argument("--batches", type=int, default=120)
    parser.add_argument("--own-decoders", action="store_true")
    options = parser.parse_args()
    if options.write:
        WRITERS[options.name](options.folder, read_pairs(options.folder))
    else:
        print(json.dumps(measure(options.name, options.folder, options.batches)))


if __name__ == "__main__":
    main()
