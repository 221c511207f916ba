import pytest

from pipeline.words import counted, did_you_mean, sized


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


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (27_949_000, "27.9 MB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (1_340_000_000, "1.3 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_bytes_in_the_unit_that_fits(num_bytes: int, words: str) -> None:
    assert sized(num_bytes) == words


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("vla", " (did you mean 'val'?)"),
        ("TRAIN", " (did you mean 'train'?)"),
        ("everything", ""),
        ("", ""),
    ],
)
def test_a_mistyped_word_is_told_from_another(word: str, hint: str) -> None:
    assert did_you_mean(word, ("train", "val", "test")) == hint
