"""All claims of a run in one file, with what they were measured with."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from kdcourse.claims import claims_of
from kdcourse.course.run import Outcome
from kdcourse.files import written_whole

PACKAGES = ("kdcourse", "torch", "transformers", "datasets", "numpy", "scipy")


def write_claims(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `claims.json`: versions, device, and by lesson each claim with its value and what it is held against.

    A lesson that failed has the claims that it made before.
    """
    report = {
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "device": _device(),
        "lessons": {outcome.lesson.name: _claims(outcome) for outcome in outcomes},
    }
    path = out / "claims.json"
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def _claims(outcome: Outcome) -> list[dict[str, Any]]:
    return claims_of(nbformat.read(outcome.executed, as_version=4)) if outcome.executed.exists() else []


def _device() -> str:
    """What the lessons ran on: they take a GPU if there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
