"""Find results that somebody typed into prose, where they stay when the measurement changes.

A number looks like a result if it has decimals, a percent sign, or counts points. It is backed if some cell of the same
notebook holds it: a claim, an output that nbval compares, or a number in the code itself. Prose may round, leave out a
sign, and write 0.42 as 42%. Code, quotations and questions (a *Predict* offers answers that are wrong) state nothing.
"""

import ast
import re

from cells import code_cells, prose_cells, said

from kdcourse.course.claims import claims_of
from kdcourse.course.not_compared import is_not_compared

NO_STATEMENT = re.compile(
    r"```.*?```|^    .*?$|`[^`]*`|<code>.*?</code>|\$\$.*?\$\$|\$[^$\n]+\$"  # code and formulas
    r'|"[^"]*"'  # somebody else's words
    r"|\b(torch|torchdistill|transformers|trl|section) \d+(\.\d+)*( and \d+\.\d+)?",  # versions and parts of a paper
    re.DOTALL | re.MULTILINE,
)
QUESTION = re.compile(r"[^.?!:\n](?:[^.?!:]|[.:](?!\s|\*))*\?")
NUMBER = re.compile(r"(?<![\w.,])(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)(?P<unit>%|\s+points)?(?![\w]|\.\d)")


def unbacked_numbers(notebook, expectations=None):
    """Each number of the prose that looks like a result and that no cell holds, with the id of its cell."""
    known = numbers_in_cells(notebook, expectations)
    return [
        f"{cell.id}: {written}"
        for cell in prose_cells(notebook)
        for written, value, decimals in results_in(cell.source)
        if not any(abs(number - value) <= 0.5001 * 10.0**-decimals for number in known)
    ]


def results_in(prose):
    """(as written, value, decimals) of each number that looks like a result; percents and points are hundredths."""
    for found in NUMBER.finditer(QUESTION.sub(" ", NO_STATEMENT.sub(" ", prose))):
        decimals = len(found["digits"].partition(".")[2])
        if found["unit"]:
            yield found[0], number_of(found) / 100, decimals + 2
        elif decimals:
            yield found[0], number_of(found), decimals


def number_of(found):
    return float(found["digits"].replace(",", ""))


def numbers_in_cells(notebook, expectations):
    """Every number, without its sign, of the code, the claims and the outputs that are compared."""
    numbers = set()
    for cell in code_cells(notebook):
        constants = (node.value for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Constant))
        numbers |= {abs(value) for value in constants if type(value) in {int, float}}
        if not is_not_compared(cell):
            printed = " ".join(str(said(output)) for output in cell.outputs)
            numbers |= {number_of(found) / (100 if found["unit"] else 1) for found in NUMBER.finditer(printed)}
    for name, entry in held_against(notebook, expectations).items():
        stated = (entry.get(key) for key in ("expected", "at_least", "at_most", "answer"))
        unit = 100 if re.search(r"%|\bpoints\b", name) else 1
        numbers |= {abs(number) / unit for number in stated if isinstance(number, int | float)}
    return numbers


def held_against(notebook, expectations):
    """By name, what the notebook's claims show they are held against, and what its file of expectations says."""
    entries = {claim["name"]: claim for claim in claims_of(notebook)}
    if expectations is not None:
        entries |= {name: vars(entry) for name, entry in {**expectations.claims, **expectations.predictions}.items()}
    return entries
