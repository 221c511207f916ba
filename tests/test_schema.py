import pyarrow as pa
import pytest

from pipeline.schema import (
    MEMBERS,
    RAW,
    SAMPLES,
    build_table,
    extension_of,
    is_table_of,
    members_of,
    samples_schema,
)


def test_further_sketches_come_after_the_columns_of_every_sample() -> None:
    members = (*MEMBERS, "sketch_broad", "sketch_ink")
    schema = samples_schema(members)
    assert schema.names[: len(SAMPLES)] == SAMPLES.names
    assert schema.names[len(SAMPLES) :: 2] == ["sketch_broad_offset", "sketch_ink_offset"]
    assert members_of(schema) == members
    assert samples_schema(MEMBERS) == SAMPLES
    assert members_of(SAMPLES) == MEMBERS
    assert [extension_of(member) for member in members] == [
        "color.jpg",
        "json",
        "sketch.png",
        "sketch_broad.png",
        "sketch_ink.png",
    ]


def with_columns(*names: str) -> pa.Schema:
    return pa.schema([*SAMPLES, *[pa.field(name, pa.int64()) for name in names]])


@pytest.mark.parametrize(
    "schema",
    [
        RAW,
        with_columns("sketch_a_offset"),
        with_columns("sketch_a_size", "sketch_a_offset"),
        with_columns("ink_offset", "ink_size"),
        with_columns("sketch_../a_offset", "sketch_../a_size"),
        with_columns("sketch_b_offset", "sketch_b_size", "sketch_a_offset", "sketch_a_size"),
        with_columns("sketch_a_offset", "sketch_a_size", "sketch_a_offset", "sketch_a_size"),
        pa.schema([*with_columns("sketch_a_offset"), pa.field("sketch_a_size", pa.string())]),
        pa.schema([*list(SAMPLES)[1:], *with_columns("sketch_a_offset", "sketch_a_size")]),
    ],
)
def test_other_columns_are_no_samples(schema: pa.Schema) -> None:
    with pytest.raises(ValueError, match="columns"):
        members_of(schema)
    assert not is_table_of(schema, SAMPLES)


def test_only_samples_may_have_further_columns() -> None:
    schema = samples_schema((*MEMBERS, "sketch_ink"))
    assert is_table_of(schema, SAMPLES)
    assert is_table_of(RAW, RAW)
    assert not is_table_of(schema, RAW)
    assert not is_table_of(SAMPLES, schema)


def test_a_row_with_a_column_that_is_not_named_is_a_bug() -> None:
    with pytest.raises(ValueError, match="sketch_ink_offset"):
        build_table([{"sketch_ink_offset": 1}], SAMPLES)
