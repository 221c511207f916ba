import pytest

from pipeline.records import REASONS, Fate, Status, key_of


def test_a_fate_comes_from_the_closed_vocabulary() -> None:
    assert str(Fate(Status.FILTERED, "rating")) == "filtered/rating"
    assert str(Fate(Status.KEPT)) == "kept"
    with pytest.raises(ValueError, match="no reason 'bored'"):
        Fate(Status.FILTERED, "bored")
    assert set(REASONS) == set(Status)


def test_keys_are_nine_digits_or_more() -> None:
    assert key_of(7) == "000000007"
    assert key_of(12_345_678_901) == "12345678901"
