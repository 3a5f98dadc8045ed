"""A lesson takes the time that its header says: reading, predicting, and its exercises."""

import math
import re

from cells import prose_cells

WORDS_A_MINUTE = 200
SHORTEST, LONGEST = 25, 45
REFERENCE = "13"
"""Is read a case at a time."""

NOT_READ = re.compile(r"```.*?```|<details>.*?</details>", re.DOTALL)


def minutes_needed(lesson, notebook):
    """Rounded up to five."""
    words = sum(len(NOT_READ.sub(" ", cell.source).split()) for cell in prose_cells(notebook))
    predictions = sum(
        len(re.findall(r"^predict\(", cell.source, re.MULTILINE)) for cell in notebook.cells if cell.cell_type == "code"
    )
    exercises = sum(exercise.minutes or 0 for exercise in lesson.exercises)
    return 5 * math.ceil((words / WORDS_A_MINUTE + predictions + exercises) / 5)


def test_the_header_tells_how_long_it_takes(lesson, notebook):
    """Forty minutes that are an hour and a half; a lesson that no evening has room for."""
    needed = minutes_needed(lesson, notebook)
    assert lesson.minutes == needed
    assert lesson.number == REFERENCE or SHORTEST <= needed <= LONGEST


def test_an_exercise_says_its_minutes(lesson):
    """An exercise that takes no time."""
    assert all(exercise.minutes for exercise in lesson.exercises)
