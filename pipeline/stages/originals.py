"""One original: from a post and a template to its bytes, and from bytes to what they are."""

import hashlib
import platform
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import xxhash

from pipeline.disk import reason
from pipeline.errors import UserError
from pipeline.pictures.image import (
    Header,
    UndecodableError,
    decode,
    decode_reduced,
    is_blank,
    perceptual_hash,
    read_header,
)
from pipeline.pictures.letterbox import Letterbox, crop, find_letterbox, predict_box
from pipeline.recipe import SourceSettings
from pipeline.records import Download, Fate, Status, key_of
from pipeline.schema import Row
from pipeline.stages.indexed_tars import TarReader
from pipeline.stores.files import check_store, read_store
from pipeline.urls import is_on_disk, is_web_template, scheme_of, without_password
from pipeline.web.client import Client
from pipeline.web.hosts import allowed_hosts
from pipeline.words import did_you_mean

_EXT = re.compile("[a-z0-9]{1,8}")
_MD5 = re.compile("[0-9a-f]{32}")
_FIELDS = ("id", "bucket", "ext", "md5", "file_url")
_LOOK_SIDE = 128  # pixels: enough for a hash that survives re-encoding, and cheap to decode


def check_source(source: SourceSettings) -> None:
    """Check that a source can name a post's picture.

    Raises:
        UserError: on a template that names none, and where layout or hosts do not fit it.
    """
    check_template(source.images)
    allowed_hosts(source)
    if source.images == "{file_url}" and source.layout != "original":
        raise UserError(
            "--images {file_url}: names untouched originals, without a letterbox; say so: "
            "--set source.layout=original."
        )


def check_template(template: str) -> None:
    """Check that a template names a post's picture.

    Raises:
        UserError: on a template without a post in it, with a field that posts do not have, or to
            where nothing can be read from.
    """
    fields, shown = re.findall(r"\{(.*?)\}", template), without_password(template)
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown:
        known = [f"{{{field}}}" for field in _FIELDS]
        wrong = f"{{{unknown[0]}}}"
        hint = did_you_mean(wrong, known)
        raise UserError(f"--images {shown}: no field {wrong}{hint}; known: {' '.join(known)}.")
    tar, member = split_tar(template)
    if not {"id", "md5", "file_url"} & set(re.findall(r"\{(.*?)\}", member or template)):
        raise UserError(
            f"--images {shown!r}: needs {{id}} (or {{md5}}, {{file_url}}), as in "
            "512px/{bucket}/{id}.jpg or images/{bucket}.tar#{id}.jpg."
        )
    if is_web_template(template):
        return
    if "file_url" in fields:
        raise UserError(f"--images {shown}: {{file_url}} is a whole URL and stands alone.")
    check_store(tar)


def split_tar(template: str) -> tuple[str, str]:
    """Return the tar and the member that a template names; without a tar the template and ""."""
    tar, separator, member = template.partition(".tar#")
    return (f"{tar}.tar", member) if separator else (template, "")


def expand_template(template: str, post: Row) -> str:
    """Return where a post's picture lies, or "" where the record hides what the template needs.

    ``{bucket}`` is id % 1000 in four digits, as in Danbooru2021's folders. A value that could
    lead elsewhere, such as an extension with a slash in it, is treated as hidden.
    """
    values = {
        "id": str(post["post_id"]),
        "bucket": f"{post['post_id'] % 1000:04d}",
        "ext": post["ext"] if _EXT.fullmatch(post["ext"]) else "",
        "md5": post["md5"] if _MD5.fullmatch(post["md5"]) else "",
        "file_url": post["file_url"],
    }
    if any(f"{{{field}}}" in template and not value for field, value in values.items()):
        return ""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def open_source(
    client: Client, source: SourceSettings, index_dir: Path | None = None
) -> Callable[[Row], Download]:
    """Return what gets a post's original by the source's template; many threads may call it.

    Args:
        client: for what does not lie on this machine.
        source: with the template.
        index_dir: where indexes of remote tars are kept for all workers; None keeps none.

    Raises:
        UserError: where the template's folder is not on this machine, or closed to this user. No
            post is missing, or has failed, for that.
    """
    tar_template, member_template = split_tar(source.images)
    folder = Path(tar_template.removeprefix("file://").partition("{")[0] + "*").parent
    if is_on_disk(source.images) and (why := _why_closed(folder)):
        raise UserError(
            f"{folder}: {why} on {platform.node()}; is --images right, and the disk there?"
        )
    over_http = is_web_template(source.images)
    is_remote = over_http or scheme_of(tar_template) != "file"

    def read(place: str, span: range | None = None, max_bytes: int = source.max_bytes) -> Download:
        if over_http:
            return client.get(place, span=span, max_bytes=max_bytes)
        if is_remote:
            return client.read_stored(place, span, max_bytes)
        return read_store(place, max_bytes, span)

    tars = TarReader(read, index_dir if is_remote else None, source.max_bytes)

    def get(post: Row) -> Download:
        place, member = (expand_template(t, post) for t in (tar_template, member_template))
        if not place or (member_template and not member):
            return Download(Fate(Status.MISSING, "no_url"))
        return tars.get(place, member) if member else read(place)

    return get


def _why_closed(folder: Path) -> str:
    """Return why a folder's files cannot be read, "" where they can be."""
    try:
        (folder / "..").stat()  # which fails unless this user may enter the folder
    except (FileNotFoundError, NotADirectoryError):
        return "no such folder"
    except OSError as error:
        return reason(error).lower()
    return ""


def inspect(post: Row, content: bytes, source: SourceSettings) -> Row:
    """Look at an original: what it is by its magic, and the hashes by which it is recognised.

    Returns:
        The raw row's columns that the bytes decide: fate, key, format, sizes, hashes. A picture
        that does not decode is still ``fetched``; preparing it will say why.
    """
    header = read_header(content)
    if header is None:
        return Fate(Status.REJECTED, "not_an_image").columns
    if header.width * header.height > source.max_pixels:
        return Fate(Status.REJECTED, "too_many_pixels").columns
    if source.verifies_md5 and post["md5"] and _md5(content) != post["md5"]:
        return Fate(Status.REJECTED, "hash_mismatch").columns
    return {
        **Fate(Status.FETCHED).columns,
        "key": key_of(post["post_id"]),
        "sha256": hashlib.sha256(content).hexdigest(),
        "format": header.format,
        "file_width": header.width,
        "file_height": header.height,
        **_recognise(post, content, header, source.layout),
    }


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _recognise(post: Row, content: bytes, header: Header, layout: str) -> Row:
    """Return size, hashes and thumbnail of what is inside the letterbox; nothing for flat ones."""
    try:
        picture = decode_reduced(content, _LOOK_SIDE)
        width, height = header.width, header.height
        if picture.shape[:2] == (width, height):  # turned upright by its EXIF; then it comes whole
            width, height = height, width
        if layout == "512px":
            record = post["width"], post["height"]
            box, letterbox = find_letterbox(picture, *record)
            picture = crop(picture, box)
            if width == height:  # `prepare` compares the size with `min_side`: not to be rounded
                if letterbox is Letterbox.DISAGREES:
                    box, _ = find_letterbox(decode(content), *record)
                else:
                    box = predict_box(width, *record)
                width, height = box.width, box.height
    except UndecodableError:
        return {}
    if is_blank(picture):
        return {}
    return {
        "content_width": width,
        "content_height": height,
        "perceptual_hash": perceptual_hash(picture),
        "pixel_hash": xxhash.xxh3_64_intdigest(picture.tobytes()),
        "thumbnail": cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA).tobytes(),
    }
