"""Answers that attack the check: each gets a sentence, in time, and the next right answer passes.

Not survived, and not tried: what leaves Python at once (`os._exit`, a crash in C), and C that keeps Python's lock.
KDCOURSE_DEEP=1 (`make test-deep`) tries every hostile object and every function that somebody may put another in place
of; otherwise it is a sample.
"""

import builtins
import html
import itertools
import math
import os
import queue
import random
import sys
import threading
import time
import warnings
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from jupyter_client.manager import start_new_kernel

import kdcourse
from kdcourse.course.exercises import Exercise, Misconception, calling, comparing
from kdcourse.course.exercises.calling import call_in_time
from kdcourse.course.exercises.diagnosis import diagnose
from kdcourse.course.exercises.keeping import CHARACTERS
from kdcourse.course.exercises.settling import settled

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
SECONDS = 5.0
LITTLE = 0.3
"""Where it is known that nothing comes."""
DOUBLE = Exercise(
    id="99.double",
    title="Double it",
    difficulty=1,
    minutes=2,
    reference=lambda x, y: 2 * x,
    examples=[(torch.tensor([1.0]), torch.tensor([5.0])), (torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]))],
    random_inputs=lambda generator: (torch.randn(3, generator=generator), torch.randn(3, generator=generator)),
    gradient=True,
    misconceptions=[
        Misconception("detached", lambda x, y: 2 * x.detach(), "Right value, gradient is lost.", "section 2")
    ],
)


@pytest.fixture(autouse=True, scope="module")
def what_torch_loads_late():
    """Not on the clock of an answer."""
    torch.empty(1, device="meta") + 1
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())


@pytest.fixture(autouse=True)
def little_time(monkeypatch):
    monkeypatch.setattr(calling, "SECONDS", SECONDS)


def of_the_process():
    """All that the check and the next cell depend on."""
    numbers = np.random.get_state()
    return {
        "dtype": torch.get_default_dtype(), "device": torch.get_default_device(), "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(), "deterministic": torch.are_deterministic_algorithms_enabled(),
        "chance": (torch.get_rng_state().tolist(), random.getstate(), numbers[1].tolist(), numbers[2]),
        "streams": (sys.stdin, sys.stdout, sys.stderr), "depth": sys.getrecursionlimit(),
        "warnings": warnings.filters[:], "folder": Path.cwd(), "environment": dict(os.environ),
        "Python": (builtins.input, builtins.len, time.monotonic, threading.Thread.join),
        "torch": (F.kl_div, torch.softmax, torch.Tensor.log_softmax, torch.Tensor.__bool__),
        "course": (comparing.close, kdcourse.distillation_loss),
    }  # fmt: skip


