"""Fixtures that several tests share."""

from pathlib import Path

import hypothesis
import pytest

# A busy machine must fail no test: how long an example takes is not what these tests are about.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

MIRROR = Path(__file__).resolve().parent.parent.parent / "shared" / "mirror"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder of real pictures in Danbooru2021's shape; skips where it is absent."""
    if not MIRROR.is_dir():
        pytest.skip("the mirror of real pictures is not beside the repository")
    return MIRROR
