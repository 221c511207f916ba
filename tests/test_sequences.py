"""Commands in any order, in a world that changes meanwhile, end where one run afresh would."""

from pathlib import Path

import pytest

from tests.stories import Story, seeds


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("seed", seeds(6, 18, 96))
def test_any_sequence_ends_where_a_run_afresh_does(tmp_path: Path, seed: int) -> None:
    Story(seed, tmp_path).live(12)
