"""The metrics, against other people's implementations and plain loops, with no hub in reach."""

import math
import os
import subprocess
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import evaluate
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcourse.labs import metrics

FOLDER = Path(metrics.__file__).parent
FILES = {
    "accuracy": metrics.Accuracy,
    "agreement": metrics.Agreement,
    "calibration_error": metrics.CalibrationError,
    "negative_log_likelihood": metrics.NegativeLogLikelihood,
    "rater_divergence": metrics.RaterDivergence,
}


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """evaluate copies modules and rows into folders of its own."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))


@pytest.fixture
def rows():
    """Logits of student and teacher, labels, and distributions of raters, some of whom are unanimous."""
    random = np.random.default_rng(0)
    student, teacher = random.normal(scale=2, size=(2, 500, 3))
    raters = random.dirichlet([0.3] * 3, size=500)
    raters[:50] = np.eye(3)[random.integers(3, size=50)]
    return {"student": student, "teacher": teacher, "labels": random.integers(3, size=500), "raters": raters}


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def calibration_error(probs, labels, bins=15):
    """Bin by bin, as Guo et al. write it: intervals that are open on the left."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    total = 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def expected(rows):
    """The five numbers, from scikit-learn, scipy and a loop."""
    probs = probabilities(rows["student"])
    return {
        "accuracy": sklearn.metrics.accuracy_score(rows["labels"], probs.argmax(axis=1)),
        "agreement": sklearn.metrics.accuracy_score(rows["teacher"].argmax(axis=1), probs.argmax(axis=1)),
        "calibration_error": calibration_error(probs, rows["labels"]),
        "negative_log_likelihood": sklearn.metrics.log_loss(rows["labels"], probs),
        "rater_divergence": scipy.stats.entropy(rows["raters"], probs, axis=1).mean(),
    }


def measure(rows):
    return metrics.measure(
        rows["student"], labels=rows["labels"], teacher_logits=rows["teacher"], raters=rows["raters"]
    )


def test_every_metric_is_what_others_compute(rows):
    """A KL the wrong way round, bits for nats, bins that are off by one."""
    assert measure(rows) == pytest.approx(expected(rows), abs=1e-9)


def log_odds(confidence):
    """Logits of two classes, of which the first gets `confidence`."""
    return [math.log(confidence), math.log(1 - confidence)]


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        # One bin for all would say |2/4 − (0.62 + 0.9)/2| = 0.26: too timid here, too sure there, and it cancels.
        ([0.62, 0.62, 0.9, 0.9], [True, True, False, False], (2 * 0.38 + 2 * 0.9) / 4),
        # Both between 13/15 = 0.867 and 14/15 = 0.933, and apart in 8 to 14 bins and in 16.
        ([0.87, 0.93], [True, False], abs(1 - 0.87 - 0.93) / 2),
        # On either side of 14/15, and together in up to 12 bins and in 17.
        ([0.92, 0.94], [True, False], (0.08 + 0.94) / 2),
    ],
    ids=["timid and sure", "one bin of fifteen", "two bins of fifteen"],
)
def test_what_one_bin_is_short_of_another_does_not_make_up_for(confidences, right, error):
    """A calibration error of one bin, or of fourteen: rows that err to one side everywhere cannot tell."""
    labels = [0 if is_right else 1 for is_right in right]
    measured = metrics.measure([log_odds(confidence) for confidence in confidences], labels=labels)
    assert measured["calibration_error"] == pytest.approx(error, abs=1e-12)


