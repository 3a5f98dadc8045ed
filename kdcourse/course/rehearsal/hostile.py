"""Notebooks that attack whoever grades them: what each does, and the line that it should get nevertheless."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from kdcourse.course.rehearsal.answers import WRONG, Answer, Asked, right


@dataclass(frozen=True)
class Attack:
    """What the answer to one exercise does before it gives the right value."""

    name: str
    code: Callable[[str], str]
    """Statements, given the path of a file that must not change."""
    verdicts: tuple[str, ...]
    needs: str = ""
    """The rule (of `kdcourse.course.grading.confine.RULES`) without which it would do harm, so it is left out."""

    def answer(self, asked: Asked, canary: str) -> Answer:
        """The solution, with the attack at the head of its function."""
        tree = ast.parse(right(asked).code)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == asked.solved:
                node.body = [*ast.parse(self.code(canary)).body, *node.body]
        return Answer(ast.unparse(tree), self.verdicts)


ATTACKS = (
    Attack(
        "tampers-with-the-check",
        lambda canary: (
            "import kdcourse.course.exercises.diagnosis as diagnosis\n"
            "diagnosis.diagnose = diagnosis.check = lambda *given: diagnosis.Diagnosis('passed', 'yes')\n"
            "return None"
        ),
        WRONG,
    ),
    Attack("never-ends", lambda canary: "while True:\n    pass", ("timed out",)),
    Attack("starts-processes", lambda canary: "import os\nwhile True:\n    os.fork()", ("error",), "processes"),
    Attack(
        "writes-outside",
        lambda canary: (
            "import os\n"
            f"for act in (lambda: open({canary!r}, 'w').write('mine'), lambda: os.remove({canary!r})):\n"
            "    try:\n        act()\n    except OSError:\n        pass"
        ),
        ("passed",),
        "writing",
    ),
    Attack("prints-much", lambda canary: "print('x' * 10_000_000)", ("passed",)),
    Attack(
        "eats-memory", lambda canary: "kept = []\nwhile True:\n    kept.append(bytearray(10**8))", ("error",), "memory"
    ),
    Attack("leaves", lambda canary: "import os\nos._exit(0)", ("error",)),
    Attack(
        "fills-the-disk",
        lambda canary: "for place in range(100):\n    open(str(place), 'ab').write(bytes(10**7))",
        ("error", "timed out"),
        "large files",
    ),
    Attack("sleeps", lambda canary: "import time\nwhile True:\n    time.sleep(1)", ("timed out",)),
)
"""Attacks by the code of an answer."""

COPIED = "copied"
NO_NOTEBOOK = "no-notebook"
ANOTHER_PLACE = "leads-out-of-its-archive"
FILES = (COPIED, NO_NOTEBOOK, ANOTHER_PLACE)
"""Attacks by the file itself: somebody else's under another name, text that is no notebook, a path to another place."""
