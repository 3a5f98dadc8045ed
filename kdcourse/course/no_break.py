"""Where a line of a slide is not broken: within a short cell of a table, and within a short expression."""

from __future__ import annotations

import re

SHORT_CELL = re.compile(r"(?<=\| )`?[^|$\n`]{1,15}`?(?= \|)")
INTERVAL = re.compile(r"(?<=\| )[-+−\d][^|$\n]{1,22}(?= \|)")
FEW_COLUMNS = 4
FORMULA = re.compile(r"(\$[^$]*\$)")
EXPRESSION = re.compile(r"(?<!\S)[^\s|]{1,8}(?: [=≈<>·×−+/] [^\s|]{1,8})+(?!\S)")
LONGEST = 24
"""Characters of an expression that stays in one line."""


def unbroken(block: str) -> str:
    """A block of Markdown; a paragraph, a list or a table has no-break spaces and hyphens where it shall stay whole."""
    if block.startswith(("```", "$$", "#")):
        return block
    if block.startswith("|"):
        block = SHORT_CELL.sub(_joined, block)
        if block.partition("\n")[0].count("|") <= FEW_COLUMNS + 1:
            block = INTERVAL.sub(_joined, block)
    parts = FORMULA.split(block)
    parts[::2] = [EXPRESSION.sub(_short_joined, part) for part in parts[::2]]
    return "".join(parts)


def _joined(found: re.Match[str]) -> str:
    spaced = found[0].replace(" ", "\N{NO-BREAK SPACE}")
    return spaced if "`" in spaced else re.sub(r"(?<=[^\W\d])-(?=[^\W\d])", "\N{NON-BREAKING HYPHEN}", spaced)


def _short_joined(found: re.Match[str]) -> str:
    return _joined(found) if len(found[0]) <= LONGEST else found[0]
