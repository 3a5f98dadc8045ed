"""Code that runs beside its check: what a training loop needs is let through, and every known way out is not."""

import pytest
from handed_in import function, solved

from kdcourse.course.grading.answers import answers_in
from kdcourse.course.grading.repairs import objection

WAYS_OUT = [
    "import os", "import sys as torch", "from torch import os", "from torch import *",
    "import torch.utils.cpp_extension",
    "from torch.nn.functional import torch as t", "from kdcourse.course.exercises import check", "import gc",
    "from typing import get_type_hints", "from functools import wraps",
]  # fmt: skip
WAYS_OUT_INSIDE = [
    "__import__('os')", "eval('1')", "exec('')", "open('/etc/passwd')", "getattr(student, 'x')", "globals()", "vars()",
    "student.__class__", "distill.__globals__", "().__class__.__base__.__subclasses__()", "torch.os.system('true')",
    "torch.load('x')", "torch.hub", "torch._C", "(lambda t: t.os)(torch)", "t = torch\nt.serialization.os",
    "torch.softmax = None", "torch.nn.Module.eval = lambda self: self", "setattr(student, 'eval', 1)",
    "student.eval = lambda: 1", "try:\n    1 / 0\nexcept Exception as e:\n    e.__traceback__.tb_frame",
    "(x for x in []).gi_frame.f_back", "import os", "breakpoint()", "input()", "type(student)",
    "torch.nn.functional.torch.os", "[torch][0].os.system('x')", "student._modules", "torch.Tensor.backward = None",
    "global x", "torch.jit.load('x')", "torch.ops.load_library('x')", "math.__loader__", "torch.from_file('x')",
    "student.register_forward_hook(print)", "'{0.__class__}'.format(1).__class__", "torch.multiprocessing.os",
]  # fmt: skip


def test_the_solutions_may_run():
    """A right answer that is refused."""
    import json

    for number, name in (("03", "03.loop"), ("05", "05.trainer"), ("09", "09.loop")):
        found = {each.exercise: each.code for each in answers_in(json.dumps(solved(number)).encode())}
        assert objection(found[name]) == "", found[name]


@pytest.mark.parametrize("line", WAYS_OUT)
def test_an_import_that_leads_out_is_refused(line):
    """An answer that reaches the check by a module."""
    assert objection(f"{line}\n" + function("03.loop", "return None"))


@pytest.mark.parametrize("body", WAYS_OUT_INSIDE)
def test_a_way_out_is_refused(body):
    """An answer that reaches the check by an object, or puts something in the place of a function."""
    assert objection("import math\n" + function("03.loop", body)), body


@pytest.mark.parametrize(
    "body",
    ["with torch.no_grad():\n    logits = teacher(images)\nreturn None", "student.weight.grad = None",
     "opt = torch.optim.SGD(student.parameters(), lr=0.1)\nopt.zero_grad(set_to_none=True)",
     "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.x = 1",
     "x = {'a': [1, 2]}['a'][0]\nfor i, p in enumerate(student.parameters()):\n    p.requires_grad = True",
     "F = torch.nn.functional.softmax\nreturn F(images, dim=-1)"],
)  # fmt: skip
def test_what_loops_are_made_of_is_let_through(body):
    """A rule so strict that nobody's answer passes it."""
    assert objection(function("03.loop", body)) == ""
