"""prepare: one shard of originals -> one shard of samples (colour picture, sketch, description)."""

import hashlib
from dataclasses import dataclass, field
from typing import BinaryIO

import orjson
import pyarrow as pa

from pipeline.counts import Fates, count_fates
from pipeline.errors import DamagedError
from pipeline.executor import Tick
from pipeline.pictures.image import (
    UndecodableError,
    decode,
    encode_jpeg,
    encode_png,
    is_blank,
    read_header,
    resize,
)
from pipeline.pictures.letterbox import Box, Letterbox, crop, find_letterbox
from pipeline.pictures.sketch import draw_sketch
from pipeline.recipe import PrepareSettings, Recipe
from pipeline.recipe_shared import portable, without_secrets
from pipeline.records import Fate, Status, key_of
from pipeline.schema import (
    EDGES,
    MEMBERS,
    RAW,
    SAMPLES,
    SCHEMA_VERSION,
    Row,
    build_table,
    extension_of,
    samples_schema,
    take_posts,
)
from pipeline.settings import fingerprint_of, to_table
from pipeline.shards.rows import check_seal, read_fates, read_rows, read_seal
from pipeline.shards.shard import (
    ShardWriter,
    is_current,
    read_shard,
    read_span,
    rows_path,
    span_of,
    tar_path,
)
from pipeline.work import Work

