"""One original: from a post and a template to its bytes, and from bytes to what they are."""

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import cv2
import xxhash

from pipeline.client import Client, Download
from pipeline.errors import UserError
from pipeline.hosts import allowed_hosts, is_http
from pipeline.image import (
    UndecodableError,
    crop,
    decode_reduced,
    find_letterbox,
    is_blank,
    perceptual_hash,
    read_header,
)
from pipeline.recipe import SourceSettings
from pipeline.records import Fate, Status, key_of

Row = dict[str, Any]

_FIELDS = ("id", "bucket", "ext", "md5", "file_url")
_LOOK_SIDE = 128  # pixels: enough for a hash that survives re-encoding, and cheap to decode


def check_source(source: SourceSettings) -> None:
    """Check that a source can name a post's picture.

    Raises:
        UserError: on a template that names none, and where layout or hosts do not fit it.
    """
    check_template(source.images)
    allowed_hosts(source)
    if "{file_url}" in source.images and source.layout != "original":
        raise UserError(
            "--images {file_url}: names untouched originals, without a letterbox; say so: "
            "--set source.layout=original."
        )


def check_template(template: str) -> None:
    """Check that a template names a post's picture.

    Raises:
        UserError: on a template without a post in it, or with a field that posts do not have.
    """
    fields = re.findall(r"\{(.*?)\}", template)
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown:
        known = " ".join(f"{{{field}}}" for field in _FIELDS)
        raise UserError(f"--images {template}: no field {{{unknown[0]}}}; known: {known}.")
    if not {"id", "md5", "file_url"} & set(fields):
        raise UserError(
            f"--images {template!r}: needs {{id}} (or {{md5}}, {{file_url}}), as in "
            "512px/{bucket}/{id}.jpg."
        )
    if "file_url" in fields and template != "{file_url}":
        raise UserError(f"--images {template}: {{file_url}} is a whole URL and stands alone.")


def expand_template(template: str, post: Row) -> str:
    """Return where a post's picture lies, or "" where the record hides what the template needs.

    ``{bucket}`` is id % 1000 in four digits, as in Danbooru2021's folders.
    """
    values = {
        "id": str(post["post_id"]),
        "bucket": f"{post['post_id'] % 1000:04d}",
        "ext": post["ext"],
        "md5": post["md5"],
        "file_url": post["file_url"],
    }
    if any(f"{{{field}}}" in template and not value for field, value in values.items()):
        return ""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def is_url(template: str) -> bool:
    """Whether a template names something that is asked for over HTTP."""
    return is_http(template) or template == "{file_url}"


def get_original(client: Client, source: SourceSettings, post: Row) -> Download:
    """Get a post's original by the source's template, over HTTP or from disk."""
    place = expand_template(source.images, post)
    if not place:
        return Download(Fate(Status.MISSING, "no_url"))
    return client.get(place) if is_url(source.images) else _read(Path(place), source.max_bytes)


def _read(path: Path, max_bytes: int) -> Download:
    started = time.monotonic()
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Download(Fate(Status.MISSING, "no_file"), num_attempts=1)
    except OSError:
        return Download(Fate(Status.FAILED, "io"), num_attempts=1)
    fate = Fate(Status.FETCHED)
    if not content:
        fate = Fate(Status.REJECTED, "empty")
    elif len(content) > max_bytes:
        fate = Fate(Status.REJECTED, "too_many_bytes")
    return Download(fate, content, num_attempts=1, seconds=time.monotonic() - started)


def inspect(post: Row, content: bytes, source: SourceSettings) -> Row:
    """Look at an original: what it is by its magic, and the hashes by which it is recognised.

    Returns:
        The raw row's columns that the bytes decide: fate, key, format, sizes, hashes. A picture
        that does not decode is still ``fetched``; preparing it will say why.
    """
    header = read_header(content)
    if header is None:
        return _rejected("not_an_image")
    if header.width * header.height > source.max_pixels:
        return _rejected("too_many_pixels")
    if source.verifies_md5 and post["md5"] and _md5(content) != post["md5"]:
        return _rejected("hash_mismatch")
    return {
        "status": Status.FETCHED,
        "reason": "",
        "key": key_of(post["post_id"]),
        "sha256": hashlib.sha256(content).hexdigest(),
        "format": header.format,
        "file_width": header.width,
        "file_height": header.height,
        **_recognise(post, content, header.width, source.layout),
    }


def _rejected(reason: str) -> Row:
    fate = Fate(Status.REJECTED, reason)
    return {"status": fate.status, "reason": fate.reason}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _recognise(post: Row, content: bytes, file_width: int, layout: str) -> Row:
    """Return size, hashes and thumbnail of what is inside the letterbox; nothing for flat ones."""
    try:
        picture = decode_reduced(content, _LOOK_SIDE)
    except UndecodableError:
        return {}
    scale = file_width / picture.shape[1]
    if layout == "512px":
        picture = crop(picture, find_letterbox(picture, post["width"], post["height"])[0])
    if is_blank(picture):
        return {}
    return {
        "content_width": round(picture.shape[1] * scale),
        "content_height": round(picture.shape[0] * scale),
        "perceptual_hash": perceptual_hash(picture),
        "pixel_hash": xxhash.xxh3_64_intdigest(picture.tobytes()),
        "thumbnail": cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA).tobytes(),
    }
