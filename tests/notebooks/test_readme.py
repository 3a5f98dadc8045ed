"""What the README and the page of results say of a lesson is what was stored when it ran."""

import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import nbformat
import pytest
from cells import said

from kdcourse.course.lessons import find_lessons
from kdcourse.labs.lab07 import ARMS, Results
from kdcourse.labs.verdict import compare_paired

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

LESSON_00 = RESULTS.partition("\n## Lesson 00")[2].partition("\n## ")[0]
LAB_07 = RESULTS.partition("\n## Lab 07")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def cells():
    """The cells of lesson 00 by id."""
    (lesson,) = find_lessons(["00"])
    return {cell.id: cell for cell in nbformat.read(lesson.path, as_version=4).cells}


def said_by(cell):
    """All outputs of a cell, as text."""
    return "\n".join(said(output) for output in cell.outputs)


def table_rows(text):
    """Each row of the tables in `text` that has numbers, by its first field."""
    rows = [[field.strip() for field in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line]
    return {name: fields for name, *fields in rows if re.search(r"\d", "".join(fields))}


def test_the_table_is_that_of_the_lesson(cells):
    """An accuracy of an older version of the lesson."""
    measured = table_rows(said_by(cells["measure"]))
    assert len(measured) == 3
    for model, (accuracy, parameters, _) in measured.items():
        assert table_rows(LESSON_00)[model] == [accuracy, parameters]


def test_the_gain_is_that_of_the_lesson(cells):
    """A gain that was rounded up on its way to the page."""
    gain, low, high, seeds = re.findall(r"\d+\.\d|\d(?= seeds)", said_by(cells["verdict-numbers"]))
    said_there = " ".join(LESSON_00.split())
    assert f"gains {gain} points (95% interval {low} to {high})" in said_there
    assert (seeds, "over five seeds" in said_there) == ("5", True)


def test_the_conditions_are_those_of_the_lesson(cells):
    """The same numbers, from other data or another budget."""
    labelled, unlabelled = re.findall(r"\d+,\d+", said_by(cells["logits"]))
    assert re.search(f"same {labelled} sentences, and {unlabelled} more\\s", " ".join(LESSON_00.split()))
    (steps,) = re.findall(r"STEPS = (\d+)", cells["train"].source)
    assert f"the same {steps} training steps" in " ".join(LESSON_00.split())


def test_the_table_of_the_lab_is_that_of_its_full_run():
    """Results of an older run, the best seed where the mean belongs, or steps that the test sentences chose."""
    results, rows = Results.load(), table_rows(LAB_07)
    assert list(rows) == ["teacher", *ARMS.values()]
    for arm, words in ARMS.items():
        assert rows[words] == [
            f"{results.best_steps(arm):,}",
            *(
                f"{factor * mean(scores):.{digits}f} ± {factor * stdev(scores):.{digits}f}"
                for factor, digits, scores in (
                    (100, 1, results.at_best(arm)),
                    (100, 1, results.at_best(arm, "agreement")),
                    (100, 1, results.at_best(arm, "calibration_error")),
                    (1, 2, results.at_best(arm, "rater_divergence")),
                )
            ),
        ]
    assert rows["teacher"][1] == f"{100 * results.teacher['test']['accuracy']:.1f}"


def test_what_the_lab_took_and_gained_is_that_of_its_full_run():
    """Minutes of another machine, versions of last year, a gain without its interval."""
    results, said_there = Results.load(), " ".join(LAB_07.split())
    for scores in (results.at_best, results.scores):
        gain = compare_paired(scores("labels"), scores("soft-20000"))
        share = gain.difference / (results.teacher["test"]["accuracy"] - mean(scores("labels")))
        interval = f"(95% interval {100 * gain.low:.1f} to {100 * gain.high:.1f})"
        assert f"{100 * gain.difference:.1f} points {interval}" in said_there
        assert f"{share:.0%} of the gap" in said_there
    assert f"{results.minutes:.0f} minutes of one core" in said_there
    for name, version in results.versions.items():
        assert f"{name} {version}" in said_there


def test_the_readme_has_the_fair_gain_and_its_cost(cells):
    """The larger of two gains at the door, or a gain without what was paid for it."""
    results, door = Results.load(), " ".join(README.split())
    gain = compare_paired(results.at_best("labels"), results.at_best("soft-20000"))
    low, high = (f"{100 * end:.1f}" for end in (gain.low, gain.high))
    assert f"{100 * gain.difference:.1f} points (95% interval {low} to {high})" in door
    labelled, unlabelled = (int(each.replace(",", "")) for each in re.findall(r"\d+,\d+", said_by(cells["logits"])))
    assert f"answers to {labelled + unlabelled:,} sentences, {unlabelled:,} of which nobody labelled" in door
    steps = [f"{results.best_steps(arm):,}" for arm in ("soft-20000", "labels")]
    assert f"{steps[0]} training steps instead of {steps[1]}" in door


MAP = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")


def test_the_map_leads_to_cells_that_exist():
    """A question that leads to a cell which was renamed; a question or a lesson that was forgotten."""
    numbers = defaultdict(set)
    section = ""
    for line in MAP.splitlines():
        section = line if line.startswith("## ") else section
        if found := re.search(r"\| \[\d\d\]\((\w+\.ipynb)\) \| (.*) \|$", line):
            notebook = nbformat.read(ROOT / "notebooks" / found[1], as_version=4)
            assert set(re.findall(r"`([\w-]+)`", found[2])) <= {cell.id for cell in notebook.cells}, line
            numbers[section] |= {int(number) for number in re.findall(r"^\| (\d+) \|", line)}
    people, more, practice, notes = numbers
    assert numbers[people] == set(range(1, 51))
    assert numbers[more] == set(range(1, 20))
    assert numbers[practice] == numbers[notes] == set()


@pytest.mark.parametrize("lesson", find_lessons([]), ids=lambda lesson: lesson.name)
def test_every_lesson_is_listed_with_its_question(lesson):
    """A lesson that nobody finds, or whose question has changed."""
    assert f"| [{lesson.title}](notebooks/{lesson.path.name}) | {lesson.question} |" in README
