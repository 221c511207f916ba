from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.counts import count_fates, fates_of

WORD = pa.dictionary(pa.int8(), pa.string())


def words(*texts: str) -> pa.Array:
    return pa.array(texts).dictionary_encode().cast(WORD)


def test_fates_are_counted_over_row_groups_that_number_their_words_otherwise(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.parquet"
    first = pa.table({"status": words("kept", "missing"), "reason": words("", "http_404")})
    second = pa.table({"status": words("missing", "kept"), "reason": words("no_url", "")})
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        writer.write_table(second)
    rows = pq.ParquetFile(path).read()
    assert count_fates(rows) == {"kept": 2, "missing/http_404": 1, "missing/no_url": 1}
    assert fates_of(rows).to_pylist() == ["kept", "missing/http_404", "missing/no_url", "kept"]
