"""What a finished shard of originals has settled, and with which settings."""

from typing import Any

from pipeline.recipe import SourceSettings


def content_settings(source: SourceSettings) -> dict[str, Any]:
    """Return the settings that decide what is fetched, without those of how politely.

    The host is not among them: a mirror that has moved serves the same pictures.
    """
    path = source.images.partition("://")[2].partition("/")[2] or source.images
    return {
        "images": path,
        "layout": source.layout,
        "max_bytes": source.max_bytes,
        "max_pixels": source.max_pixels,
        "check_md5": source.verifies_md5,
    }
