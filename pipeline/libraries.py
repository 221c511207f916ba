"""The libraries that decide bytes."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_DECIDING = (
    *("deflate", "numpy", "onnxruntime", "opencv-python-headless", "orjson", "pillow", "pyarrow"),
    *("simplejpeg", "xxhash"),
)


def library_versions() -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for name in _DECIDING:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