_CARRIED = [name for name in SAMPLES.names if name in RAW.names]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one original: a fate, and for a kept one its members and geometry.

    Attributes:
        fate: kept, corrupt, blank or too_small.
        box: what is inside the letterbox.
        letterbox: how record and pixels agree.
        color: the colour picture, JPEG.
        sketches: PNG, by the names of their members.
    """

    fate: Fate
    box: Box | None = None
    letterbox: Letterbox | None = None
    color: bytes = b""
    sketches: dict[str, bytes] = field(default_factory=dict)


def prepare_picture(
    data: bytes, width: int, height: int, layout: str, max_pixels: int, settings: PrepareSettings
) -> Prepared:
    """Turn one original into the pictures of a sample; a pure function of its arguments.

    Args:
        data: the original's bytes.
        width: of the original by its record, in pixels; 0 where unknown.
        height: likewise.
        layout: ``512px`` or ``original``.
        max_pixels: a picture whose header says more is not decoded.
        settings: the recipe's.
    """
    header = read_header(data)
    if header is None or header.width * header.height > max_pixels:
        return Prepared(Fate(Status.CORRUPT, "undecodable"))
    try:
        picture = decode(data)
    except UndecodableError as error:
        return Prepared(Fate(Status.CORRUPT, error.reason))
    box, letterbox = Box(0, 0, picture.shape[1], picture.shape[0]), Letterbox.NONE
    if settings.letterbox and layout == "512px":
        box, letterbox = find_letterbox(picture, width, height)
    picture = crop(picture, box)
    if is_blank(picture):
        return Prepared(Fate(Status.BLANK, "flat"), box, letterbox)
    if min(box.width, box.height) < settings.min_side:
        return Prepared(Fate(Status.TOO_SMALL, "after_crop"), box, letterbox)
    color = resize(picture, settings.size, settings.fit)
    sketches = {
        member: encode_png(draw_sketch(color, sketch))
        for member, sketch in settings.sketch_members.items()
    }
    jpeg = encode_jpeg(color, settings.jpeg_quality)
    return Prepared(Fate(Status.KEPT), box, letterbox, jpeg, sketches)


@dataclass(frozen=True, slots=True)
class PrepareStage:
    """Everything that one shard of originals needs to become a shard of samples.

    Attributes:
        work: the folder where the originals are, and the samples go.
        recipe: the effective one, its sketches pinned; it is written into the shard.
        duplicates: of the whole selection, as ``find_duplicates`` gives them.
        rebuild: make finished shards anew as well.
    """

    work: Work
    recipe: Recipe
    duplicates: pa.Table
    rebuild: bool = False

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Prepare shard ``name``; a shard that is done is left as it is.

        Promise: every row that goes in comes out as one row with one fate; every kept one's
        members lie in the tar where the row says; the same input gives the same bytes.

        Raises:
            DamagedError: where the originals are not what was fetched.
        """
        fingerprint = self.fingerprint(name)
        if not self.rebuild and is_current(self.work.samples_dir, name, fingerprint):
            done = read_fates(rows_path(self.work.samples_dir, name), SAMPLES)
            tick(done.total())
            return done
        check_seal(rows_path(self.work.raw_dir, name))
        rows, _ = read_shard(self.work.raw_dir, name, RAW)
        duplicates = {row["post_id"]: row for row in self.repeats(name)}
        settings = self.recipe.prepare
        with (
            ShardWriter(self.work.samples_dir, name) as shard,
            tar_path(self.work.raw_dir, name).open("rb") as originals,
        ):
            finished = []
            for row in rows.to_pylist():
                finished.append(self._finish(row, duplicates.get(row["post_id"]), originals, shard))
                tick(1)
            schema = samples_schema((*MEMBERS, *settings.sketch_members))
            table = build_table(finished, schema)
            recipe = to_table(without_secrets(self.recipe))
            info = {"stage": "prepare", "fingerprint": fingerprint, "recipe": recipe}
            shard.commit(table, info | {"size": settings.size})
        return count_fates(table)

    def is_done(self, name: str) -> bool:
        """Whether shard ``name`` is there and is what this stage would make."""
        return is_current(self.work.samples_dir, name, self.fingerprint(name))

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of all that decides a shard."""
        seal, source = read_seal(rows_path(self.work.raw_dir, name)), self.recipe.source
        settings = (portable(self.recipe.prepare), source.layout, source.max_pixels)
        return fingerprint_of(SCHEMA_VERSION, *settings, seal, self.repeats(name))

    def repeats(self, name: str) -> list[Row]:
        """Return the duplicates in shard ``name``, as rows of ``schema.DUPLICATES``."""
        ids = read_rows(rows_path(self.work.raw_dir, name), RAW, ["post_id"])["post_id"]
        return list(take_posts(self.duplicates, ids.to_numpy()).to_pylist())

    def _finish(
        self, row: Row, duplicate: Row | None, originals: BinaryIO, shard: ShardWriter
    ) -> Row:
        result = {name: row[name] for name in _CARRIED} | {"key": None, "sha256": None}
        if row["status"] != Status.FETCHED:
            return result
        result["source_sha256"] = row["sha256"]
        if duplicate is not None:
            result["duplicate_of"] = duplicate["duplicate_of"]
            return result | Fate(Status.DUPLICATE, duplicate["reason"]).columns
        data = read_span(originals, span_of(row))
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise DamagedError(f"{originals.name}: damaged at post {row['post_id']}.")
        source, size = self.recipe.source, (row["width"], row["height"])
        prepared = prepare_picture(
            data, *size, source.layout, source.max_pixels, self.recipe.prepare
        )
        result |= prepared.fate.columns
        if prepared.box is not None and prepared.letterbox is not None:
            result |= {f"crop_{edge}": getattr(prepared.box, edge) for edge in EDGES}
            result["letterbox"] = str(prepared.letterbox)
        if prepared.fate.status == Status.KEPT:
            result |= add_sample(key_of(row["post_id"]), _members(row, prepared), shard)
        return result


def _members(row: Row, prepared: Prepared) -> dict[str, bytes]:
    """Return a sample's members by name, in the tar's order.

    The description has the same keys in every sample, none null.
    """
    description = {
        name: row[name]
        for name in ("post_id", "split", "md5", "character", "rating", "tags", "width", "height")
    }
    return {
        "color": prepared.color,
        "json": orjson.dumps(description),
        **prepared.sketches,
    }


def add_sample(key: str, members: dict[str, bytes], shard: ShardWriter) -> Row:
    """Write a sample's members side by side; return its key, their places and their joint hash."""
    digest = hashlib.sha256()
    columns: Row = {"key": key}
    for member, data in members.items():
        span = shard.add(f"{key}.{extension_of(member)}", data)
        digest.update(data)
        columns |= {f"{member}_offset": span.offset, f"{member}_size": span.size}
    return columns | {"sha256": digest.hexdigest()}
