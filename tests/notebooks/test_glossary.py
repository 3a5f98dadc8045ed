"""No lesson uses a term before the cell that introduces it, and the glossary says which cell that is."""

import re
from pathlib import Path

import nbformat
import pytest

from kdcourse.course.lessons import all_lessons

PAGE = Path(__file__).parents[2] / "docs" / "glossary.md"
ROW = re.compile(
    r"^\| (?P<term>[^|]+) \| (?P<meaning>[^|]+) \| \[(?P<lesson>\d\d)\]\([^)]+\) `(?P<cell>[\w-]+)` \|$", re.M
)
NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|<[^>]+>|\]\([^)]*\)", re.DOTALL)


def rows():
    return [found.groupdict() for found in ROW.finditer(PAGE.read_text(encoding="utf-8"))]


def prose():
    """(lesson, cell, text) of all that is read, in order; not what a header promises, nor what comes next."""
    for lesson in all_lessons():
        for cell in nbformat.read(lesson.path, as_version=4).cells[1:]:
            if cell.cell_type == "markdown":
                text = NO_PROSE.sub(" ", cell.source).partition("**What is next")[0].partition("## What is next")[0]
                yield lesson.number, cell.id, text


READ = list(prose())


def uses(term, text):
    """Whether a text has a term, in the singular or the plural, in any case."""
    words = r"\s+".join(re.escape(word) for word in term.split())
    return re.search(rf"(?<![\w-]){words}(s|es)?(?![\w-])", text, re.IGNORECASE) is not None


def test_every_lesson_introduces_terms():
    """A glossary that nobody fills, and rules that hold for none."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(rows()) == len([line for line in lines if not re.match(r"\|( term|---)", line)]), "a row is not one"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["term"])
def test_no_term_is_used_before_it_is_introduced(row):
    """A word that the reader is meant to know from a lesson to come."""
    term = row["term"].partition(" (")[0].strip("* ")
    first = next(((lesson, cell) for lesson, cell, text in READ if uses(term, text)), None)
    assert first == (row["lesson"], row["cell"])


def test_no_term_is_introduced_twice():
    """Two meanings of one word."""
    terms = [row["term"] for row in rows()]
    assert len(terms) == len(set(terms))
