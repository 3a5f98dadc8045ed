"""Things to turn: scripts of `_static/turn/`, each placed after a cell of a lesson, and all on a page of their own."""

from __future__ import annotations

import html
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcourse.labs.lab07 import Results

ARMS = {"labels": "from labels", "soft-20000": "from teacher"}


@dataclass(frozen=True)
class Turn:
    """One of them, as `turns.toml` declares it."""

    name: str
    title: str
    lesson: str
    cell: str
    text: str
    answers: tuple[str, ...] = ()
    """The predictions whose results somebody could find by turning it."""
    values: dict[str, Any] | list[Any] = field(default_factory=dict)

    def markup(self, static: str) -> str:
        """Its place on a page, with its script; `static` leads to the folder of scripts."""
        script = f'<script defer src="{static}/turn/{self.name}.js"></script>'
        return (
            f'<section class="turn" data-turn="{self.name}" aria-label="{html.escape(self.title, quote=True)}" '
            f'data-values="{html.escape(json.dumps(self.values), quote=True)}"><p><b>{html.escape(self.title)}.</b> '
            f"{html.escape(self.text)}</p><noscript><p>This needs JavaScript.</p></noscript></section>{script}"
        )


def all_turns() -> list[Turn]:
    """In the order of the file; what labs have measured is filled in."""
    declared = tomllib.loads(Path(__file__).with_name("turns.toml").read_text(encoding="utf-8"))
    turns = [Turn(name, **parts) for name, parts in declared.items()]
    return [Turn(**{**vars(turn), "values": _measured()}) if turn.name == "seeds" else turn for turn in turns]


def _measured() -> list[dict[str, Any]]:
    """The test accuracies of five students of each kind, in percent."""
    results = Results.load()
    return [{"name": words, "values": [100 * each for each in results.at_best(arm)]} for arm, words in ARMS.items()]


def turns_page(lessons: dict[str, str]) -> str:
    """All of them on one page; `lessons` has the notebook of each lesson, by its number."""
    parts = ["# Things to turn\n\nEach is computed in your browser, by the formulas of the package."]
    for turn in all_turns():
        link = f"[Lesson {turn.lesson}](../notebooks/{lessons[turn.lesson]}) has the words to it."
        parts.append(f"## {turn.title}\n\n```{{raw}} html\n{turn.markup('../_static')}\n```\n\n{link}")
    return "\n\n".join(parts) + "\n"
