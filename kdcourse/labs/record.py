"""What a lab has measured, as JSON: a dataclass of `Record` is stored with the package, and read from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from kdcourse.files import write_whole

COMPACT = {"separators": (",", ":")}
"""A layout for very many numbers."""


def five_places(number: str) -> float:
    """0.123456 as 0.12346, and 12.3456789 as 12.34568."""
    return round(float(number), 5)


def five_digits(number: str) -> float:
    """0.123456 as 0.12346, and 12.3456789 as 12.346."""
    return float(f"{float(number):.5g}")


class Record:
    """A base of dataclasses whose fields JSON can hold."""

    stored: ClassVar[Path]
    """Where the record is that comes with the package."""
    rounded: ClassVar[Callable[[str], float]] = float
    """What is kept of a number's digits: those that mean anything."""
    layout: ClassVar[dict[str, Any]] = {"indent": 1}
    """Of the JSON."""

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        rounded = json.loads(json.dumps(asdict(cast("Any", self))), parse_float=type(self).rounded)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(rounded, **self.layout) + "\n")

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """What `save` wrote; the record that comes with the package, if no path is given."""
        return cls(**json.loads((path or cls.stored).read_text(encoding="utf-8")))
