"""A record is written with the digits that mean anything, and read as it was written."""

import json
from dataclasses import dataclass

import pytest

from kdcourse.labs.record import COMPACT, Record, five_digits, five_places


@dataclass
class Measured(Record):
    scores: dict[str, float]


@dataclass(frozen=True)
class Digits(Record):
    scores: dict[str, float]

    rounded = five_digits
    layout = COMPACT


@dataclass
class Places(Record):
    scores: dict[str, float]

    rounded = five_places


@pytest.mark.parametrize(
    ("kind", "small", "large"),
    [(Measured, 0.0123456789, 123.456789), (Digits, 0.012346, 123.46), (Places, 0.01235, 123.45679)],
)
def test_digits_are_those_that_the_record_keeps(tmp_path, kind, small, large):
    """A loss of 0.00001 that is rounded away; ten digits of noise in each of ten thousand numbers."""
    record = kind({"small": 0.0123456789, "large": 123.456789})
    record.save(tmp_path / "new" / "record.json")
    assert kind.load(tmp_path / "new" / "record.json") == kind({"small": small, "large": large})
    assert record.scores["small"] == 0.0123456789  # what was measured is not changed by writing it


def test_a_record_of_many_numbers_is_compact(tmp_path):
    """A file of which half is blanks."""
    Digits({"a": 1.0}).save(tmp_path / "record.json")
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == '{"scores":{"a":1.0}}\n'


def test_without_a_path_it_is_the_one_that_comes_with_the_package(tmp_path):
    """The record of another lab."""

    class Stored(Measured):
        stored = tmp_path / "stored.json"

    Stored.stored.write_text(json.dumps({"scores": {"a": 0.5}}), encoding="utf-8")
    assert Stored.load().scores == {"a": 0.5}
