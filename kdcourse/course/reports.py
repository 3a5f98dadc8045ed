"""What a run leaves for programs: all claims in `claims.json`, and `junit.xml` for continuous integration."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from kdcourse.course.fingerprint import versions
from kdcourse.course.run import Outcome
from kdcourse.files import written_whole


def write_claims(outcomes: Sequence[Outcome], out: Path, device: str) -> Path:
    """Write `claims.json`: versions, device, and by lesson each claim with its value and what it is held against.

    A lesson that failed has the claims that it made before. No time and no path: a run that gives the same numbers
    gives the same file.
    """
    path = out / "claims.json"
    with written_whole(path) as unfinished:
        unfinished.write_text(
            json.dumps(claims_report(outcomes, device), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )
    return path


def claims_report(outcomes: Sequence[Outcome], device: str) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "device": device,
        "lessons": {outcome.lesson.name: outcome.claims for outcome in outcomes},
    }


def write_junit(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `junit.xml`: a suite for each lesson, in it a case for the run as a whole and one for each claim."""
    report = JUnitXml("kdcourse run")
    for outcome in outcomes:
        suite = TestSuite(outcome.lesson.name)
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
    case = TestCase(name, classname=outcome.lesson.name, time=round(seconds, 1))
    if message:
        case.result = [Failure(f"{message} (cell {cell})" if cell else message)]
    return case