@given(st.lists(st.tuples(st.integers(31, 59), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_the_calibration_error_in_fractions(rows):
    """Bins that are counted, weighted or bounded otherwise than in the definition."""
    rows = [(Fraction(2 * sixtieth - 1, 120), right) for sixtieth, right in rows]  # never on an edge
    by_bin = defaultdict(list)
    for confidence, right in rows:
        by_bin[math.floor(confidence * 15)].append(confidence - right)
    expected = sum(abs(sum(surplus)) for surplus in by_bin.values()) / len(rows)
    logits = [log_odds(float(confidence)) for confidence, _ in rows]
    measured = metrics.measure(logits, labels=[int(not right) for _, right in rows])
    assert measured["calibration_error"] == pytest.approx(float(expected), abs=1e-9)


def test_tensors_in_half_precision_are_read(rows):
    """A metric that works for numpy alone, while the Trainer hands out tensors."""
    tensors = {name: torch.tensor(values) for name, values in rows.items()}
    tensors["student"] = tensors["student"].half()
    assert measure(tensors) == pytest.approx(expected(rows), abs=2e-3)


def test_log_probabilities_serve_as_logits_do(rows):
    """Softmax taken of something that is normalised already, and then of the result again."""
    assert measure(rows | {"student": np.log(probabilities(rows["student"]))}) == pytest.approx(expected(rows))


def test_certainty_and_its_opposite():
    """A confidence of exactly 1 that falls out of the last bin; a class that is ruled out, as 0 · −inf."""
    sure = {"labels": [0, 1], "raters": [[1.0, 0.0], [0.0, 1.0]], "teacher_logits": [[0, 1], [1, 0]]}
    assert metrics.measure([[0.0, -np.inf], [-np.inf, 0.0]], **sure) == {
        "accuracy": 1.0, "agreement": 0.0, "calibration_error": 0.0, "negative_log_likelihood": 0.0,
        "rater_divergence": 0.0,
    }  # fmt: skip
    assert metrics.measure([[0.0, -800.0], [0.0, -800.0]], labels=[1, 1]) == pytest.approx(
        {"accuracy": 0.0, "calibration_error": 1.0, "negative_log_likelihood": 800.0}
    )


def test_a_metric_without_its_reference_is_left_out(rows):
    """SST-2 has no raters: an error, or a number that was made up."""
    assert set(metrics.measure(rows["student"], labels=rows["labels"])) == {
        "accuracy", "calibration_error", "negative_log_likelihood",
    }  # fmt: skip


def test_distributions_need_not_add_up_to_the_last_digit():
    """Raters that were stored in 16 bits, refused for 0.00005."""
    measured = metrics.measure([[0.0, 0.0]], labels=[0], raters=[[0.5, 0.50005]])
    assert measured["rater_divergence"] == pytest.approx(0, abs=1e-4)


def test_bins_of_small_confidence():
    """Rows of many classes, all taken for one bin: the two of 1/20 and 1/10 lie in the first and the second."""
    twenty, ten = np.zeros(20), np.where(np.arange(20) < 10, 0, -np.inf)
    measured = metrics.measure([twenty, ten], labels=[0, 1])
    assert measured["calibration_error"] == pytest.approx((0.95 + 0.1) / 2)


def test_each_metric_says_what_it_is():
    """`evaluate` shows three texts of a metric; one of them empty."""
    metric = metrics.Agreement(keep_in_memory=True)
    assert metric.description.startswith("Share of the rows on which student and teacher give the same class")
    assert metric.info.citation.startswith("Stanton et al. (2021)")
    assert metric.inputs_description == "predictions: logits (N, C); references: logits."
    assert metrics.Accuracy(keep_in_memory=True).citation == ""


def test_measuring_writes_nothing(rows, tmp_path):
    """evaluate's file of rows in the home folder, for every student of a lab."""
    measure(rows)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_batches_give_what_the_whole_gives(rows):
    """A mean over means of batches."""
    metric = metrics.CalibrationError(keep_in_memory=True)
    for part in (slice(0, 10), slice(10, 500)):
        metric.add_batch(predictions=rows["student"][part], references=rows["labels"][part])
    assert metric.compute()["calibration_error"] == pytest.approx(expected(rows)["calibration_error"])


LOAD = """
import sys, socket
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = refuse
import evaluate
for path in sys.argv[1:]:
    metric = evaluate.load(path)
    labels = "labels" in metric.inputs_description
    print(*metric.compute(predictions=[[0.0, 1.0]], references=[1] if labels else [[0.0, 1.0]]))
"""


@pytest.mark.slow
def test_each_one_loads_by_its_path_without_a_network(tmp_path):
    """`evaluate.load` that asks the hub, trips over two imports on one line, or finds the base class first."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *(str(FOLDER / f"{name}.py") for name in FILES)],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == list(FILES)


LOGITS, CLASSES = np.zeros((4, 2)), np.zeros(4, dtype=int)
WRONG = [
    ("accuracy", CLASSES, CLASSES, r"predictions have shape \(4,\); logits are needed"),
    ("accuracy", np.zeros((0, 2)), CLASSES[:0], r"one column per class, and at least one row\.$"),
    ("accuracy", LOGITS, CLASSES[:3], r"references have shape \(3,\), but labels for .* \(4, 2\) have \(4,\)"),
    ("negative_log_likelihood", LOGITS, CLASSES - 100, "hold -100 to -100, but labels are class ids from 0 to 1"),
    ("negative_log_likelihood", LOGITS, CLASSES + 0.5, "class ids from 0 to 1"),
    ("calibration_error", LOGITS * np.nan, CLASSES, "predictions hold NaN"),
    ("calibration_error", LOGITS + np.inf, CLASSES, "predictions hold NaN, inf"),
    ("accuracy", LOGITS - np.inf, CLASSES, "predictions hold NaN, inf or a row of −inf alone; look at the model"),
    ("agreement", LOGITS * np.nan, LOGITS, "^predictions hold NaN"),
    ("agreement", LOGITS, LOGITS * np.nan, "^references hold NaN"),
    ("accuracy", np.where(np.eye(4)[:, :1] > 0, -np.inf, LOGITS), CLASSES, "a row of −inf alone"),
    ("agreement", LOGITS, np.zeros((4, 3)), r"references have shape \(4, 3\), but logits"),
    ("agreement", LOGITS, CLASSES, r"references have shape \(4,\), but logits"),
    ("rater_divergence", LOGITS, LOGITS, r"^references are no distributions: each row .* add up to 1\.$"),
    ("rater_divergence", LOGITS, np.tile([-1.0, 2.0], (4, 1)), "no distributions"),
]


@pytest.mark.parametrize(("name", "predictions", "references", "words"), WRONG)
def test_what_does_not_fit_is_refused_in_words(name, predictions, references, words):
    """Rows that broadcast, and labels of −100 that index from the end."""
    with pytest.raises(ValueError, match=words):
        FILES[name](keep_in_memory=True).compute(predictions=predictions, references=references)


def test_every_module_is_imported_on_a_line_of_its_own():
    """`import evaluate, datasets`, which evaluate.load takes for a package called "evaluate,"."""
    lines = [line for file in FOLDER.glob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    imports = [line for line in lines if line.startswith("import ")]
    assert len(imports) > 5
    assert not [line for line in imports if "," in line]
