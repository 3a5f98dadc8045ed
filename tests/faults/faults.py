"""Seeded faults: each is put into a copy of the course, and a lesson must find it and name it (`make test-faults`).

The lessons are tests of the package, and this is the test of that test. A fault is one replacement in one file, or a
file of the cache that is damaged; what a run reports must hold the words that name it.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from junitparser import JUnitXml

from kdcourse.course.lessons import FOLDER_VARIABLE
from kdcourse.labs import assets
from kdcourse.labs.assets import CACHE_VARIABLE

ROOT = Path(__file__).parents[2]
CELL_SECONDS = 120


@dataclass(frozen=True)
class Fault:
    """What is broken, the lesson that should notice, and the words of its report that say so."""

    name: str
    lesson: str
    found: str
    file: str
    replace: dict[str, str] = field(default_factory=dict)


PACKAGE_FAULTS = [
    Fault("T² is removed from the loss", "03", "largest difference in value from kdcourse, twelve settings",
          "loss.py", {"soft = temperature**2 * measure": "soft = measure"}),
    Fault("T² goes missing at alpha 0", "03", "largest difference in value from kdcourse, twelve settings",
          "loss.py", {"mix(alpha, hard, soft), hard, soft":
                      "mix(alpha, hard, soft / (1 if alpha else temperature**2)), hard, soft"}),
    Fault("only the teacher is softened", "03", "largest difference in value from kdcourse, twelve settings",
          "loss.py", {"F.log_softmax(at_temperature(student, temperature), dim=-1)": "F.log_softmax(student, dim=-1)"}),
    Fault("the hard term is softened, too", "03", "largest difference in value from kdcourse, twelve settings",
          "loss.py", {"_surprise(student, labels,": "_surprise(student / temperature, labels,"}),
    Fault("alpha weights the teacher", "04", "T = 1: difference to one mixed target",
          "loss.py", {"max(alpha, TINY) * hard + max(1 - alpha, TINY) * soft":
                      "max(alpha, TINY) * soft + max(1 - alpha, TINY) * hard"}),
    Fault("the mean is over classes, too", "03", "largest difference in value from kdcourse, twelve settings",
          "loss.py", {"soft.sum() / divisor(soft_items)": "soft.sum() / divisor(soft_items) / classes"}),
    Fault("unlabelled rows dilute the labelled ones", "04", "(cell denominators)",
          "loss.py", {"(0 if labels is None else (labels != IGNORED_LABEL).sum())":
                      "(0 if labels is None else len(labels))"}),
    Fault("the direction of KL is swapped", "01", "The solution of 01.forward_kl is not one",
          "divergence.py", {"return _kl(teacher_log_probs, student_log_probs)":
                            "return _kl(student_log_probs, teacher_log_probs)  # was the other way",
                            "    return _kl(student_log_probs, teacher_log_probs)\n\n\ndef jensen":
                            "    return _kl(teacher_log_probs, student_log_probs)\n\n\ndef jensen"}),
    Fault("beta counts from the other end", "13", "gradient of reverse KL over that of D(0.9), first step",
          "divergence.py", {"mixture = _log_mixture(student_log_probs, teacher_log_probs, beta)":
                            "beta = 1 - beta\n    mixture = _log_mixture(student_log_probs, teacher_log_probs, beta)"}),
    Fault("the ends of beta become a KL", "13", "beta = 0 is refused",
          "divergence.py", {"    if not 0 < beta < 1:": "    if beta == 0:\n"
                            "        return _kl(teacher_log_probs, student_log_probs)\n    if not 0 < beta < 1:"}),
    Fault("0 · log 0 is NaN", "02", "a class is ruled out: loss of kdcourse, nats",
          "divergence.py", {".masked_fill(ruled_out, 0)": ""}),
    Fault("softmax in 16 bits", "02", "kdcourse takes bfloat16 logits to float32 first",
          "temperature.py", {"logits if logits.dtype == torch.float64 else logits.float()": "logits"}),
    Fault("the shift is made twice", "06", "by hand over kdcourse",
          "loss.py", {"student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:]":
                      "student_logits[:, :-2], teacher_logits[:, :-2], labels[:, 2:]"}),
    Fault("the shift is not made", "06", "by hand over kdcourse",
          "loss.py", {"teacher_logits[:, :-1], labels[:, 1:]": "teacher_logits[:, :-1], labels[:, :-1]"}),
    Fault("padding teaches", "06", "(cell nothing-supervised)",
          "loss.py", {"(labels != IGNORED_LABEL).nonzero": "(labels == labels).nonzero"}),
    Fault("nothing supervised is NaN", "06", "(cell nothing-supervised)",
          "loss.py", {"return torch.where(count > 0, count, torch.ones_like(count))": "return count",
                      "return count or 1": "return count"}),
    Fault("the rest of the vocabulary is dropped", "13", "share of the full KL at k = 50",
          "topk.py", {"    if classes.shape[-1] == teacher.width:\n": "    if True:\n"}),
    Fault("the teacher is put in train mode", "05", "largest difference of a weight after three steps",
          "teacher.py", {"self.model = model.eval().requires_grad_(False)": "self.model = model.train()",
                         "        if self.model.training:  # somebody else has called train()\n"
                         "            self.model.eval()\n": ""}),
    Fault("accumulation is forgotten", "05", "largest difference of a weight after three steps",
          "trainer.py", {"            num_items=num_items,\n": ""}),
    Fault("one count serves both terms", "05", "kdcourse, which counts both, is not changed",
          "trainer.py", {"labelled if labels.ndim > 1 else torch.full_like(labelled, len(labels))": "labelled"}),
    Fault("label smoothing is ignored", "05", "largest difference of a weight after three steps",
          "trainer.py", {"            label_smoothing=self.args.label_smoothing_factor,\n": ""}),
    Fault("an untrained head may teach", "13", "kdcourse refuses an untrained teacher",
          "compat.py", {"        _require_trained_head(model)\n": "        pass\n"}),
    Fault("label ids may be strings", "13", "kdcourse refuses strings",
          "compat.py", {"    _require_integer_label_ids(role, model.config)\n": ""}),
    Fault("a comparison sees no sign", "04", "gain from the unlabelled sentences, points",
          "labs/verdict.py", {"differences = after - before": "differences = before - after"}),
    Fault("a solution is none", "01", "The solution of",
          "divergence.py", {"return (p * difference).sum(dim=-1)": "return (p * difference).mean(dim=-1)"}),
    Fault("stored answers may belong to other sentences", "00", "shuffled",
          "pieces.py", {"def require_same(": "def require_same(*_, **__):\n    pass\n\n\ndef _was_require_same("}),
]  # fmt: skip

NOTEBOOK_FAULTS = [
    Fault("the kernel is killed", "02", "The kernel died", "02_log_input_convention.ipynb",
          {"setup": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"}),
    Fault("a cell never ends", "02", f"A cell took longer than {CELL_SECONDS // 12} s.",
          "02_log_input_convention.ipynb", {"setup": "while True:\n    pass"}),
    Fault("the claims are gone", "02", "Nothing claims what its file", "02_log_input_convention.ipynb",
          {"setup": "claim = lambda *_, **__: None"}),
]  # fmt: skip


@pytest.fixture
def course(tmp_path):
    """A copy of package and notebooks that can be broken."""
    for folder in ("kdcourse", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(course, lesson, *options, **environment):
    """Run one lesson of a copy; the exit code, and all that its report says of what went wrong."""
    variables = {"PYTHONPATH": str(course), FOLDER_VARIABLE: str(course / "notebooks"), **environment}
    command = [sys.executable, "-m", "kdcourse", "run", lesson, "--out", "out", "--cell-seconds", str(CELL_SECONDS)]
    done = subprocess.run(
        [*command, *options],
        check=False,
        cwd=course,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    path = course / "out" / "junit.xml"
    if not path.exists():
        return done.returncode, [done.stderr]
    cases = [case for suite in JUnitXml.fromfile(str(path)) for case in suite if case.result]
    return done.returncode, [f"{case.name}: {case.result[0].message}" for case in cases]


def require_found(code, said, words):
    assert code == 1, "Nobody noticed."
    assert any(words in line for line in said), said


@pytest.mark.parametrize("fault", PACKAGE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_the_package_is_found_and_named(course, fault):
    """Lessons that run through on a package that is wrong."""
    path = course / "kdcourse" / fault.file
    text = path.read_text(encoding="utf-8")
    for old, new in fault.replace.items():
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {fault.file}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    require_found(*run(course, fault.lesson), fault.found)


@pytest.mark.parametrize("fault", NOTEBOOK_FAULTS, ids=lambda fault: fault.name)
def test_what_happens_to_a_kernel_is_found_and_named(course, fault):
    """A run that hangs, or that calls a dead kernel a success."""
    path = course / "notebooks" / fault.file
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.id in fault.replace:
            cell.source += "\n" + fault.replace[cell.id]
    nbformat.write(notebook, path)
    require_found(*run(course, fault.lesson, "--cell-seconds", str(CELL_SECONDS // 12)), fault.found)


def test_a_truncated_asset_is_found_and_named(course):
    """Half a file of sentences, read as a smaller dataset."""
    cache = course / "cache"
    shutil.copytree(assets.cache_dir(), cache, symlinks=True)
    path = next(cache.glob("reviews-*/movieReviewSnippets_GroundTruth.txt"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    require_found(*run(course, "01", **{CACHE_VARIABLE: str(cache)}), "movieReviewSnippets_GroundTruth.txt")


def test_an_output_that_no_claim_holds_is_compared(course):
    """A picture's description, or a line of text, that says something else, while all numbers hold."""
    path = course / "kdcourse" / "course" / "exercises" / "diagnosis.py"
    text = path.read_text(encoding="utf-8")
    assert text.count("not attempted yet") == 1
    path.write_text(text.replace("not attempted yet", "to do"), encoding="utf-8")
    code, said = run(course, "02")
    assert code == 0, said
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "tests/nbval.ini")]
    options = ["--rootdir", ".", "--nbval", "--nbval-current-env", "notebooks/02_log_input_convention.ipynb"]
    done = subprocess.run(
        [*command, *options],
        check=False,
        cwd=course,
        env=os.environ | {"PYTHONPATH": str(course)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    assert "to do" in done.stdout


def test_a_course_without_a_fault_passes(course):
    """A harness that fails for a reason of its own, and so finds everything."""
    assert run(course, "02") == (0, [])
