"""The tables of `tests/README.md` name tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
README = (TESTS / "README.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", README)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_a_table_names_exists(file, test):
    """A row whose test was renamed or deleted."""
    assert re.search(rf"^def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_entry_has_a_row():
    """An entry that was forgotten: 22 failures of other libraries, 19 rows of errata."""
    failures = README.partition("## What goes wrong elsewhere")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", failures, re.MULTILINE) == [str(number) for number in range(1, 23)]
    errata = README.partition("## What the notes say")[2].partition("\n## ")[0]
    numbers = {
        int(number) for row in re.findall(r"^\| ([\d, ]+) \w", errata, re.MULTILINE) for number in row.split(",")
    }
    assert numbers == set(range(1, 20))
    facts = (TESTS / "test_facts.py").read_text(encoding="utf-8")
    assert {int(number) for number in re.findall(r"^def test_row_(\d+)_", facts, re.MULTILINE)} == set(range(1, 20)) - {
        18
    }
