import pytest

from pipeline.words import counted


@pytest.mark.parametrize(
    ("number", "nouns", "words"),
    [
        (0, ("shard",), "0 shards"),
        (1, ("shard",), "1 shard"),
        (2, ("shard",), "2 shards"),
        (1, ("sketch", "sketches"), "1 sketch"),
        (5, ("shard is", "shards are"), "5 shards are"),
    ],
)
def test_a_number_and_what_it_counts(number: int, nouns: tuple[str, ...], words: str) -> None:
    assert counted(number, *nouns) == words
