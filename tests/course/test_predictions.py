"""A guess is kept before the result and compared after it; the notebook does not know the answer."""

import json
import shutil
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from kdcourse.course import claims, guesses, html_pages, predictions
from kdcourse.course.claims import MODE_VARIABLE, ClaimError, claims_of, open_lesson
from kdcourse.course.exercises.progress import FILE_VARIABLE
from kdcourse.course.expectations import ExpectationError
from kdcourse.course.predictions import BY_CLICK, choices_of, guessed, predict, reveal

FILE = """
[prediction."01.surprise"]
answer = 0.8543
tolerance = 1e-4
usual = "3"
why = "They count the classes."
[prediction."01.sign"]
answer = "no"
usual = "yes"
why = "One term of a sum may be below 0."
[prediction."01.factor"]
answer = 16
tolerance = 0.5
usual = "4"
why = "The second cause is easily missed."
[prediction."01.shuffled"]
answer = "Each answer would stand beside another sentence."
usual = "nothing"
why = "The number of rows is right."
[prediction."01.gain"]
answer = 1.7
at_least = 1
usual = "0"
why = "They have seen no teacher."
"""
SURPRISE = ("01.surprise", "How many nats?", "0.3", "0.9", "3")


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "01.toml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "_opened", None)
    monkeypatch.setattr(predictions, "_asked", {})
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "progress.json"))
    monkeypatch.delenv(BY_CLICK, raising=False)
    open_lesson("01")
    return tmp_path


def said(capsys):
    return capsys.readouterr().out.splitlines()


def test_a_wrong_guess_is_told_what_is_so_and_why_many_say_it(lesson, capsys):
    """ "Wrong", and nothing to learn from."""
    predict(*SURPRISE, guess="3")
    reveal("01.surprise", 0.85432)
    assert said(capsys) == ["You say: 3.", "It is 0.8543. You said 3. Many say 3: They count the classes."]


def test_a_figure_can_mark_what_was_guessed(lesson):
    """A star where nobody guessed, or one of an earlier question."""
    assert guessed("01.factor") is None
    predict("01.factor", "By what factor?")
    assert guessed("01.factor") is None
    predict("01.factor", "By what factor?", guess="about 15.5")
    assert guessed("01.factor") == 15.5


@pytest.mark.parametrize(
    ("asked", "guess", "value", "right"),
    [
        (SURPRISE, "0.9", 0.85432, True),
        (SURPRISE, 0.3, 0.85432, False),
        (("01.sign", "Can it?", "yes", "no"), "no", False, True),
        (("01.factor", "By what factor?"), "about 15.5", 16.2, True),
        (("01.factor", "By what factor?"), "4 or so", 16.2, False),
        (("01.factor", "By what factor?"), "no idea", 16.2, False),
        (("01.shuffled", "From what does it protect?"), "From another order.", None, None),
    ],
)
def test_a_guess_is_judged_and_kept(lesson, capsys, asked, guess, value, right):
    """A guess that is gone with its kernel; a number that has to be hit to the last digit."""
    predict(*asked, guess=guess)
    reveal(asked[0], value)
    assert (": right." in said(capsys)[-1]) == (right is True)
    kept = json.loads((lesson / "progress-guesses.json").read_text(encoding="utf-8"))
    assert kept[asked[0]] == {"guess": str(guess), "right": right}


def test_the_last_guess_counts_and_progress_tells_of_them(lesson):
    """Two answers to one question in the record."""
    predict(*SURPRISE, guess="3")
    predict(*SURPRISE, guess="0.9")
    predict("01.shuffled", "From what?", guess="From another order.")
    assert guesses.summary() == "2 predictions made; of those that can be judged, 1 of 1 right."


def test_nobody_there_is_no_guess(lesson, capsys, monkeypatch):
    """A run that waits for an answer, or takes the one of whoever runs it."""
    predict(*SURPRISE, guess="3")
    monkeypatch.setattr(predictions, "_asked", {})
    monkeypatch.setenv(MODE_VARIABLE, "collect")
    monkeypatch.setenv(BY_CLICK, "01.ipynb")
    predict(*SURPRISE)
    reveal("01.surprise", 0.8543)
    assert said(capsys)[1:] == [
        "Predict. How many nats?", "  ○ 0.3", "  ○ 0.9", "  ○ 3",
        "It is 0.8543. Many say 3: They count the classes.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "choices", "value"),
    [
        ("01.surprise", SURPRISE[2:], 0.9),
        ("01.sign", ("yes", "no"), True),
        ("01.factor", (), 4.0),
        ("01.gain", (), 0.5),
        ("01.gain", (), float("nan")),
    ],
)
def test_a_measurement_that_is_not_the_answer_fails(lesson, name, choices, value):
    """A prediction whose answer is no longer so, and a learner who is told that they were wrong."""
    predict(name, "?", *choices)
    with pytest.raises(ClaimError, match=name):
        reveal(name, value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("01.surprise", "?", "1", "1", "3"), "at least two, all different"),
        (("01.surprise", "?", "0.9"), "at least two, all different"),
        (("01.surprise", "?", "0.9", "0.3"), "'3' is no choice"),
        (("01.sign", "?", "yes", "perhaps"), "'no' is no choice"),
        (("01.surprise", "?", "a lot", "3"), "is a number, and the choices"),
        (("01.other", "?"), r'no entry \[prediction\."01\.other"\]'),
    ],
)
def test_choices_that_lack_the_answer_are_refused(lesson, arguments, words):
    """A question that nobody can answer rightly."""
    with pytest.raises((ValueError, ExpectationError), match=words):
        predict(*arguments)


