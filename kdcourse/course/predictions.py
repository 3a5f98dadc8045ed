"""Predictions: a guess is kept before the result, and held against it afterwards.

    predict("01.surprise", "How many nats is the surprise of …?", "0.3", "0.9", "3")
    …
    reveal("01.surprise", surprise)

Nothing in a notebook gives the answer away: it stands beside the lesson, in `claims/01.toml`, with what people say who
do not know it yet, and why. In JupyterLab a click answers; anywhere else, `predict(…, guess="3")` does. A run, where
nobody is there, shows the question as a form that a web page can bring to life, and goes on.

A prediction is also a claim: what was measured has to be the answer that the file has, or the run fails.
"""

from __future__ import annotations

import html
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdcourse.course import guesses
from kdcourse.course.claims import Claim, hold_against, in_a_run, opened, require_held, show_with
from kdcourse.course.expectations import Bounds, ExpectedAnswer

BY_CLICK = "JPY_SESSION_NAME"
"""Set in kernels that a Jupyter server has started for somebody: there a click can be answered."""

NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?|[-−]?\.\d+")


@dataclass
class Prediction:
    """One question of a lesson, and what somebody has guessed."""

    name: str
    question: str
    choices: Sequence[str]
    expected: ExpectedAnswer
    guess: str = field(default="")

    def require_sound(self) -> None:
        """
        Raises:
            ValueError: the choices do not hold the answer, or what people usually say; or there is only one.
        """
        if not self.choices:
            return
        if len(set(self.choices)) < len(self.choices) or len(self.choices) == 1:
            raise ValueError(f"The choices of {self.name} are {list(self.choices)}; give at least two, all different.")
        for said in (self.right, self.expected.usual):
            if said not in self.choices:
                raise ValueError(f"{said!r} is no choice of {self.name}; they are {list(self.choices)}.")

    @property
    def right(self) -> str:
        """The right choice; of numbers, the one that is nearest to the answer."""
        answer = self.expected.answer
        return self.choice_of(answer) if self.choices else str(answer)

    def choice_of(self, value: float | str) -> str:
        """The choice that a measured value is: its text, or the nearest of numbers (as a ratio, if all are above 0)."""
        if isinstance(value, str):
            return value
        numbers = {choice: number for choice in self.choices if (number := number_in(choice)) is not None}
        if len(numbers) < len(self.choices):
            raise ValueError(f"{value!r} is a number, and the choices of {self.name} are {list(self.choices)}.")
        as_ratio = value > 0 and all(number > 0 for number in numbers.values())
        scale = math.log if as_ratio else float
        return min(numbers, key=lambda choice: abs(scale(numbers[choice]) - scale(value)))

    def is_right(self, guess: str) -> bool | None:
        """Whether a guess is the answer; nothing for a sentence, which nobody can judge but its author."""
        if self.choices:
            return guess == self.right
        number, answer = number_in(guess), self.expected.answer
        if isinstance(answer, str):
            return guess.strip().casefold() == answer.casefold() or None
        if number is None:
            return False
        return abs(number - answer) <= max(0.1 * abs(answer), self._tolerance)

    @property
    def _tolerance(self) -> float:
        tolerance = self.expected.tolerance
        return tolerance if isinstance(tolerance, int | float) else 0.0


def number_in(text: str) -> float | None:
    """The first number of a text: "about 1,024 nats" is 1024."""
    found = NUMBER.search(text)
    return float(found[0].replace(",", "").replace("−", "-")) if found else None


_asked: dict[str, Prediction] = {}


def predict(name: str, question: str, *choices: str, guess: str | float | None = None) -> None:
    """Ask for a guess, and keep it; the same question again changes it.

    Args:
        name: of the prediction, with the number of its lesson: "01.surprise".
        choices: what can be said; without any, a number or a sentence is asked for.
        guess: an answer that is typed, where nothing can be clicked.

    Raises:
        ExpectationError: the lesson's file has no such prediction.
        ValueError: no lesson is open, the guess is none of the choices, or the choices lack the answer.
    """
    asked = Prediction(name, question, choices, opened().expectations.prediction(name))
    asked.require_sound()
    _asked[name] = asked
    if guess is not None:
        _keep(asked, str(guess))
        print(f"You say: {asked.guess}.")
    elif _is_attended():
        _show_widget(asked)
    else:
        _show_form(asked)


def reveal(name: str, value: Any = None) -> None:
    """Hold what was measured against what was guessed.

    Args:
        value: a number, the text of the right choice, or a truth value where "yes" and "no" are the choices; nothing
            where the answer is a sentence.

    Raises:
        ClaimError: it is not the answer that the lesson's file has.
        ValueError: nobody has asked, or the value is of another kind than the answer.
    """
    asked = _require_asked(name)
    stated, shown = _measured(asked, value)
    sentence = _compared(asked, shown)
    show_with(stated, {"text/plain": sentence, "text/html": _as_revealed(asked, sentence)})
    require_held(stated)


