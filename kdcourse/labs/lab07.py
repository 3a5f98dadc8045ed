"""What lab 07 works on: one experiment, whose parts come from the embedded assets or from the hub."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, Value
from torch import Tensor

from kdcourse.cache import fingerprint, load_logits
from kdcourse.checks import IGNORED_LABEL
from kdcourse.files import write_whole
from kdcourse.labs import assets, data, models
from kdcourse.labs.experiments import Arm, Budget, Experiment
from kdcourse.labs.metrics import measure
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
    "soft-5000-editorials": "soft answers, 5,000 editorials",
    "hard-20000": "hard labels, 20,000 more",
}
"""The arms of the experiment, in words."""


def names_by_steps(arm: str, steps: int) -> dict[int, str]:
    """What an arm is called in the results with each number of steps that it is tried with, to find how many suit it.

    Besides all `steps`, these are one, two and three fifths of them.
    """
    fewer = [steps * fifths // 5 for fifths in (1, 2, 3)]
    return {each: f"{arm}@{each}" for each in fewer} | {steps: arm}


Measured = dict[str, dict[str, float]]
"""Metrics by name for each test set."""


@dataclass(frozen=True)
class Results:
    """What an experiment measured: the teacher once, each arm once for each seed in order; and what it took.

    `arms` has all of `ARMS` with each number of steps, under the names that `names_by_steps` gives them.
    """

    teacher: Measured
    arms: dict[str, list[Measured]]
    budget: dict[str, Any]
    minutes: float
    """Of one core, for all arms and seeds."""
    versions: dict[str, str]

    def scores(self, arm: str, metric: str = "accuracy", where: str = "test") -> list[float]:
        """A metric of an arm on a test set, one per seed."""
        return [measured[where][metric] for measured in self.arms[arm]]

    def save(self, path: Path) -> None:
        """Whole or not at all, with as many digits as mean anything."""
        rounded = json.loads(json.dumps(asdict(self)), parse_float=lambda number: round(float(number), 5))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(rounded, indent=1) + "\n")

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

    @classmethod
    def load(cls, path: Path = RESULTS) -> Results:
        """What `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


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
