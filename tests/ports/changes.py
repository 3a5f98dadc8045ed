"""What a port changes in a script, counted and laid side by side for the documentation.

python tests/ports/changes.py     prints the tables of docs/porting.md
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SCRIPTS = ("gkd", "image_distillation", "run_glue")
WHEN = ("before", "after")
MOST_SHOWN = 3
"""Of more lines that go at once, the first and the last are shown."""


class Change(NamedTuple):
    """Neighbouring lines that differ, without empty ones."""

    before: list[str]
    after: list[str]


def changes(name):
    """Where the port of a script differs from it."""
    before, after = ((HERE / f"{when}_{name}.py").read_text(encoding="utf-8").splitlines() for when in WHEN)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    different = [place for tag, *place in matcher.get_opcodes() if tag != "equal"]
    found = (Change(_lines(before[a:b]), _lines(after[c:d])) for a, b, c, d in different)
    return [change for change in found if change.before or change.after]


def _lines(lines):
    return [line.strip() for line in lines if line.strip()]


def written(name):
    """How many lines the user writes."""
    return sum(len(change.after) for change in changes(name))


def removed(name):
    """How many lines of the script are no longer there, those that others take the place of included."""
    return sum(len(change.before) for change in changes(name))


def table(name):
    """The changes as a Markdown table of two columns, a row for each line."""
    rows = ["| before | after |", "|---|---|"]
    for before, after in changes(name):
        shown = before if len(before) <= MOST_SHOWN else [before[0], f"… {len(before) - 2} lines …", before[-1]]
        for number in range(max(len(shown), len(after))):
            cells = (_cell(lines[number]) if number < len(lines) else "" for lines in (shown, after))
            rows.append("| {} | {} |".format(*cells))
    return "\n".join(rows)


def _cell(line):
    return line if line.startswith("…") else f"`{line}`".replace("|", "\\|")


if __name__ == "__main__":
    for each in SCRIPTS:
        print(f"{each}: {written(each)} written, {removed(each)} removed\n\n{table(each)}\n")
