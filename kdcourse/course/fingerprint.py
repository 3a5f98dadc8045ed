"""May the outcome of an earlier run stand for a new one? Only if nothing that it depends on has changed."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from kdcourse.course.expectations import expectations_path
from kdcourse.course.lessons import Lesson
from kdcourse.hashing import hash_file, hash_json, hash_tree

PACKAGES = ("kdcourse", "torch", "transformers", "datasets", "numpy", "scipy")
"""Their versions can move a number; they are in every report."""


def versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def circumstances(device: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """What a run was made with, in words for its report."""
    given = {name: str(value) for name, value in parameters.items()}
    return {"python": platform.python_version(), "device": device, **versions(), **given}


def fingerprint(lesson: Lesson, parameters: Mapping[str, Any], device: str) -> str:
    """SHA-256 of what a result depends on: sources, expectations, package, versions, parameters and device."""
    cells = nbformat.read(lesson.path, as_version=4).cells
    path = expectations_path(lesson.number, lesson.path.parent)
    told = {
        "cells": [(cell.id, cell.cell_type, cell.source) for cell in cells],
        "expectations": hash_file(path) if path.is_file() else "",
        "package": package_digest(),
        "python": platform.python_version(),
        "versions": versions(),
        "parameters": dict(parameters),
        "device": device,
    }
    return hash_json(told)


@functools.cache
def package_digest() -> str:
    """SHA-256 over every file of the package; it is read once per process."""
    root = Path(__file__).parents[1]
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return hash_tree(root, files)
