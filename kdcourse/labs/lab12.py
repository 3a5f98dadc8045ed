"""What lab 12 works on: does distillation help on a task, and how would one know?

Two tasks, small enough to be asked eight questions with twenty seeds. *Digits*: students of 8 hidden units, teachers of
up to eight networks of 128, 600 labelled pictures of which a student is given some. *Reviews*: students of 16 hidden
units that read the mean of a sentence's word vectors, and the review teacher's stored answers.

An arm is what a student is to say about which rows. A seed draws everything that an arm could have had otherwise:
which rows have labels, their order, the student's first weights, the teacher (that of the reviews is one for all). Two
arms of one seed share what they can, so they are compared pair by pair. Each arm tries the same number of settings
(`RATES`, its three `KNOBS`, and five moments to stop) with other seeds, and validation rows choose.

    python -m kdcourse.labs.lab12 --out build/lab12.json    # all arms, ten minutes; goes on where it stopped
"""

from __future__ import annotations

import argparse
import importlib.resources
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from kdcourse.cache import fingerprint, load_logits
from kdcourse.labs import data, digits, models
from kdcourse.labs.experiments import versions
from kdcourse.labs.lab07 import pack, unpack
from kdcourse.labs.record import Record, five_digits
from kdcourse.labs.verdict import Verdict, compare_paired, holm

RESULTS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "lab12.json"
"""What `python -m kdcourse.labs.lab12` measured."""

SEEDS = range(20)
TUNING_SEEDS = range(1000, 1008)
"""Seeds of their own: a setting that was chosen for its luck with a seed is not judged by that seed."""
STEPS = (100, 200, 400, 800, 1600)
"""Where a training may be stopped. Its learning rate is constant, so a run that is stopped is what a shorter one is."""
RATES = (3e-3, 1e-2)
BATCH = 64
KNOBS = {
    "labels": (0.0, 0.1, 0.5),
    "smoothed": (0.05, 0.1, 0.2),
    "soft": (1.0, 4.0, 12.0),
}
"""What an arm tunes beside rate and steps: weight decay, the smoothed share, or the temperature."""
DECAY = 0.1
"""Of the arms that tune something else."""

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ground:
    """A task: N rows, and what each is for."""

    inputs: Tensor
    """(N, features)"""
    labels: Tensor
    """(N,); of unlabelled rows −100."""
    pool: Tensor
    """The numbers of the rows that people have labelled, and that may be learned from."""
    validation: Tensor
    test: Tensor
    unlabelled: Tensor
    classes: int
    width: int
    """Of the student's hidden layer."""
    answers: Tensor | None = None
    """Of a teacher that is given, its logits (N, classes); where there is none, each seed trains its own."""


@dataclass(frozen=True)
class Teacher:
    """A teacher that each seed trains for itself."""

    width: int = 128
    rows: int = 600
    """Labelled ones that it learns from: the first of the seed's order, as for the student."""
    steps: int = 800
    members: int = 1
    """Networks of which the probabilities are averaged."""
    flipped: float = 0.0
    """The share of its labels that are turned into another class."""
    taught_by: str = ""
    """The teacher's own teacher, at T = 3; "" if it learns from labels."""


TEACHERS = {
    "128": Teacher(),
    "half": Teacher(rows=300),
    "16": Teacher(width=16),
    "1024": Teacher(width=1024),
    "eight": Teacher(members=8),
    "early": Teacher(steps=100),
    "assistant": Teacher(width=32, taught_by="eight"),
    "own size": Teacher(width=8, rows=100),
    "flipped": Teacher(flipped=0.3),
}


