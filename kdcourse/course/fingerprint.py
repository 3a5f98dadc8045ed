"""May the outcome of an earlier run stand for a new one? Only if nothing that it depends on has changed."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from kdcourse.course.lessons import Lesson

PACKAGES = ("kdcourse", "torch", "transformers", "datasets", "numpy", "scipy")
"""Their versions can move a number; they are in every report."""


def versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def fingerprint(lesson: Lesson, parameters: Mapping[str, Any], device: str) -> str:
    """SHA-256 over the notebook's sources, the package's files, all versions, the parameters and the device."""
    cells = nbformat.read(lesson.path, as_version=4).cells
    told = {
        "cells": [(cell.id, cell.cell_type, cell.source) for cell in cells],
        "package": package_digest(),
        "python": platform.python_version(),
        "versions": versions(),
        "parameters": dict(parameters),
        "device": device,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@functools.cache
def package_digest() -> str:
    """SHA-256 over every file of the package; it is read once per process."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
