"""Commands in any order, in a world that changes meanwhile, end where one run afresh would."""

from pathlib import Path

import pytest

from tests.stories import Story


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(
    "seed",
    [
        *range(6),
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 24)),
        *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(24, 120)),
    ],
)
def test_any_sequence_ends_where_a_run_afresh_does(tmp_path: Path, seed: int) -> None:
    Story(seed, tmp_path).live(12)