@dataclass(frozen=True)
class Arm:
    """What a student is to say, about how many rows."""

    words: str
    aims: str
    """`labels`, `smoothed`, `named` (people's labels on the first `labelled` rows, elsewhere the class that the teacher
    names), or `soft` (the teacher's answers, and no labels)."""
    rows: int
    """The first so many of the seed's order; where the pool ends, the unlabelled rows begin."""
    labelled: int = 0
    teacher: str = "128"
    flipped: float = 0.0
    noise: float = 0.0
    """On each of the teacher's logits, in standard deviations of its logits; drawn once, as if it were stored."""
    longer: float = 1.0
    """How many times as many steps, such as where a rival's teacher has cost that much."""

    @property
    def knobs(self) -> tuple[float, ...]:
        return KNOBS["labels" if self.aims == "named" else self.aims]


def _by_rows(counts: Iterable[int]) -> dict[str, Arm]:
    """A pair of twins for each number of rows."""
    return {
        f"{aims} {rows}": Arm(f"{words} {rows:,} rows", aims, rows)
        for rows in counts
        for aims, words in (("labels", "labels of"), ("soft", "soft answers on"))
    }


DIGITS = _by_rows((50, 100, 200, 400, 600)) | {
    "smoothed 100": Arm("smoothed labels of 100 rows", "smoothed", 100),
    "soft 100 of half": Arm("soft answers on 100 rows, of a teacher of 300", "soft", 100, teacher="half"),
    "named 600 of half": Arm("labels of 100 rows, its named classes on 500", "named", 600, 100, teacher="half"),
    "soft 600 of half": Arm("its soft answers on 600 rows", "soft", 600, teacher="half"),
    "soft 600 of 16": Arm("a teacher of width 16", "soft", 600, teacher="16"),
    "soft 600 of 1024": Arm("a teacher of width 1,024", "soft", 600, teacher="1024"),
    "soft 600 of eight": Arm("eight teachers' mean", "soft", 600, teacher="eight"),
    "soft 600 of early": Arm("a teacher stopped early", "soft", 600, teacher="early"),
    "soft 600 of assistant": Arm("an assistant of width 32", "soft", 600, teacher="assistant"),
    "soft 600 of eight, longer": Arm("eight teachers' mean, 3 times the steps", "soft", 600, teacher="eight", longer=3),
    "born again": Arm("soft answers of a teacher of its size", "soft", 100, teacher="own size"),
    "labels 100, longer": Arm("labels of 100 rows, 1.5 times the steps", "labels", 100, longer=1.5),
    "soft 600 of flipped": Arm("a teacher with 30% of its labels wrong", "soft", 600, teacher="flipped"),
    "labels 600, flipped": Arm("labels of 600 rows, 30% wrong", "labels", 600, flipped=0.3),
    "soft 600, noised": Arm("soft answers on 600 rows, with noise", "soft", 600, noise=0.5),
}

REVIEWS = _by_rows((250, 1000, 8000)) | {
    "smoothed 8000": Arm("smoothed labels of 8,000 rows", "smoothed", 8000),
    "named 28000": Arm("labels of 8,000 rows, named classes on 20,000", "named", 28_000, labelled=8000),
    "soft 28000": Arm("soft answers on 28,000 rows", "soft", 28_000),
    "soft 8000, noised": Arm("soft answers on 8,000 rows, with noise", "soft", 8000, noise=0.5),
}

ARMS = {"digits": DIGITS, "reviews": {name: replace(arm, longer=0.5) for name, arm in REVIEWS.items()}}
"""By task. Of the reviews, labels are learned by heart after 200 steps, so half of the `STEPS` are enough."""

