"""report, part 2: how sizes, tags and colours are distributed.

From at most ``MAX_SHARDS`` shards: each is a random sample of its split, so a part is as fair as
the whole, and the time a report takes does not grow with the data set.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.pictures.letterbox import Letterbox
from pipeline.report.funnel import Bar, FateTable, read_alive
from pipeline.schema import RAW
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import rows_path
from pipeline.work import Work

MAX_SHARDS = 128
NUM_HUES = 30

_COLUMNS = ["post_id", "status", "width", "height", "tags", "character", "letterbox"]
_NUM_TAGS = 20
_MAX_BINS = 24
_BATCH = 4096  # thumbnails that are looked at together
_COLOURED = 32  # levels between a pixel's largest and smallest channel from which it has a hue
_WHITE, _BLACK = 232, 40  # levels from which all channels are paper, up to which they are ink

Sizes = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over a range.

    Attributes:
        title: what is counted.
        gist: of it, in words.
        bars: from low to high; a share is one of the tallest.
        axis: labels at the left end, in the middle, and at the right end.
    """

    title: str
    gist: str
    bars: list[Bar]
    axis: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Statistics:
    """How the posts that are still in are distributed, as far as they were looked at.

    Attributes:
        num_posts: posts that were looked at.
        num_shards: shards that these are all living posts of.
        sizes: histograms of sizes and aspect ratios.
        tags: the most frequent tags; a share is one of all posts.
        characters: the most frequent characters, likewise.
        num_characters: different characters.
        num_named: posts that name a character.
        letterbox: how record and pixels agree about the black bars.
        disagreeing: posts where they do not.
        colours: of their thumbnails.
    """

    num_posts: int
    num_shards: int
    sizes: list[Histogram]
    tags: list[Bar]
    characters: list[Bar]
    num_characters: int
    num_named: int
    letterbox: list[Bar]
    disagreeing: list[int]
    colours: "Colours"


@dataclass(slots=True)
class Colours:
    """Colours of 8 x 8 thumbnails, added up shard by shard.

    Attributes:
        areas: pixels that are paper white, pale or grey, coloured, or ink black.
        hues: coloured pixels by hue, in bins of 12 degrees from red.
        means: each picture's mean colour without paper and ink: uint8, N x 3 each.
    """

    areas: Counter[str] = field(default_factory=Counter)
    hues: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_HUES, np.int64))
    means: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, thumbnails: NDArray[np.uint8]) -> None:
        """Count thumbnails: uint8 RGB, N x 64 x 3."""
        red, green, blue = np.moveaxis(thumbnails, 2, 0)  # a.min(axis=2) is ten times slower
        low = np.minimum(np.minimum(red, green), blue)
        high = np.maximum(np.maximum(red, green), blue)
        white, black = low >= _WHITE, high <= _BLACK
        middle = ~white & ~black
        coloured = middle & (high - low >= _COLOURED)
        for name, mask in (("paper white", white), ("ink black", black), ("coloured", coloured)):
            self.areas[name] += int(mask.sum())
        self.areas["pale or grey"] += int((middle & ~coloured).sum())
        hue = cv2.cvtColor(thumbnails.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV)[:, 0, 0]  # 0 to 179
        bins = hue[coloured.ravel()].astype(np.int64) * NUM_HUES // 180
        self.hues += np.bincount(bins, minlength=NUM_HUES)
        middle[~middle.any(axis=1)] = True  # nothing but paper and ink: their mean
        weight = middle[..., None] / middle.sum(axis=1)[:, None, None]
        self.means.append((thumbnails * weight).sum(axis=1).round().astype(np.uint8))

    def area_bars(self) -> list[Bar]:
        """Return the shares of the pictures' area."""
        names = ("paper white", "pale or grey", "coloured", "ink black")
        return _shares([(name, self.areas[name]) for name in names])

    def hue_histogram(self) -> Histogram:
        """Return the coloured area by hue: from red over green and blue to red."""
        step, tallest = 360 // NUM_HUES, max(int(self.hues.max()), 1)
        bars = [
            Bar(f"{i * step}° to {(i + 1) * step}°", int(n), n / tallest)
            for i, n in enumerate(self.hues)
        ]
        return Histogram("Hues of the coloured area", "", bars, ("0°", "180°", "360°"))

    def all_means(self) -> NDArray[np.uint8]:
        """Return all pictures' mean colours: uint8, N x 3."""
        return np.concatenate([np.zeros((0, 3), np.uint8), *self.means])


