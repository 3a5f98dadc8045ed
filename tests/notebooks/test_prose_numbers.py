"""The rule against results that are typed into prose, on notebooks made for it."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from prose_numbers import unbacked_numbers

from kdcourse.course.claims import METADATA_KEY
from kdcourse.course.not_compared import TAG


def lesson_that_says(prose):
    """A claim of 0.4231 and one of 79.6%, a compared table, a setting, and a measurement that is not compared."""
    claims = [
        {"name": "loss, nats", "expected": 0.4231, "at_least": None, "at_most": None},
        {"name": "accuracy, %", "expected": 79.6, "at_least": None, "at_most": None},
        {"name": "gain, points", "expected": None, "at_least": 1.5, "at_most": None},
    ]
    shown = [new_output("display_data", metadata={METADATA_KEY: claim}) for claim in claims]
    printed = [new_output("stream", text="share 12.5%   factor 1.375")]
    measured = [new_output("stream", text="accuracy 76.2%")]
    return new_notebook(
        cells=[
            new_markdown_cell(prose, id="prose"),
            new_code_cell("alpha = 0.3", outputs=[*shown, *printed]),
            new_code_cell("train()", outputs=measured, metadata={"tags": [TAG]}),
        ]
    )


@pytest.mark.parametrize(
    "number",
    ["76.2%", "76.2", "3.4 points", "3\npoints", "0.43", "−0.417", ".762", "1,024.5", "78%", "(0.91)", "**0.91**"],
)
def test_a_result_that_no_cell_holds_is_found(number):
    """An accuracy copied from a run that nobody can repeat, in any of the ways in which people write one."""
    assert unbacked_numbers(lesson_that_says(f"The student reaches {number} in the end.")) == [
        f"prose: {number.strip('−()*')}"
    ]


@pytest.mark.parametrize(
    "place", ["Is it 0.1? No, 0.91.", "It says `0.1`, and that is 0.91.", 'He said "0.1". It is 0.91.']
)
def test_what_stands_beside_a_question_or_code_is_still_a_statement(place):
    """An cell that takes the rest of its line with it."""
    assert unbacked_numbers(lesson_that_says(place)) == ["prose: 0.91"]


@pytest.mark.parametrize(
    "prose",
    [
        "The loss is 0.4231 nats, so about 0.42, or 42% of a nat.",
        "79.6% are right, nearly 80%.",
        "It gains 1.5 points or more.",
        "12.5%, a factor of 1.375, about 1.4, at alpha = 0.3.",
        "**Predict.** At T = 2, is it 0.7, 0.8 or 90%?",
        "    loss = 0.123 · x\n\nand `0.456`, and\n\n```\n0.789\n```",
        'People say "use 0.9" and go on.',
        "Since transformers 4.46; torchdistill 1.1.5; section 2 and 2.1; 8,103 sentences; lesson 04.",
    ],
)
def test_what_a_cell_holds_or_nobody_states_may_be_written(prose):
    """A rule that cries wolf is switched off."""
    assert unbacked_numbers(lesson_that_says(prose)) == []