Gain = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Is the second better than the first? Both are arms, or both gains: pairs of arms, what the later has more."""

    question: int
    words: str
    first: str | Gain
    second: str | Gain
    task: str = "digits"


COMPARISONS = (
    Comparison(1, "width 128 for 16", "soft 600 of 16", "soft 600"),
    Comparison(1, "width 1,024 for 128", "soft 600", "soft 600 of 1024"),
    Comparison(1, "eight networks for one", "soft 600", "soft 600 of eight"),
    Comparison(1, "trained to the end, not stopped early", "soft 600 of early", "soft 600"),
    Comparison(2, "an assistant between, equal steps", "soft 600 of eight", "soft 600 of assistant"),
    Comparison(2, "an assistant between, equal cost", "soft 600 of eight, longer", "soft 600 of assistant"),
    Comparison(3, "own size for labels, equal steps", "labels 100", "born again"),
    Comparison(3, "own size for labels, equal cost", "labels 100, longer", "born again"),
    Comparison(4, "smoothed labels for labels", "labels 100", "smoothed 100"),
    Comparison(4, "answers for smoothed labels", "smoothed 100", "soft 100"),
    Comparison(5, "100 answers for 600 labels", "labels 600", "soft 100"),
    Comparison(6, "answers for 50 labels", "labels 50", "soft 50"),
    Comparison(6, "answers for 100 labels", "labels 100", "soft 100"),
    Comparison(6, "answers for 200 labels", "labels 200", "soft 200"),
    Comparison(6, "answers for 400 labels", "labels 400", "soft 400"),
    Comparison(6, "answers for 600 labels", "labels 600", "soft 600"),
    Comparison(6, "the gain at 50 for the gain at 600", ("labels 600", "soft 600"), ("labels 50", "soft 50")),
    Comparison(7, "a teacher of wrong labels for a right one", "soft 600", "soft 600 of flipped"),
    Comparison(7, "its answers for the wrong labels", "labels 600, flipped", "soft 600 of flipped"),
    Comparison(7, "noise on the answers", "soft 600", "soft 600, noised"),
    Comparison(8, "more rows, hard", "labels 100", "named 600 of half"),
    Comparison(8, "more rows, soft", "soft 100 of half", "soft 600 of half"),
    Comparison(8, "soft for hard, on more rows", "named 600 of half", "soft 600 of half"),
    Comparison(4, "smoothed labels for labels", "labels 8000", "smoothed 8000", "reviews"),
    Comparison(4, "answers for smoothed labels", "smoothed 8000", "soft 8000", "reviews"),
    Comparison(6, "answers for 250 labels", "labels 250", "soft 250", "reviews"),
    Comparison(6, "answers for 1,000 labels", "labels 1000", "soft 1000", "reviews"),
    Comparison(6, "answers for 8,000 labels", "labels 8000", "soft 8000", "reviews"),
    Comparison(7, "noise on the answers", "soft 8000", "soft 8000, noised", "reviews"),
    Comparison(8, "more rows, hard", "labels 8000", "named 28000", "reviews"),
    Comparison(8, "more rows, soft", "soft 8000", "soft 28000", "reviews"),
    Comparison(8, "soft for hard, on more rows", "named 28000", "soft 28000", "reviews"),
)
"""The family. All were named before any was made, but for the last three of the digits: in their place stood a teacher
that had learned all 600 labels, so that the classes that it named were the labels, and two of these had been seen."""


# ---------------------------------------------------------------------------------------------------------------------
# The tasks


def load_digits() -> Ground:
    """Rows 0 to 599 may be learned from, 200 choose, 997 judge."""
    images, labels = digits.load()
    rows = torch.arange(len(images))
    return Ground(images, labels, rows[:600], rows[600:800], rows[800:], rows[:0], digits.CLASSES, width=8)


def load_reviews() -> Ground:
    """The review sentences and the transfer sentences, each as the mean of its tokens' word vectors of MiniLM."""
    tokenizer = models.load_student_tokenizer()
    sets = {
        name: data.tokenize(rows, tokenizer)
        for name, rows in {**data.load_reviews(), "transfer": data.load_transfer()}.items()
    }
    digest = models.teacher_digest()
    answers = [
        load_logits(models.TEACHER_LOGITS, name, fingerprint(digest, tokenizer, rows)) for name, rows in sets.items()
    ]
    embeddings = cast("nn.Embedding", models.load_untrained_teacher().get_input_embeddings())
    vectors = embeddings.weight.detach()
    inputs = torch.cat([_mean_vectors(vectors, rows["input_ids"][:]) for rows in sets.values()])
    labels = [torch.tensor(rows["label"][:]) for name, rows in sets.items() if name != "transfer"]
    of_set = dict(zip(sets, torch.arange(len(inputs)).split([len(rows) for rows in sets.values()]), strict=True))
    inputs = (inputs - inputs[of_set["train"]].mean(0)) / inputs[of_set["train"]].std(0)
    return Ground(
        inputs,
        torch.cat([*labels, torch.full((len(of_set["transfer"]),), -100)]),
        of_set["train"], of_set["validation"], of_set["test"], of_set["transfer"],
        len(data.LABEL_NAMES), width=16, answers=torch.cat(answers).float(),
    )  # fmt: skip


