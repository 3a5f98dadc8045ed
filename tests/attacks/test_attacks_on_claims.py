"""A claim that was made and did not hold fails its lesson, however its output was hidden, and whatever is recorded."""

import json
import math

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from kdcourse.course import html_pages, run
from kdcourse.course.claims import HIDDEN_KEY, METADATA_KEY, Claim, checked_claims, claim_from, record_of
from kdcourse.course.lessons import Lesson
from kdcourse.course.outcome import Outcome, Record, write_executed
from kdcourse.course.settings import Settings

BROKEN = "claim({name!r}, 0.0, at_least=1.0)"

HIDERS = {
    "by capture": "%%capture\nBROKEN",
    "by capture into a variable": "%%capture said\nBROKEN",
    "by clearing": "from IPython.display import clear_output\nBROKEN\nclear_output()",
    "by clearing when something else comes": "BROKEN\nclear_output(wait=True)\nprint('all is well')",
    "by capture_output": "from IPython.utils.capture import capture_output\nwith capture_output():\n    BROKEN",
    "by redirection": (
        "import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n    BROKEN"
    ),
    "by an except": "try:\n    BROKEN\nexcept BaseException:\n    pass",
    "by suppress": "with contextlib.suppress(BaseException):\n    BROKEN",
    "by a widget": "import ipywidgets\nwith ipywidgets.Output():\n    BROKEN",
    "by a display of one's own": (
        "import IPython.display\nkept, IPython.display.display = IPython.display.display, lambda *_, **__: None\n"
        "BROKEN\nIPython.display.display = kept"
    ),
    "by another thing in its place": (
        "from IPython.display import display\nhandle = display('1', display_id=True)\n"
        "with capture_output():\n    BROKEN\nhandle.update('2')"
    ),
    "by a false record": (
        "with capture_output():\n    BROKEN\n"
        "display({'text/plain': '✓'}, metadata={'kdcourse_claim': {'name': NAME, 'value': 2.0, 'at_least': 1.0, "
        "'is_truth': False, 'holds': True}}, raw=True)"
    ),
    "by a thread": "import threading\nthread = threading.Thread(target=lambda: BROKEN)\nthread.start()\nthread.join()",
    "by a process": (
        'import subprocess, sys\ncode = \'from kdcourse.course.claims import claim; \' + """BROKEN"""\n'
        "subprocess.run([sys.executable, '-c', code], capture_output=True, check=False).returncode"
    ),
    "by a shell": '%%capture\n!{sys.executable} -c "from kdcourse.course.claims import claim; BROKEN"',
    "by loading claims anew": (
        "%%capture\nimport importlib, kdcourse.course.claims as module\nimportlib.reload(module).BROKEN"
    ),
}


def hidden(name):
    return HIDERS[name].replace("NAME", repr(name)).replace("BROKEN", BROKEN.format(name=name))


