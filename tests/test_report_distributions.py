from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.plan import planned_shards
from pipeline.report.distributions import Colours, build_histogram, measure
from pipeline.report.funnel import read_fate_table
from tests.works import fetch_all, make_work


def test_colours_are_counted_by_kind_and_hue() -> None:
    colours = Colours()
    pixels = np.full((2, 64, 3), 255, np.uint8)
    pixels[0, :16] = (250, 10, 10)
    pixels[0, 16:24] = (10, 10, 250)
    pixels[0, 24:32] = (128, 128, 128)
    pixels[1, :4] = 0
    colours.add(pixels)
    assert {bar.label: bar.count for bar in colours.area_bars()} == {
        "paper white": 92,
        "pale or grey": 8,
        "coloured": 24,
        "ink black": 4,
    }
    hues = colours.hue_histogram().bars
    assert {bar.label: bar.count for bar in hues if bar.count} == {
        "0° to 12°": 16,
        "240° to 252°": 8,
    }
    means = colours.all_means()
    assert means[0].tolist() == [160, 40, 100]  # of the 32 pixels that are neither paper nor ink
    assert means[1].tolist() == [239, 239, 239]


def test_sizes_fall_into_the_bins_that_hold_them(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 5)
    fetch_all(work, recipe)
    fate_table = read_fate_table(work, list(planned_shards(work.plan_path)))
    long, short, shape = measure(work, fate_table).sizes
    assert [(b.label, b.count) for b in long.bars if b.count] == [("395 to 431", 5)]
    assert [(b.label, b.count) for b in short.bars if b.count] == [("362 to 395", 5)]
    assert [(b.label, b.count) for b in shape.bars if b.count] == [("0.74 to 0.81", 5)]
    assert long.axis == ("304", "412", "558")


@given(st.lists(st.floats(2**-31, 2**31), min_size=1), st.sampled_from([0.0, 0.5]))
def test_a_histogram_holds_every_value_in_few_bins(values: list[float], shift: float) -> None:
    histogram = build_histogram("", np.array(values), "", shift)
    assert sum(bar.count for bar in histogram.bars) == len(values)
    assert 6 <= len(histogram.bars) <= 24
    assert max(bar.share for bar in histogram.bars) == 1
