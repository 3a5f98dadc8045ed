"""What lab 07 works on: one experiment, whose parts come from the embedded assets or from the hub."""

from __future__ import annotations

import base64
import importlib.resources
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, Value
from torch import Tensor

from kdcourse.cache import fingerprint, load_logits
from kdcourse.checks import IGNORED_LABEL
from kdcourse.labs import assets, data, models
from kdcourse.labs.experiments import Arm, Budget, Experiment, Run, versions
from kdcourse.labs.metrics import measure
from kdcourse.labs.record import Record, five_places
from kdcourse.labs.verdict import Verdict, compare_paired
from kdcourse.teacher import add_logits, cache_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEACHER_BUDGET = Budget(steps=6000, batch_size=32, learning_rate=2e-5)


RESULTS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "lab07.json"
"""What the full embedded profile measured; `make results` runs it anew."""

ARMS = {
    "labels": "labels only",
    "hard": "teacher's hard labels",
    "soft": "soft answers",
    "soft-5000": "soft answers, 5,000 more",
    "soft-20000": "soft answers, 20,000 more",
    "people-hard-20000": "people's labels, 20,000 more hard",
    "soft-5000-editorials": "soft answers, 5,000 editorials",
    "hard-20000": "teacher's hard labels, 20,000 more",
}
"""The arms of the experiment, in words. *Hard* is the class that the teacher names, *soft* its whole answer."""

COMPARED = ("test", "products", "tweets")
"""The sets of which is stored which sentences each student got right: arms are compared on them."""


def half_precision() -> dict[str, bool]:
    """The settings of a `Budget` that use what this machine computes fast: bfloat16, or else float16, or neither.

    A GPU may say that it supports bfloat16 when it only emulates it, and is slower with it than without.
    """
    if not torch.cuda.is_available():
        return {}
    return {"bf16": True} if torch.cuda.is_bf16_supported(including_emulation=False) else {"fp16": True}


def names_by_steps(arm: str, steps: int) -> dict[int, str]:
    """What an arm is called in the results with each number of steps that it is tried with, to find how many suit it.

    Besides all `steps`, these are one, two and three fifths of them.
    """
    fewer = [steps * fifths // 5 for fifths in (1, 2, 3)]
    return {each: f"{arm}@{each}" for each in fewer} | {steps: arm}


Measured = dict[str, dict[str, float]]
"""Metrics by name for each test set."""


@dataclass(frozen=True)
class Results(Record):
    """What an experiment measured: the teacher once, each arm once for each seed in order; and what it took.

    `arms` has all of `ARMS` with each number of steps, under the names that `names_by_steps` gives them.
    """

    stored = RESULTS
    rounded = five_places

    teacher: Measured
    arms: dict[str, list[Measured]]
    budget: dict[str, Any]
    minutes: float
    """Of one core, for all arms and seeds."""
    versions: dict[str, str]
    sentences: dict[str, int] = field(default_factory=dict)
    """How many judge a model in each of the sets on which arms are compared."""
    answers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """For the teacher and each arm, set and seed: which sentences it got right, as `pack` has them."""

    def scores(self, arm: str, metric: str = "accuracy", where: str = "test") -> list[float]:
        """A metric of an arm on a test set, one per seed."""
        return [measured[where][metric] for measured in self.arms[arm]]

    def right(self, arm: str, where: str = "test") -> np.ndarray:
        """Which sentences of a set an arm got right, (seeds, sentences), true or false."""
        return np.stack([unpack(packed, self.sentences[where]) for packed in self.answers[arm][where]])

    def right_after(self, steps: int | None, arm: str, where: str = "test") -> np.ndarray:
        """The same of an arm after so many steps; if None, after those that the validation sentences choose."""
        names = names_by_steps(arm, self.budget["steps"])
        return self.right(names[self.best_steps(arm) if steps is None else steps], where)

    def compare(self, first: str, second: str, where: str = "test", steps: int | None = None) -> Verdict:
        """The accuracy of two arms, over other seeds and other sentences; `steps` as in `right_after`."""
        return compare_paired(self.right_after(steps, first, where), self.right_after(steps, second, where))

    def by_steps(self, arm: str, metric: str = "accuracy", where: str = "validation") -> dict[int, list[float]]:
        """The scores of an arm for each number of steps that it was tried with."""
        names = names_by_steps(arm, self.budget["steps"])
        return {steps: self.scores(name, metric, where) for steps, name in names.items()}

    def best_steps(self, arm: str) -> int:
        """The number of steps at which an arm is best on the validation sentences, in the mean over seeds."""
        by_steps = self.by_steps(arm)
        return max(by_steps, key=lambda steps: mean(by_steps[steps]))

    def at_best(self, arm: str, metric: str = "accuracy", where: str = "test") -> list[float]:
        """The scores of an arm with the number of steps that the validation sentences choose."""
        return self.by_steps(arm, metric, where)[self.best_steps(arm)]


def pack(right: Iterable[bool]) -> str:
    """True and false as bits, in base64: a sentence takes a sixth of a character."""
    return base64.b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode("ascii")


def unpack(packed: str, count: int) -> np.ndarray:
    """What `pack` was given."""
    return np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8), count=count).astype(bool)


