"""Fixtures that several tests share."""

from pathlib import Path

import pytest

MIRROR = Path(__file__).resolve().parent.parent.parent / "shared" / "mirror"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder of real pictures in Danbooru2021's shape; skips where it is absent."""
    if not MIRROR.is_dir():
        pytest.skip("the mirror of real pictures is not beside the repository")
    return MIRROR
