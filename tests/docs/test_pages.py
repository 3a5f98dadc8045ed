"""What the pages promise: a README for a visitor, links that lead somewhere, names that exist."""

import importlib
import re

import pytest
from pages import PAGES, ROOT, anchors_of, links_of, name_of, prose_of

from kdcourse.course.exercises import all_exercises
from kdcourse.course.lessons import course_lessons

README = ROOT / "README.md"
WORDS = 900
MOVED = re.compile(
    r"\bkdcourse(?:\.(?:data|plots|capstone|arms|claims|exercises|cli|doctor|assets|models|metrics|verdict|logits)\b"
    r"|/(?:resources|plots|assets\.toml)\b)|\btest_(?:arms|capstone|plots)\b"
)
"""What had another name before the package had three wings."""
CHANGES = ROOT / "CHANGELOG.md"

LINKS = [pytest.param(page, target, id=f"{name_of(page)} → {target}") for page in PAGES for target in links_of(page)]


def test_the_readme_is_short():
    """A front door that nobody reads to its end."""
    assert len(README.read_text(encoding="utf-8").split()) <= WORDS


def test_the_readme_has_a_picture_with_words():
    """A wall of text; a picture that says nothing to a reader who cannot see it."""
    top = README.read_text(encoding="utf-8").partition("\n## ")[0]
    ((alt, path),) = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", top)
    assert len(alt) > 40
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_somewhere(page, target):
    """A page or a heading that was renamed."""
    if target.startswith("https://"):
        return
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists()
    assert not anchor or anchor in anchors_of(there)


def test_every_page_is_in_the_map():
    """A page that no reader finds."""
    mapped = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in links_of(ROOT / "docs" / "index.md")}
    assert {page for page in PAGES if name_of(page) != "docs/index.md"} <= mapped


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGES], ids=name_of)
def test_no_page_uses_a_name_that_has_moved(page):
    """An import path of an older version, copied by a reader."""
    assert MOVED.findall(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGES], ids=name_of)
def test_every_name_of_the_package_exists(page):
    """A function or a module that was renamed after it was written about."""
    names = set(re.findall(r"`(kdcourse(?:\.\w+)+)`", prose_of(page)))
    assert [name for name in names if not exists(name)] == []


def exists(name):
    """Whether a dotted name can be imported, as a module or as what a module holds."""
    thing = importlib.import_module("kdcourse")
    for place, part in enumerate(parts := name.split(".")[1:], start=2):
        if hasattr(thing, part):
            thing = getattr(thing, part)
            continue
        try:
            thing = importlib.import_module(".".join(["kdcourse", *parts[: place - 1]]))
        except ImportError:
            return False
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGES], ids=name_of)
def test_every_file_that_is_named_exists(page):
    """A path that was right before a file moved. `14` stands for a lesson that somebody will write."""
    named = re.findall(r"`((?:kdcourse|tests|notebooks|docs|benchmarks|\.github)/[\w./-]*\w)`", prose_of(page))
    missing = [path for path in named if not (ROOT / path).exists() and not (page.parent / path).exists()]
    assert [path for path in missing if "14" not in path] == []


def test_the_tests_own_page_names_files_that_exist():
    """A test that moved into another folder."""
    named = re.findall(r"`([\w/]+\.py)(?:::\w+)?`", (ROOT / "tests" / "README.md").read_text(encoding="utf-8"))
    of_the_package = {path.name for path in (ROOT / "kdcourse").glob("*.py")}
    assert [name for name in named if not (ROOT / "tests" / name).is_file() and name not in of_the_package] == []


def rows_of(page, columns):
    """The rows of a page's tables that have so many columns, as lists of fields."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [[field.strip() for field in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if len(row) == columns]


def test_the_workshops_minutes_are_those_of_the_lessons():
    """A timetable of an older version of the course."""
    minutes, exercises = {}, list(all_exercises().values())
    for row in rows_of(ROOT / "docs" / "instructor" / "plans.md", 4)[2:]:
        minutes[row[0]] = [int(field) for field in row[1:]]
    expected = {}
    for lesson in course_lessons():
        header = prose_of_first_cell(lesson)
        own = [exercise for exercise in exercises if exercise.lesson == lesson.number]
        stated = int(re.search(r"(\d+) minutes", header)[1])
        expected[lesson.number] = [stated, len(own), sum(exercise.minutes for exercise in own)]
    assert minutes == expected


def prose_of_first_cell(lesson):
    import nbformat

    return nbformat.read(lesson.path, as_version=4).cells[0].source


def test_the_workshops_plans_add_up():
    """Half a day that is a day."""
    page = ROOT / "docs" / "instructor" / "plans.md"
    minutes = {row[0]: int(row[1]) for row in rows_of(page, 4)[2:]}
    plans = [row for row in rows_of(page, 3) if row[2].isdigit()]
    assert plans
    for _, lessons, together in plans:
        assert sum(minutes[number] for number in lessons.split(", ")) == int(together)


def test_the_errata_name_tests_that_exist():
    """A row whose test was renamed; a row of the table that was lost."""
    rows = [row for row in rows_of(ROOT / "docs" / "errata.md", 5) if row[0].isdigit()]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 20)]
    for row in rows:
        file, _, test = row[4].strip("`").rpartition("::")
        source = (ROOT / "tests" / (file or "test_facts.py")).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.MULTILINE), row
        assert file or test.startswith(f"test_row_{row[0]}_")