def test_a_guess_that_is_no_choice_is_refused(lesson):
    """A guess with a typing error, counted as wrong."""
    with pytest.raises(ValueError, match=r"the choices of 01\.surprise are"):
        predict(*SURPRISE, guess="03")


def test_a_reveal_needs_its_question(lesson):
    """A cell that was run without the one above it."""
    with pytest.raises(ValueError, match="was not asked in this kernel"):
        reveal("01.surprise", 0.8543)
    with pytest.raises(ValueError, match="was not asked in this kernel"):
        choices_of("01.surprise")


def test_a_lesson_can_choose_by_what_it_measured(lesson, capsys):
    """The right choice typed into the cell that measures, where it can be read before the result."""
    predict("01.sign", "Can a KL be negative?", "yes", "no")
    reveal("01.sign", choices_of("01.sign")[1])
    assert "Answer: no." in said(capsys)[-1]


def test_a_damaged_record_is_set_aside(lesson, capsys):
    """A lesson that stops because a file of guesses is none."""
    (lesson / "progress-guesses.json").write_text("[", encoding="utf-8")
    predict(*SURPRISE, guess="3")
    assert "was damaged" in said(capsys)[0]
    assert guesses.guess_of("01.surprise") == "3"
    assert len(list(lesson.glob("progress-guesses*.json"))) == 2


CELLS = [
    "from kdcourse.course.claims import open_lesson\nfrom kdcourse.course.predictions import predict, reveal\n"
    "open_lesson('01')",
    "predict('01.sign', 'Can <it> be?', 'yes', 'no')",
    "reveal('01.sign', False)",
]


def executed(folder, sources, **variables):
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        client.execute()
    return notebook


@pytest.mark.slow
def test_a_page_gets_a_form_and_a_run_a_claim(lesson):
    """A question that is a picture of a question on a page; an answer that no report holds."""
    notebook = executed(lesson, CELLS)
    form = notebook.cells[1].outputs[0].data["text/html"]
    assert 'data-prediction="01.sign"' in form
    assert form.count('type="radio"') == 2
    assert "Can &lt;it&gt; be?" in form
    assert 'data-answer="no"' in notebook.cells[2].outputs[0].data["text/html"]
    assert [(made["name"], made["holds"]) for made in claims_of(notebook)] == [("01.sign", True)]


@pytest.mark.slow
def test_in_jupyterlab_a_click_is_kept(lesson):
    """A form that nothing listens to."""
    click = (
        "import gc, ipywidgets\n"
        "(radio,) = [each for each in gc.get_objects() if type(each) is ipywidgets.RadioButtons]\nradio.value = 'yes'"
    )
    notebook = executed(lesson, [*CELLS[:2], click, CELLS[2]], **{BY_CLICK: "01.ipynb"})
    assert "You said yes." in notebook.cells[-1].outputs[0].data["text/plain"]
    again = executed(lesson, CELLS, **{BY_CLICK: "01.ipynb"})
    assert "You said yes." in again.cells[-1].outputs[0].data["text/plain"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here")
def test_on_a_page_a_click_is_compared(lesson):
    """A page whose form does nothing."""
    path = lesson / "01.ipynb"
    nbformat.write(executed(lesson, CELLS), path)
    page = html_pages.notebook_to_html(path, "01")
    script = (html_pages.TEMPLATES / "predict.js").read_text(encoding="utf-8")
    assert script in page
    assert html_pages.policy(script) in page
    click = "<script>document.querySelector('input[value=yes]').click()</script>"
    (lesson / "01.html").write_text(
        page.replace("Content-Security-Policy", "Nothing").replace("</body>", f"{click}</body>"), encoding="utf-8"
    )
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--dump-dom", f"file://{lesson}/01.html"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "<b>You said yes. </b>Answer: no." in done.stdout
