"""Taking posts out of one file or shard at a time: whole or not at all, and nothing the next time.

What is left of a post is what ``removals`` says.
"""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pipeline.disk import replacing
from pipeline.errors import DamagedError
from pipeline.planning.plan import hash_table, read_plan, write_plan
from pipeline.planning.plan_check import read_about
from pipeline.removals import clear_posts, count_cleared, count_removed
from pipeline.schema import LEDGER, RAW, Row, extension_of, members_of, place_columns
from pipeline.shards.rows import check_seal, read_info, read_rows, write_rows
from pipeline.shards.shard import ShardWriter, read_shard, read_span, rows_path, span_of, tar_path
from pipeline.stages.ledger import write_ledger
from pipeline.work import Work


def clear_plan(path: Path, post_ids: Collection[int], fingerprint: str) -> None:
    """Take posts out of a plan; ``fingerprint`` is its new one, "" to leave the one it has."""
    info = read_about(path)
    plan = read_plan(path)
    cleared = clear_posts(plan, post_ids)
    num_removed = count_cleared(cleared) - count_cleared(plan)
    info["fingerprint"] = fingerprint or info.get("fingerprint")
    info["counts"] = count_removed(info["counts"], num_removed)
    info["content"] = hash_table(cleared)
    write_plan(path, cleared, info)


def clear_stage(
    work: Work, schema: pa.Schema, name: str, post_ids: Collection[int], fingerprint: str
) -> None:
    """Take posts out of a shard of originals, with its ledger, or of samples.

    Args:
        work: the folder with its tar and rows.
        schema: ``RAW`` or ``SAMPLES``.
        name: the shard's; it need not be there.
        post_ids: those that are not in it do not matter.
        fingerprint: that it has then; "" to leave the one it has.

    Raises:
        DamagedError: where the members that stay are not what the rows say.
    """
    directory = work.raw_dir if schema is RAW else work.samples_dir
    _clear_shard(directory, name, schema, post_ids)
    ledger = rows_path(work.ledger_dir, name)
    if schema is RAW and ledger.is_file():
        write_ledger(work.ledger_dir, name, clear_posts(read_rows(ledger, LEDGER), post_ids))
    if fingerprint:
        _write_fingerprint(directory, name, schema, fingerprint)


def _clear_shard(directory: Path, name: str, schema: pa.Schema, post_ids: Collection[int]) -> None:
    """Write a shard anew without some posts' members; the others' bytes are copied and checked.

    Raises:
        DamagedError: where these are not what the rows say.
    """
    if not rows_path(directory, name).is_file():
        tar_path(directory, name).unlink(missing_ok=True)  # it counts for nothing, and has bytes
        return
    check_seal(rows_path(directory, name))
    table, info = read_shard(directory, name, schema)
    cleared = clear_posts(table, post_ids)
    if count_cleared(cleared) == count_cleared(table):
        return
    members = ("",) if schema is RAW else members_of(table.schema)
    rows = cleared.to_pylist()
    with (
        ShardWriter(directory, name) as shard,
        tar_path(directory, name).open("rb") as tar,
    ):
        for row in rows:
            if row["key"] is not None:
                _copy_members(row, members, tar, shard)
        shard.commit(pa.Table.from_pylist(rows, schema=table.schema), info)


def _copy_members(row: Row, members: Iterable[str], tar: BinaryIO, shard: ShardWriter) -> None:
    """Copy a post's members, and let its row say where they lie now."""
    digest = hashlib.sha256()
    for member in members:
        data = read_span(tar, span_of(row, member))
        digest.update(data)
        extension = extension_of(member) if member else row["format"]
        offset, _ = place_columns(member)
        row[offset] = shard.add(f"{row['key']}.{extension}", data).offset
    if digest.hexdigest() != row["sha256"]:
        raise DamagedError(f"{tar.name}: damaged at post {row['post_id']}; run `repair` first.")


def _write_fingerprint(directory: Path, name: str, schema: pa.Schema, fingerprint: str) -> None:
    """Write a shard's new fingerprint into its rows."""
    path = rows_path(directory, name)
    info = read_info(path)
    if info.get("fingerprint") != fingerprint:
        write_rows(path, [read_rows(path, schema)], info | {"fingerprint": fingerprint})


def clear_differences(path: Path, post_ids: Collection[int]) -> None:
    """Take posts' lines, which hold hashes, out of ``differences.csv``."""
    if not path.is_file():
        return
    gone = {str(post_id).encode() for post_id in post_ids}
    lines = path.read_bytes().splitlines(keepends=True)
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(x for x in lines if x.partition(b",")[0] not in gone))