def _mean_vectors(vectors: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    """(rows, features)"""
    starts = torch.tensor([0, *itertools.accumulate(map(len, ids))][:-1])
    return F.embedding_bag(torch.tensor(list(itertools.chain.from_iterable(ids))), vectors, starts, mode="mean")


LOADERS = {"digits": load_digits, "reviews": load_reviews}


def order_of_rows(ground: Ground, seed: int) -> Tensor:
    """The pool in an order of the seed, then the unlabelled rows: who learns from n rows takes the first n."""
    shuffled = torch.randperm(len(ground.pool), generator=torch.Generator().manual_seed(seed))
    return torch.cat([ground.pool[shuffled], ground.unlabelled])


def flipped_labels(ground: Ground, seed: int, share: float) -> Tensor:
    """The labels (N,), with this share of the pool's turned into another class."""
    random = torch.Generator().manual_seed(seed)
    chosen = ground.pool[torch.randperm(len(ground.pool), generator=random)[: round(share * len(ground.pool))]]
    labels = ground.labels.clone()
    turned = torch.randint(1, ground.classes, (len(chosen),), generator=random)
    labels[chosen] = (labels[chosen] + turned) % ground.classes
    return labels


# ---------------------------------------------------------------------------------------------------------------------
# Networks


class Crowd(nn.Module):
    """Networks with one hidden layer, one for each seed, trained side by side; none knows of the others.

    Their losses are added up and Adam looks at each weight alone, so each learns what it would have learned alone.
    Twenty cost little more than one, since steps as small as these are mostly waiting.
    """

    def __init__(self, features: int, width: int, classes: int, seeds: Iterable[int]) -> None:
        super().__init__()
        first, second = zip(*(_layers(features, width, classes, seed) for seed in seeds), strict=True)
        self.weight_1, self.bias_1 = _stacked(first)
        self.weight_2, self.bias_2 = _stacked(second)

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows, features), the same for all, or (networks, rows, features) -> logits (networks, rows, classes)."""
        return (inputs @ self.weight_1 + self.bias_1).relu() @ self.weight_2 + self.bias_2


def _layers(features: int, width: int, classes: int, seed: int) -> tuple[nn.Linear, nn.Linear]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(features, width), nn.Linear(width, classes)


def _stacked(layers: Sequence[nn.Linear]) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (networks, in, out) and biases (networks, 1, out)."""
    return (
        nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers])),
        nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])[:, None]),
    )


def batches(rows: Tensor, seeds: Sequence[int], steps: int) -> Tensor:
    """The rows of each step, (steps, seeds, BATCH), drawn with replacement from each seed's own `rows` (seeds, n)."""
    drawn = [
        own[torch.randint(len(own), (steps, BATCH), generator=torch.Generator().manual_seed(seed))]
        for own, seed in zip(rows, seeds, strict=True)
    ]
    return torch.stack(drawn, dim=1)