def choices_of(name: str) -> Sequence[str]:
    """The choices of a question, for a lesson that finds the right one without naming it.

    Raises:
        ValueError: nobody has asked.
    """
    return _require_asked(name).choices


def _require_asked(name: str) -> Prediction:
    """
    Raises:
        ValueError: nobody has asked.
    """
    if name not in _asked:
        raise ValueError(f"{name} is revealed, and was not asked in this kernel; run the cell that asks first.")
    return _asked[name]


def _measured(asked: Prediction, value: Any) -> tuple[Claim, str]:
    """The prediction as a claim, and the answer in words."""
    answer, value = asked.expected.answer, value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(answer, str):
        said = answer if value is None else asked.choice_of(value)
        return hold_against(asked.name, float(said == answer), Bounds(), is_truth=True), said
    if not isinstance(value, int | float):
        raise ValueError(f"{asked.name} is revealed by {value!r}, and its answer is a number.")
    expected = asked.expected
    bounds = Bounds(
        None if expected.tolerance is None else answer, expected.tolerance, expected.at_least, expected.at_most
    )
    stated = hold_against(asked.name, float(value), bounds)
    return stated, stated.shown


def guessed(name: str) -> float | None:
    """The number that was guessed, for a figure that marks it; nothing if none was, as in a run."""
    return number_in(_guess_of(_asked[name])) if name in _asked else None


def _guess_of(asked: Prediction) -> str:
    """What was said in this kernel, or before by whoever sits at it; empty if nothing was."""
    return asked.guess or ("" if in_a_run() or not _is_attended() else guesses.guess_of(asked.name))


def _compared(asked: Prediction, shown: str) -> str:
    """What was said and what is so, in a few sentences."""
    expected, guess = asked.expected, _guess_of(asked)
    lead = "Answer:" if isinstance(expected.answer, str) else "It is"
    end = "" if shown.endswith((".", "!", "?")) else "."
    said = f"{lead} {shown}{end}"
    if guess:
        said = f"{said} You said {guess}{': right' if asked.is_right(guess) else ''}."
    return f"{said} Many say {expected.usual}: {expected.why}"


def _keep(asked: Prediction, guess: str) -> None:
    """
    Raises:
        ValueError: it is none of the choices.
    """
    guess = guess.strip()
    if asked.choices and guess not in asked.choices:
        raise ValueError(f"guess is {guess!r}; the choices of {asked.name} are {list(asked.choices)}.")
    asked.guess = guess
    if problem := guesses.keep(asked.name, guess, asked.is_right(guess)):
        print(problem)


def _is_attended() -> bool:
    return BY_CLICK in os.environ and not in_a_run()


def _show_widget(asked: Prediction) -> None:
    """The question as something to click or to type into; what was said before is chosen already."""
    import ipywidgets
    from IPython.display import display

    before = guesses.guess_of(asked.name)
    asked.guess = before if not asked.choices or before in asked.choices else ""
    question = ipywidgets.HTML(f"<b>Predict.</b> {html.escape(asked.question)}")
    if asked.choices:
        answer = ipywidgets.RadioButtons(options=list(asked.choices), value=asked.guess or None)
    else:
        answer = ipywidgets.Text(
            value=asked.guess, placeholder="a number or a sentence, then Enter", continuous_update=False
        )
    kept = ipywidgets.HTML()

    def on_answer(change: Any) -> None:
        if change["new"]:
            _keep(asked, str(change["new"]))
            kept.value = "Kept. Now run the next cells."

    answer.observe(on_answer, names="value")
    display(ipywidgets.VBox([question, answer, kept]))


def _show_form(asked: Prediction) -> None:
    """The question as text, and as a form that needs no kernel."""
    from IPython import get_ipython
    from IPython.display import display

    lines = [f"Predict. {asked.question}", *(f"  ○ {choice}" for choice in asked.choices)]
    if get_ipython() is None:
        print("\n".join(lines))
        return
    display({"text/plain": "\n".join(lines), "text/html": _as_form(asked)}, raw=True)


def _as_form(asked: Prediction) -> str:
    name = html.escape(asked.name, quote=True)
    fields = [_as_radio(name, html.escape(choice, quote=True)) for choice in asked.choices]
    fields = fields or [f'<label>Your guess: <input type="text" name="{name}" autocomplete="off"></label>']
    legend = f"<legend><b>Predict.</b> {html.escape(asked.question)}</legend>"
    return (
        f'<form class="kdcourse-predict" data-prediction="{name}"><fieldset>{legend}{"".join(fields)}</fieldset></form>'
    )


def _as_radio(name: str, choice: str) -> str:
    return f'<label><input type="radio" name="{name}" value="{choice}"> {choice}</label><br>'


def _as_revealed(asked: Prediction, sentence: str) -> str:
    name, answer = (html.escape(each, quote=True) for each in (asked.name, asked.right))
    return f'<p class="kdcourse-reveal" data-prediction="{name}" data-answer="{answer}">{html.escape(sentence)}</p>'