def measure(work: Work, fate_table: FateTable) -> Statistics:
    """Measure the posts that are still in, in at most ``MAX_SHARDS`` shards spread over all."""
    num_shards = min(len(fate_table.names), MAX_SHARDS)
    names = [fate_table.names[i * len(fate_table.names) // num_shards] for i in range(num_shards)]
    tags, characters, letterbox = Counter[str](), Counter[str](), Counter[str]()
    sizes, insides = [np.zeros((0, 2), np.int32)], [np.zeros((0, 2), np.int32)]
    disagreeing: list[int] = []
    num_named, num_posts, colours = 0, 0, Colours()
    for name in names:
        posts = read_alive(work, name, _COLUMNS)
        num_posts += len(posts)
        sizes.append(_read_sizes(posts, "width", "height"))
        tags.update(_count_words(posts["tags"]))
        characters.update(_count_words(posts["character"]))
        num_named += sum(text != "" for text in posts["character"].to_pylist())
        if "letterbox" in posts.column_names:
            letterbox.update(posts["letterbox"].to_pylist())
            odd = pc.equal(posts["letterbox"], Letterbox.DISAGREES)
            disagreeing += posts["post_id"].filter(odd).to_pylist()
        thumbnails = _read_thumbnails(work, name, posts["post_id"])
        insides.append(_read_sizes(thumbnails, "content_width", "content_height"))
        for batch in thumbnails.to_batches(max_chunksize=_BATCH):
            pixels = b"".join(batch["thumbnail"].to_pylist())
            colours.add(np.frombuffer(pixels, np.uint8).reshape(-1, 64, 3))
    return Statistics(
        num_posts,
        num_shards,
        _size_histograms(np.concatenate(sizes), np.concatenate(insides)),
        _top(tags, num_posts),
        _top(characters, num_posts),
        len(characters),
        num_named,
        _shares([(str(kind), letterbox[kind]) for kind in Letterbox]),
        disagreeing,
        colours,
    )


def _read_thumbnails(work: Work, name: str, post_ids: pa.ChunkedArray) -> pa.Table:
    """Return what fetch saw of some posts of a shard: size of the content, and thumbnail."""
    columns = ["post_id", "content_width", "content_height", "thumbnail"]
    path = rows_path(work.raw_dir, name)
    if not path.is_file():  # samples that came without their originals
        return RAW.empty_table().select(columns)
    table = read_rows(path, RAW, columns)
    return table.filter(pc.is_in(table["post_id"], value_set=post_ids)).drop_null()


def _read_sizes(table: pa.Table, width: str, height: str) -> Sizes:
    """Return known sizes, N x 2."""
    sizes = np.stack([table[width].to_numpy(), table[height].to_numpy()], axis=1)
    return np.asarray(sizes[(sizes > 0).all(axis=1)], np.int32)


def _count_words(column: pa.ChunkedArray) -> dict[str, int]:
    words = pc.list_flatten(pc.split_pattern(column, " ")).value_counts().to_pylist()
    return {word["values"]: word["counts"] for word in words if word["values"]}


def _top(words: Counter[str], num_posts: int) -> list[Bar]:
    top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:_NUM_TAGS]
    return [Bar(word, count, count / max(num_posts, 1)) for word, count in top]


def _shares(counts: Sequence[tuple[str, int]]) -> list[Bar]:
    """Return counts as bars with their shares of the sum; none where there is nothing."""
    total = sum(count for _, count in counts)
    return [Bar(label, count, count / total) for label, count in counts if total]


def _size_histograms(sizes: Sizes, insides: Sizes) -> list[Histogram]:
    found = [
        ("Long side of the original, by its record", sizes.max(axis=1), " px", 0.0),
        ("Short side of the file, inside its letterbox", insides.min(axis=1), " px", 0.0),
        ("Width to height of the original", sizes[:, 0] / sizes[:, 1], "", 0.5),
    ]
    return [build_histogram(*values) for values in found if len(values[1])]


def build_histogram(title: str, values: NDArray[Any], unit: str, shift: float) -> Histogram:
    """Return a histogram on a logarithmic axis: 8 bins an octave, or fewer where the range is wide.

    Args:
        title: of the histogram.
        values: above 0, one at least.
        unit: of the values, as it is written behind them.
        shift: moves the bins' lower edges down from the powers of two, by parts of a bin.
    """
    octaves = np.log2(values)
    step = next(s for s in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4) if np.ptp(octaves) < s * (_MAX_BINS - 1))
    bins = np.floor(octaves / step + shift)
    counts = np.bincount((bins - bins.min()).astype(int))
    margin = max(0, 3 - len(counts) // 2)  # empty bins on both sides where there are few
    counts = np.pad(counts, margin)

    def edge(index: float) -> str:
        return _number(2.0 ** (step * (bins.min() - margin - shift + index)))

    bars = [
        Bar(f"{edge(i)} to {edge(i + 1)}", int(n), n / counts.max()) for i, n in enumerate(counts)
    ]
    low, median, high = (_number(value) for value in np.percentile(values, (5, 50, 95)))
    gist = f"Median {median}{unit}; nine in ten between {low} and {high}{unit}."
    return Histogram(title, gist, bars, (edge(0), edge(len(bars) / 2), edge(len(bars))))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 16 else f"{value:.2f}"