def train(
    crowd: Crowd,
    inputs: Tensor,
    rows: Tensor,
    aims: Tensor,
    seeds: Sequence[int],
    *,
    steps: int,
    rate: float,
    temperature: float = 1.0,
    decay: float = 0.0,
    look: Callable[[int], object] = lambda step: None,
) -> Crowd:
    """Each network learns to say `aims` (seeds, N, classes), probabilities at this temperature, about its `rows`.

    The loss is T² times the cross-entropy, whose gradient is that of the KL. `look` gets the number of each step.
    """
    optimizer = torch.optim.AdamW(crowd.parameters(), rate, weight_decay=decay, fused=True)
    networks = torch.arange(len(seeds))[:, None]
    for step, batch in enumerate(batches(rows, seeds, steps), start=1):
        logits = crowd(inputs[batch]) / temperature
        loss = F.cross_entropy(logits.flatten(0, 1), aims[networks, batch].flatten(0, 1))
        optimizer.zero_grad()
        (len(seeds) * temperature**2 * loss).backward()
        optimizer.step()
        look(step)
    return crowd


def ask(ground: Ground, name: str, seeds: Sequence[int]) -> Tensor:
    """The logits of each seed's teacher on all rows, (seeds, N, classes)."""
    if ground.answers is not None:
        return ground.answers.expand(len(seeds), -1, -1)
    teacher, crowds = TEACHERS[name], []
    if teacher.taught_by:
        temperature, aims = 3.0, (ask(ground, teacher.taught_by, seeds) / 3).softmax(-1)
    else:
        labels = torch.stack([flipped_labels(ground, seed, teacher.flipped) for seed in seeds])
        temperature, aims = 1.0, one_hot(labels, ground.classes)
    rows = torch.stack([order_of_rows(ground, seed)[: teacher.rows] for seed in seeds])
    for member in range(teacher.members):
        own = [10_000 * (member + 1) + seed for seed in seeds]  # not the weights that a student begins with
        crowd = Crowd(ground.inputs.shape[1], teacher.width, ground.classes, own)
        train(crowd, ground.inputs, rows, aims, own, steps=teacher.steps, rate=3e-3, temperature=temperature)
        with torch.no_grad():
            crowds.append(crowd(ground.inputs))
    if teacher.members == 1:
        return crowds[0]
    return torch.stack(crowds).softmax(-1).mean(0).clamp_min(1e-12).log()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Probabilities (…, classes); all 0 where there is no label."""
    return F.one_hot(labels.clamp_min(0), classes).float() * (labels >= 0)[..., None]


def aims_of(ground: Ground, arm: Arm, knob: float, seeds: Sequence[int], answers: Tensor) -> Tensor:
    """What the students of an arm are to say, (seeds, N, classes)."""
    if arm.aims == "soft":
        return (answers / knob).softmax(-1)
    said = one_hot(torch.stack([flipped_labels(ground, seed, arm.flipped) for seed in seeds]), ground.classes)
    if arm.aims == "smoothed":
        return (1 - knob) * said + knob / ground.classes
    if arm.aims == "named":
        named = one_hot(answers.argmax(-1), ground.classes)
        for number, seed in enumerate(seeds):
            unlabelled = order_of_rows(ground, seed)[arm.labelled :]
            said[number, unlabelled] = named[number, unlabelled]
    return said


def answers_for(ground: Ground, arm: Arm, seeds: Sequence[int], asked: Callable[[str], Tensor]) -> Tensor:
    """The teacher's logits as the arm reads them, with its noise; empty if it asks no teacher."""
    if arm.aims not in ("soft", "named"):
        return torch.empty(0)
    answers = asked(arm.teacher)
    if not arm.noise:
        return answers
    drawn = [torch.randn(answers.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return answers + arm.noise * answers.std() * torch.stack(drawn)


# ---------------------------------------------------------------------------------------------------------------------
# Tuning and judging


@dataclass(frozen=True)
class Setting:
    """What is tuned."""

    rate: float
    knob: float
    steps: int


def settings_of(arm: Arm) -> dict[tuple[float, float], list[int]]:
    """The numbers of steps at which a training with each rate and knob may be stopped."""
    return {each: [round(arm.longer * steps) for steps in STEPS] for each in itertools.product(RATES, arm.knobs)}


def right_of(
    ground: Ground,
    arm: Arm,
    rate: float,
    knob: float,
    steps: Sequence[int],
    seeds: Sequence[int],
    answers: Tensor,
    judged: Tensor,
) -> dict[int, np.ndarray]:
    """Which of the `judged` rows each seed's student gets right after so many steps: (seeds, rows), true or false."""
    aims = aims_of(ground, arm, knob, seeds, answers)
    rows = torch.stack([order_of_rows(ground, seed)[: arm.rows] for seed in seeds])
    crowd = Crowd(ground.inputs.shape[1], ground.width, ground.classes, seeds)
    found: dict[int, np.ndarray] = {}

    def look(step: int) -> None:
        if step in steps:
            with torch.no_grad():
                said = crowd(ground.inputs[judged]).argmax(-1)
            found[step] = (said == ground.labels[judged]).numpy()

    is_soft = arm.aims == "soft"
    decay = knob if arm.aims in ("labels", "named") else DECAY
    temperature = knob if is_soft else 1.0
    train(
        crowd, ground.inputs, rows, aims, seeds,
        steps=max(steps), rate=rate, temperature=temperature, decay=decay, look=look,
    )  # fmt: skip
    return found


def tune(
    ground: Ground, arm: Arm, asked: Callable[[str], Tensor], seeds: Sequence[int] = TUNING_SEEDS
) -> tuple[Setting, dict[str, float]]:
    """The setting with the best mean on the validation rows, and the accuracy of each that was tried."""
    answers = answers_for(ground, arm, seeds, asked)
    tried: dict[Setting, float] = {}
    for (rate, knob), steps in settings_of(arm).items():
        found = right_of(ground, arm, rate, knob, steps, seeds, answers, ground.validation)
        tried |= {Setting(rate, knob, count): float(right.mean()) for count, right in found.items()}
    best = max(tried, key=lambda setting: tried[setting])
    return best, {f"{each.rate:g} {each.knob:g} {each.steps}": score for each, score in tried.items()}


def judge(
    ground: Ground, arm: Arm, setting: Setting, asked: Callable[[str], Tensor], seeds: Sequence[int] = SEEDS
) -> np.ndarray:
    """Which test rows each seed's student gets right, (seeds, rows)."""
    answers = answers_for(ground, arm, seeds, asked)
    return right_of(ground, arm, setting.rate, setting.knob, [setting.steps], seeds, answers, ground.test)[
        setting.steps
    ]


def asking(ground: Ground, seeds: Sequence[int]) -> Callable[[str], Tensor]:
    """`ask`, where each teacher is trained once."""
    return cache(lambda name: ask(ground, name, seeds))


# ---------------------------------------------------------------------------------------------------------------------
# The record


@dataclass(frozen=True)
class Results(Record):
    """What was measured, by task and arm."""

    stored = RESULTS
    rounded = five_digits

    plan: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)
    """How many test rows a task has."""
    right: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """One for each seed: which test rows its student got right, as `lab07.pack` has it."""
    teachers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """The same of the teachers; that of the reviews has one seed."""
    settings: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """`rate`, `knob` and `steps` that were chosen."""
    tried: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """The validation accuracy of each setting, by its rate, knob and steps, in one string."""
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    """CPU seconds of an arm's judged runs, all seeds at once."""
    minutes: float = 0.0
    """CPU minutes in all."""
    versions: dict[str, str] = field(default_factory=dict)

    def of(self, arm: str, task: str = "digits") -> np.ndarray:
        """Which test rows each seed got right, (seeds, rows), 0 or 1."""
        return np.stack([unpack(packed, self.rows[task]) for packed in self.right[task][arm]]).astype(float)

    def of_teacher(self, name: str, task: str = "digits") -> np.ndarray:
        """The same of a teacher."""
        return np.stack([unpack(packed, self.rows[task]) for packed in self.teachers[task][name]]).astype(float)

    def series(self, side: str | Gain, task: str) -> np.ndarray:
        """An arm's right answers, or of a pair what the later one has more, (seeds, rows)."""
        if isinstance(side, str):
            return self.of(side, task)
        before, after = side
        return self.of(after, task) - self.of(before, task)

    def compare(self, comparison: Comparison) -> Verdict:
        """The difference in accuracy, over other seeds and other test rows."""
        first, second = (self.series(side, comparison.task) for side in (comparison.first, comparison.second))
        return compare_paired(first, second)

    def family(self) -> dict[Comparison, tuple[Verdict, float]]:
        """Each of `COMPARISONS`, with its p-value after Holm over all of them."""
        verdicts = [self.compare(comparison) for comparison in COMPARISONS]
        adjusted = holm([verdict.p for verdict in verdicts])
        return dict(zip(COMPARISONS, zip(verdicts, adjusted, strict=True), strict=True))


def the_plan() -> dict[str, Any]:
    """What all arms have in common, and by which a record is known to be of this experiment."""
    return {
        "seeds": len(SEEDS),
        "tuning seeds": len(TUNING_SEEDS),
        "steps": list(STEPS),
        "rates": list(RATES),
        "knobs": {aims: list(knobs) for aims, knobs in KNOBS.items()},
        "batch": BATCH,
    }


def measure(
    results: Results,
    ground: Ground,
    task: str,
    arms: Mapping[str, Arm],
    say: Callable[[str], object] = print,
    keep: Callable[[Results], object] = lambda results: None,
) -> Results:
    """The arms of a task that `results` do not have; `keep` is given what there is after each one."""
    asked = {seeds: asking(ground, seeds) for seeds in (TUNING_SEEDS, SEEDS)}
    by_task = {name: getattr(results, name).setdefault(task, {}) for name in KEPT}
    results.rows[task] = len(ground.test)
    for name, arm in arms.items():
        if name in by_task["right"]:
            continue
        began = time.process_time()
        setting, tried = tune(ground, arm, asked[TUNING_SEEDS], TUNING_SEEDS)
        answers_for(ground, arm, SEEDS, asked[SEEDS])  # so that the teacher is no part of the arm's seconds
        judging = time.process_time()
        right = judge(ground, arm, setting, asked[SEEDS], SEEDS)
        by_task["seconds"][name] = time.process_time() - judging
        by_task["settings"][name], by_task["tried"][name] = asdict(setting), tried
        if arm.aims in ("soft", "named"):
            by_task["teachers"][arm.teacher] = _right_of_teacher(ground, asked[SEEDS](arm.teacher))
        by_task["right"][name] = [pack(of_seed) for of_seed in right]
        results = Results(**vars(results) | {"minutes": results.minutes + (time.process_time() - began) / 60})
        say(f"{task}, {arm.words}: {100 * right.mean():.2f}% with {setting}")
        keep(results)
    return results


KEPT = ("right", "teachers", "settings", "tried", "seconds")


def _right_of_teacher(ground: Ground, logits: Tensor) -> list[str]:
    right = logits[:, ground.test].argmax(-1) == ground.labels[ground.test]
    return [pack(of_seed.numpy()) for of_seed in (right[:1] if ground.answers is not None else right)]


def begin(path: Path) -> Results:
    """What an earlier call has left of this experiment, or nothing yet."""
    if path.exists():
        earlier = Results.load(path)
        if earlier.plan == the_plan() and earlier.versions == versions():
            return earlier
    return Results(the_plan(), versions=versions())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m kdcourse.labs.lab12", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="a record that is there is completed")
    parser.add_argument("--tasks", nargs="+", choices=list(LOADERS), default=list(LOADERS))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = begin(chosen.out)
    for task in chosen.tasks:
        results = measure(results, LOADERS[task](), task, ARMS[task], keep=lambda each: each.save(chosen.out))
    print(f"{chosen.out} has what was measured.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