def lesson_of(path, *sources):
    cells = [new_code_cell(source, id=f"cell-{place}") for place, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return Lesson(path)


START = "from kdcourse.course.claims import claim\nclaim('it runs', True)"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A lesson with a cell for each way of hiding a claim; and lessons that end early, in several ways."""
    folder = tmp_path_factory.mktemp("lessons")
    late = "import threading, time\nthreading.Timer(1, lambda: BROKEN).start()".replace(
        "BROKEN", BROKEN.format(name="by coming late")
    )
    lessons = [
        lesson_of(folder / "00_hides.ipynb", START, *map(hidden, HIDERS), late, "time.sleep(3)"),
        lesson_of(folder / "01_dies.ipynb", START, BROKEN.format(name="last words") + "\nimport os\nos._exit(0)"),
        lesson_of(folder / "02_leaves.ipynb", START, "%%capture\n" + BROKEN.format(name="leaves") + "\nexit()"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.os, "environ", run.os.environ | {})  # what a run sets is gone after the test
        found = list(run.run_lessons(lessons, folder / "out", Settings(cell_seconds=20)))
    return {outcome.lesson.name: outcome for outcome in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HIDERS, "by coming late"])
def test_a_claim_cannot_be_hidden(outcomes, name):
    """A number that is wrong, in a cell with %%capture above it, and a lesson in order."""
    outcome = outcomes["00_hides"]
    assert not outcome.passed
    assert f"'{name}'" in outcome.problem
    made = [claim for claim in outcome.claims if claim["name"] == name and not claim["holds"]]
    cells = list(HIDERS).index(name) + 1 if name in HIDERS else len(HIDERS) + 2
    assert [claim["cell"] for claim in made] == [f"cell-{cells}"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "claimed"), [("01_dies", "last words"), ("02_leaves", "leaves")])
def test_a_kernel_that_ends_early_hides_nothing(outcomes, name, claimed):
    """Success, since the process was gone before anybody could ask it."""
    outcome = outcomes[name]
    assert not outcome.passed
    assert [claim["name"] for claim in outcome.claims if not claim["holds"]] == [claimed]


RECORDS = {
    "no object": 3,
    "nothing": None,
    "a list": [1],
    "no value": {"name": "kl", "at_least": 1, "holds": True},
    "a text for a number": {"name": "kl", "value": "high", "at_least": 1, "holds": True},
    "a number for a name": {"name": 3, "value": 1, "at_least": 1, "holds": True},
    "held against nothing": {"name": "kl", "value": 1, "holds": True},
    "said to hold": {"name": "kl", "value": 0, "at_least": 1, "holds": True},
    "said to hold as NaN": {"name": "kl", "value": math.nan, "at_least": 1, "holds": True},
}


def notebook_with(record, *, shown=True):
    if shown:
        output = new_output("display_data", {"text/plain": "✓ kl"}, metadata={METADATA_KEY: record})
        cell = new_code_cell("1", execution_count=1, id="cell-0", outputs=[output])
    else:
        cell = new_code_cell("1", execution_count=1, id="cell-0", metadata={HIDDEN_KEY: [record]})
    return new_notebook(cells=[cell])


def outcome_of(notebook, folder, problem="", cell=""):
    path, record = folder / "00_toy.ipynb", Record("", 1.0, problem, cell)
    write_executed(notebook, record, path)
    return Outcome(Lesson(path), path, record)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_false_record_does_not_hold_and_can_be_reported(tmp_path, record, shown):
    """A display that calls itself a claim: a traceback in the report of all lessons, or a tick."""
    notebook = notebook_with(record, shown=shown)
    problem, cell = run.look_over(notebook)
    assert "does not hold" in problem
    assert cell == "cell-0"
    html_pages.write_reports([outcome_of(notebook, tmp_path, problem, cell)], tmp_path, "cpu")
    (written,) = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))["lessons"]["00_toy"]
    assert not written["holds"]
    assert "✗" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("spread", [math.nan, "nan", math.inf])
def test_a_spread_that_is_no_number_can_be_reported(tmp_path, spread):
    """A lesson with one seed, whose spread is NaN, and a run that ends in "not JSON compliant"."""
    record = {"name": "kl", "value": 1.0, "at_least": 0.5, "spread": spread}
    html_pages.write_reports([outcome_of(notebook_with(record), tmp_path)], tmp_path, "cpu")
    (written,) = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))["lessons"]["00_toy"]
    assert written["holds"]
    assert written["spread"] == str(spread)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("name", "value", "expected", "tolerance", "at_least", "at_most", "is_truth", "spread", "holds", "cell")


@settings(deadline=None)
@given(ANYTHING | st.dictionaries(st.sampled_from(FIELDS), ANYTHING), st.booleans())
def test_any_record_can_be_reported(record, shown):
    """The shape of a record that nobody thought of."""
    (checked,) = checked_claims(notebook_with(record, shown=shown))
    assert json.loads(json.dumps(checked, allow_nan=False)) == checked
    assert claim_from(checked).holds == checked["holds"]
    assert claim_from(checked).condition


@settings(deadline=None)
@given(st.builds(Claim, st.text(), *[st.floats()] * 3))
def test_a_claim_survives_its_record(claim):
    """A NaN or an infinity that comes back as something else."""
    assert repr(claim_from(json.loads(json.dumps(record_of(claim), allow_nan=False)))) == repr(claim)
