"""Tars with an index beside them, as danbooru2024 has them."""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson


def pack(members: dict[str, bytes], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a tar of the members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def index_tar(tar: bytes) -> dict[str, Any]:
    """Return the index of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        members = [member for member in file if member.isfile()]
    files = {
        member.name: {
            "offset": member.offset_data,
            "size": member.size,
            "sha256": hashlib.sha256(
                tar[member.offset_data : member.offset_data + member.size]
            ).hexdigest(),
        }
        for member in members
    }
    return {"filesize": len(tar), "hash": "", "hash_lfs": "", "files": files}


def write_tars(folder: Path, pictures: Iterable[tuple[int, str, bytes]]) -> dict[str, bytes]:
    """Write ``BUCKET.tar`` and ``BUCKET.json`` for pictures as (id, extension, bytes).

    Returns:
        Every file by its name.
    """
    buckets: dict[str, dict[str, bytes]] = {}
    for post_id, ext, data in pictures:
        buckets.setdefault(f"{post_id % 1000:04d}", {})[f"{post_id}.{ext}"] = data
    files: dict[str, bytes] = {}
    for bucket, members in buckets.items():
        tar = pack(members)
        files |= {f"{bucket}.tar": tar, f"{bucket}.json": orjson.dumps(index_tar(tar))}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files
