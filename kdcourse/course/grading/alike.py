"""Answers that read alike, whatever their names and spacing. It is said as a note: there are many innocent reasons."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdcourse.hashing import hash_text

SMALL = 50
"""Nodes of syntax below which two people write the same without knowing of each other."""


@dataclass(frozen=True)
class Likeness:
    """What is left of an answer without names, comments and spacing, and how much that is."""

    digest: str
    size: int


def fingerprint(code: str) -> dict[str, Any]:
    """`Likeness` as plain data."""
    tree = ast.parse(code)
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"n{len(names)}")

    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = renamed(node.id)
        elif isinstance(node, ast.arg):
            node.arg, node.annotation = renamed(node.arg), None
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.name = renamed(node.name)
            if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return {"digest": hash_text(ast.dump(tree)), "size": sum(1 for _ in ast.walk(tree))}


def notes(digests: Mapping[str, str], answers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, list[str]]:
    """What to say of files that are alike, by file; nothing of those without an answer, which are as handed out.

    Args:
        digests: SHA-256 of each file.
        answers: for each file and exercise, the `fingerprint` of its answer.
    """
    said: dict[str, list[str]] = defaultdict(list)
    by_digest: dict[str, list[str]] = defaultdict(list)
    for file, digest in digests.items():
        if answers[file]:
            by_digest[digest].append(file)
    for files in by_digest.values():
        for file in files if len(files) > 1 else ():
            twins = ", ".join(other for other in files if other != file)
            said[file].append(f"The same file, byte for byte, as {twins}.")
    for group in _groups(answers):
        for file in group:
            others = [other for other in group if digests[other] != digests[file]]
            if others:
                said[file].append(
                    f"Its answers read like those of {', '.join(others)}, names aside; there may be a good reason."
                )
    return dict(said)


def _groups(answers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """Files all of whose answers are the same, where that is more than chance gives."""
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for file, found in answers.items():
        large = {name: each["digest"] for name, each in found.items()}
        if sum(each["size"] for each in found.values()) >= SMALL * max(1, len(found)) or len(found) > 2:  # noqa: PLR2004
            alike[tuple(sorted(large.items()))].append(file)
    return [files for key, files in alike.items() if key and len(files) > 1]