@dataclass(frozen=True)
class Task:
    """Tokenized sentences by name, the models, and the teacher's answers.

    `sets` holds `train`, `validation` and `test`; `transfer` and `editorials`, of which the labels are not used;
    `products` and `tweets`, on which models are tried outside their domain.
    """

    tokenizer: PreTrainedTokenizerBase
    sets: dict[str, Dataset]
    make_student: Callable[[int], PreTrainedModel]
    teacher: PreTrainedModel
    teacher_logits: Callable[[str], Tensor]

    def labels(self, name: str) -> Tensor:
        """The labels of a set, (N,)."""
        return torch.tensor(self.sets[name]["label"][:])

    def raters(self, name: str) -> Tensor | None:
        """What people say of a set, (N, 2), where people were asked."""
        votes = self.sets[name].with_format(None)
        if "votes" not in votes.column_names:
            return None
        return torch.tensor([data.human_distribution(row) for row in votes["votes"]])

    def judged(self, name: str) -> Tensor:
        """Which rows of a set are fit to judge a model by, (N,): elsewhere, those on which people are not neutral."""
        if name not in data.DOMAINS:
            return torch.ones(len(self.sets[name]), dtype=torch.bool)
        return torch.tensor(self.sets[name]["rating"][:]).abs() >= data.CLEAR_RATING

    def right(self, name: str, logits: Tensor) -> np.ndarray:
        """Which of the sentences that judge a model a model with these logits gets right, (sentences,)."""
        return (logits.argmax(dim=-1) == self.labels(name))[self.judged(name)].numpy()

    def measure(self, logits: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """All metrics for each set by name, of a model with these logits there."""
        measured = {}
        for name, rows in logits.items():
            judged, raters = self.judged(name), self.raters(name)
            measured[name] = measure(
                rows[judged],
                labels=self.labels(name)[judged],
                teacher_logits=self.teacher_logits(name)[judged],
                raters=None if raters is None else raters[judged],
            )
        return measured

    def taught(self, name: str, size: int | None = None, *, labels: str = "none") -> Dataset:
        """The first `size` sentences of a set with teacher logits, and the labels of `people`, `teacher` or `none`."""
        logits = self.teacher_logits(name)[:size]
        rows = self.sets[name].select(range(len(logits))).select_columns(["input_ids", "attention_mask"])
        said = {
            "none": [IGNORED_LABEL] * len(rows),
            "people": self.sets[name]["label"][: len(rows)] if labels == "people" else [],
            "teacher": logits.argmax(dim=-1).tolist(),
        }
        return add_logits(rows.add_column("label", said[labels]), logits).cast_column("label", Value("int64"))


def collect(task: Task, runs: Mapping[str, Sequence[Run]], budget: Budget) -> Results:
    """What an experiment measured: `runs` has one for each seed, in order, under the names of `names_by_steps`."""
    teacher = {name: task.teacher_logits(name) for name in ("validation", *COMPARED)}
    students: dict[str, list[Mapping[str, Tensor]]]
    students = {name: [run.logits for run in of_arm] for name, of_arm in runs.items()}
    every: dict[str, list[Mapping[str, Tensor]]] = {"teacher": [teacher], **students}
    return Results(
        teacher=task.measure(teacher),
        arms={name: [task.measure(logits) for logits in of_arm] for name, of_arm in students.items()},
        budget={
            "steps": budget.steps,
            "batch size": budget.batch_size,
            "seeds": max(len(of_arm) for of_arm in runs.values()),
        },
        minutes=sum(run.cost["cpu seconds"] for of_arm in runs.values() for run in of_arm) / 60,
        versions=versions(),
        sentences={name: int(task.judged(name).sum()) for name in COMPARED},
        answers={
            name: {where: [pack(task.right(where, logits[where])) for logits in of_model] for where in COMPARED}
            for name, of_model in every.items()
        },
    )


def load_task(folder: Path, *, budget: Budget = TEACHER_BUDGET) -> Task:
    """The task of the profile that `$KDCOURSE_ASSETS` chooses.

    Args:
        folder: keeps what the hub profile computes: its teacher, and the teacher's answers.
        budget: how long the hub profile's teacher is fine-tuned; the embedded one is shipped as it is.
    """
    return _hub_task(folder, budget) if assets.source() == "hub" else _embedded_task()


def _embedded_task() -> Task:
    tokenizer = models.load_student_tokenizer()
    sets = _tokenized({**data.load_reviews(), **_elsewhere()}, tokenizer)
    teacher = models.load_teacher()

    @cache
    def teacher_logits(name: str) -> Tensor:
        expected = fingerprint(models.teacher_digest(), tokenizer, sets[name])
        return load_logits(models.TEACHER_LOGITS, name, expected)

    return Task(tokenizer, sets, partial(_small_student, tokenizer), teacher, teacher_logits)


def _hub_task(folder: Path, budget: Budget) -> Task:
    tokenizer = models.load_gpt2_tokenizer()
    sets = _tokenized({**data.load_sst2(), **_elsewhere()}, tokenizer)
    teacher = _fine_tuned(folder, budget, tokenizer, sets)

    @cache
    def teacher_logits(name: str) -> Tensor:
        cached = cache_logits(folder / f"teacher-{name}", teacher, tokenizer, sets[name]).cache
        return torch.stack([torch.as_tensor(cached[row]) for row in range(len(cached))])

    return Task(tokenizer, sets, lambda seed: models.load_gpt2("gpt2", tokenizer, seed=seed), teacher, teacher_logits)


def _fine_tuned(
    folder: Path, budget: Budget, tokenizer: PreTrainedTokenizerBase, sets: dict[str, Dataset]
) -> PreTrainedModel:
    """GPT-2 medium after it has learned from the labels: its head is new, and would teach noise."""
    experiment = Experiment(
        folder, budget, lambda seed: models.load_gpt2("gpt2-medium", tokenizer, seed=seed), tokenizer, {}
    )
    teacher: Any = experiment.run(Arm("teacher", sets["train"], alpha=1.0), seed=0).student()
    return teacher.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)


def _small_student(tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    return models.gpt2_student(tokenizer, layers=1, width=64, seed=seed)


def _elsewhere() -> dict[str, Dataset]:
    """Sentences that are not the task's: to transfer on, and to try a model on."""
    return {"transfer": data.load_transfer(), **{name: data.load_domain(name) for name in data.DOMAINS}}


def _tokenized(sets: dict[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
    return {name: data.tokenize(rows, tokenizer) for name, rows in sets.items()}