def changed_since(before):
    return [name for name, value in of_the_process().items() if value != before[name]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pytest tells of SystemExit
@pytest.mark.parametrize(("answer", "kind"), hostile.ANSWERS.items(), ids=lambda part: getattr(part, "__name__", part))
def test_a_hostile_answer_is_survived(answer, kind, capsys, monkeypatch):
    """A kernel that hangs, a traceback of the check, a wrong answer that passes, or a process that is another one."""
    before = of_the_process()
    if answer.__name__.startswith(("endless", "asleep", "waiting", "recursive_caught", "fails_with_endless")):
        monkeypatch.setattr(calling, "SECONDS", LITTLE)
    found = diagnose(DOUBLE, answer)
    assert found.kind == kind, repr(found)
    assert html.escape(found.message) in found._repr_html_()
    assert changed_since(before) == []
    assert len(capsys.readouterr().out) <= 20 * (CHARACTERS + 100)  # a call for each input
    assert diagnose(DOUBLE, lambda x, y: x + x).passed


def test_there_are_forty_of_them():
    """A list that was cut down until it passed."""
    assert len(hostile.ANSWERS) >= 40


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pytest tells of SystemExit
@pytest.mark.parametrize(
    "answer",
    [hostile.endless, hostile.endless_around_everything, hostile.endless_in_layers, hostile.leaves_a_thread],
)
def test_nothing_runs_on(answer):
    """A loop that nobody sees any more, and that takes half of the machine until the kernel is restarted."""
    call_in_time(answer, (torch.ones(1), torch.ones(1)))
    time.sleep(0.1)
    started = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - started < 0.15


def test_who_wakes_up_late_changes_nothing(monkeypatch):
    """An answer that slept too long, and puts the process back to what it was a minute ago."""
    monkeypatch.setattr(calling, "SECONDS", LITTLE)
    call_in_time(lambda: time.sleep(2 * LITTLE + 0.2), ())
    monkeypatch.setattr(math, "tau", 6.0)
    time.sleep(2 * LITTLE + 0.2)
    assert math.tau == 6.0


def test_what_a_function_prints_is_seen_but_not_all_of_it(capsys):
    """No `print` in an answer that is looked for a mistake; or a browser that dies of a million lines."""
    call_in_time(lambda: print("here"), ())
    assert capsys.readouterr().out == "here\n"
    call_in_time(lambda: print("x" * (CHARACTERS + 1233)), ())
    printed = capsys.readouterr().out
    assert printed.startswith("x" * CHARACTERS)
    assert printed.endswith(" … and 1,234 more characters\n")


# ---------------------------------------------------------------------------------------------------------------------
# Objects: every question that may be asked, with every hostile answer

OBJECTS = list(itertools.product(hostile.BASES, hostile.SPECIAL, hostile.BEHAVIOURS))
ENDLESS = [each for each in OBJECTS if each[2] is hostile.never_ends]
OTHERS = [each for each in OBJECTS if each[2] is not hostile.never_ends]


def name_of(part):
    return getattr(part, "__name__", part)


def ignored(answer):
    """What Python says of errors in `__del__` is not raised anywhere."""
    return pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")(answer)


@ignored
@pytest.mark.parametrize(
    ("base", "name", "behaviour"), [*OTHERS[:: 1 if DEEP else 29], *ENDLESS[:: 1 if DEEP else 120]], ids=name_of
)
def test_an_object_that_answers_with_hostility_is_survived(base, name, behaviour, monkeypatch):
    """A result that is asked how long it is, and never says."""
    if name == "__del__" and behaviour is hostile.never_ends:
        pytest.skip("Python itself waits for it, whoever lets go of the object")
    before = of_the_process()
    if behaviour is hostile.never_ends:
        monkeypatch.setattr(calling, "SECONDS", LITTLE)

    def answer(x, y):
        return hostile.hostile_object(base, name, behaviour)

    found = diagnose(DOUBLE, answer)
    assert not found.passed
    assert found.message in repr(found)
    assert changed_since(before) == []


def test_what_is_settled_is_equal_to_what_it_was():
    """A subclass of a tuple, a number of NumPy or a mapping that is not what it holds any more."""
    for value in (np.float32(2.5), np.array([1.0]), (1, [2.0, None]), {"a": (1, 2)}, "text", torch.Size([2, 3])):
        assert comparing.close(settled(value), value, 0.0)
    assert settled(torch.max(torch.ones(2, 2), 0))[0].tolist() == [1.0, 1.0]
    assert settled({1, 2}) == {1, 2}
    kept = torch.ones(2, requires_grad=True)
    assert settled(kept) is kept
    assert settled(torch.nn.Parameter(kept)).requires_grad
    assert settled(object()) != settled(object())


# ---------------------------------------------------------------------------------------------------------------------
# Functions of others: everything that an answer can put something else in place of

HOLDERS = (
    builtins,
    math,
    random,
    time,
    threading,
    torch,
    F,
    torch.Tensor,
    torch.nn.Module,
    comparing,
    calling,
    kdcourse,
)
REPLACED = [
    (holder, name)
    for holder in HOLDERS
    for name in sorted(vars(holder))
    if not name.startswith("__")
    and not (holder is builtins and name[0].isupper())  # classes of errors are no functions
]


def replace_and_double(holder, names, replace=setattr):
    def answer(x, y):
        result = 2 * x
        for name in names:
            replace(holder, name, None)
        return result

    return answer


@pytest.mark.parametrize("holder", HOLDERS, ids=name_of)
def test_whatever_is_replaced_is_put_back(holder):
    """A check that calls somebody's `len`, and says of every later answer that it is wrong."""
    names = [name for of, name in REPLACED if of is holder]
    before = dict(vars(holder))
    for chosen in [names] if not DEEP else [[name] for name in names]:
        assert diagnose(DOUBLE, replace_and_double(holder, chosen)).passed, chosen
        assert [name for name in before if vars(holder)[name] is not before[name]] == []
    assert diagnose(DOUBLE, lambda x, y: x + x).passed


# ---------------------------------------------------------------------------------------------------------------------
# The stop button, in a kernel


class Kernel:
    """A kernel of Jupyter, and what a front end does with it."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def start(self, code):
        return self.client.execute(code)

    def wait(self, request, seconds=60):
        """All that a cell put out, as text; until the kernel is idle."""
        found = []
        while True:
            message = self.client.get_iopub_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return "".join(found)
            found.append(content.get("text") or "\n".join(content.get("traceback", [])) or str(content.get("data", "")))

    def run(self, code):
        return self.wait(self.start(code))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel()
    try:
        folder = os.path.dirname(hostile.__file__)  # noqa: PTH120
        said = kernel.run(
            f"import sys; sys.path.insert(0, {folder!r})\n"
            "import hostile, torch\n"
            "from kdcourse.course import exercises\n"
            "from kdcourse.course.exercises import calling\n"
            "from test_hostile import DOUBLE\n"
            "from kdcourse.course.exercises.diagnosis import diagnose\n"
            "calling.SECONDS = 60\n"
            "print(diagnose(DOUBLE, lambda x, y: x + x))"
        )
        assert "right, on 7 inputs" in said, said
        yield kernel
    finally:
        kernel.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["endless", "endless_around_exceptions", "endless_around_everything", "endless_in_layers", "asleep"]
)
def test_the_stop_button_ends_an_answer_within_half_a_second(kernel, name):
    """A square button that does nothing, so that everybody learns to restart the kernel."""

    def stopped_after(code):
        request = kernel.start(code)
        time.sleep(0.5)
        started = time.monotonic()
        kernel.manager.interrupt_kernel()
        said = kernel.wait(request)
        assert "KeyboardInterrupt" in said
        return time.monotonic() - started

    # The quickest of three, beside a loop of the cell's own: what else the machine does is no matter of ours.
    own = min(stopped_after("while True: pass") for _ in range(3))
    assert min(stopped_after(f"diagnose(DOUBLE, hostile.{name})") for _ in range(3)) < 0.4 + 5 * own
    assert "right, on 7 inputs" in kernel.run("print(diagnose(DOUBLE, lambda x, y: x + x))")


@pytest.mark.slow
def test_the_kernel_lives_after_pages_and_questions(kernel):
    """A hundred million characters on their way to a browser; a kernel that waits for a line that nobody can type."""
    pages = kernel.run("print(diagnose(DOUBLE, hostile.prints_pages).kind)")
    assert "passed" in pages
    assert len(pages) < 20 * (CHARACTERS + 100)
    assert "nobody to ask" in kernel.run("print(diagnose(DOUBLE, hostile.asks))")
    with pytest.raises(queue.Empty):
        kernel.client.get_stdin_msg(timeout=0.1)
