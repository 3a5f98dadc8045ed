"""What a run leaves for programs: all its claims, in `claims.json`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdcourse.course.compare import FORMAT
from kdcourse.course.fingerprint import versions
from kdcourse.course.outcome import Outcome
from kdcourse.files import write_whole


def write_claims(outcomes: Sequence[Outcome], out: Path, device: str) -> Path:
    """Write `claims.json`: versions, device, and by lesson each claim with its value and what it is held against.

    A lesson that failed has the claims that it made before. Lessons of an earlier run that was made with something else
    are named with what that was. No time and no path: a run that gives the same numbers gives the same file.
    """
    path = out / "claims.json"
    write_whole(path, json.dumps(claims_report(outcomes, device), indent=1, ensure_ascii=False, allow_nan=False))
    return path


def claims_report(outcomes: Sequence[Outcome], device: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "versions": versions(),
        "device": device,
        "lessons": {outcome.lesson.name: outcome.claims for outcome in outcomes},
        "earlier_runs": {outcome.lesson.name: dict(outcome.differs) for outcome in outcomes if outcome.differs},
    }
