"""What a run leaves for continuous integration: `junit.xml`, a test case for each lesson and each claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from kdcourse.course.outcome import Outcome
from kdcourse.course.text import visible
from kdcourse.files import written_whole


def write_junit(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `junit.xml`: a suite for each lesson, in it a case for the run as a whole and one for each claim."""
    report = JUnitXml("kdcourse run")
    for outcome in outcomes:
        suite = TestSuite(visible(outcome.lesson.name))
        suite.add_testcase(_case(outcome, "runs to its end", outcome.problem, outcome.record.cell, outcome.seconds))
        for claim in outcome.claims:
            message = "" if claim["holds"] else f"It is {claim['value']}."
            suite.add_testcase(_case(outcome, claim["name"], message, claim["cell"]))
        report.add_testsuite(suite)
    path = out / "junit.xml"
    with written_whole(path) as unfinished:
        report.write(str(unfinished))
    return path


def _case(outcome: Outcome, name: str, message: str, cell: str, seconds: float = 0.0) -> TestCase:
    case = TestCase(visible(name), classname=visible(outcome.lesson.name), time=round(seconds, 1))
    if message:
        case.result = [Failure(visible(f"{message} (cell {cell})" if cell else message))]
    return case
