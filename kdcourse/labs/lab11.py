"""What lab 11 works on: section 3 of "Distilling the Knowledge in a Neural Network", again.

Hinton, Vinyals and Dean (2015) let a network of two layers teach a smaller one on MNIST, then a student that has never
seen a 3, and one that has seen nothing but 7s and 8s. Their settings are taken over where they are stated: widths,
ReLUs, dropout, limited weight norms and jittered pictures for the teacher, temperature 20, a student without any of
these. What is not stated (optimizer, length, weight of the labels) is chosen here; learning rates are chosen for each
kind of student by pictures that are held out of the training set, and test pictures judge once.

Each finished training is kept under a name that ends in a fingerprint of all that it depends on, and one on its way is
saved every few epochs, so that a run that was interrupted goes on where it was.

    python -m kdcourse.labs.lab11 --profile full --folder build/lab11    # MNIST, an hour and a half of one core
    python -m kdcourse.labs.lab11                                        # 8 × 8 digits, a minute

`--mnist FOLDER` takes MNIST's four files from a folder.
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from kdcourse import distillation_loss
from kdcourse.files import written_whole
from kdcourse.hashing import hash_json, hash_tensors
from kdcourse.labs import digits, mnist
from kdcourse.labs.experiments import versions
from kdcourse.labs.kept import kept_with_seconds
from kdcourse.labs.mnist import Pictures
from kdcourse.labs.record import COMPACT, Record
from kdcourse.labs.verdict import Verdict, compare_paired

RESULTS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "lab11.json"
"""What the full profile measured."""

CLASSES = 10
SAVED_EVERY = 5
"""Epochs that an interruption can lose."""

PAPER = {
    "teacher": 67, "plain": 146, "distilled": 74,
    "no threes": 206, "no threes, of the threes": 133, "no threes, corrected": 109,
    "no threes, corrected, of the threes": 14, "only 7s and 8s, %": 47.3, "only 7s and 8s, corrected, %": 13.2,
}  # fmt: skip
"""Test errors that section 3 of the paper reports; the last two in percent."""

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""`objective(model, images, rows)`: what is minimized on a batch (B, S, S), as jitter left it, of these rows (B,)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam, a learning rate that rises for a tenth of the steps and falls as a cosine."""

    steps: int
    rate: float
    batch_size: int = 128
    jitter: int = 0
    """Pixels by which a picture is shifted at most, in each direction, anew each time."""
    max_norm: float = 0.0
    """Limit of the norm of the weights that enter a hidden unit; 0 for none."""
    bf16: bool = False
    """Multiply matrices in bfloat16, which takes half the time on a CPU that can."""


@dataclass(frozen=True)
class Arm:
    """One student: its width, what it learns from, and which pictures."""

    size: str
    """`student`, `small` or `tiny`; see `Plan.widths`."""
    alpha: float
    temperature: float = 1.0
    pictures: str = "all"
    """`all`, `no threes`, `only 7s and 8s`, or `3%`."""
    length: float = 1.0
    """Of the plan's steps."""
    jitter: bool = False
    """Whether its pictures are shifted as the teacher's were, and the teacher answers them as they are."""


@dataclass(frozen=True)
class Plan:
    """What the arms of an experiment have in common."""

    teacher_width: int
    widths: Mapping[str, int]
    teacher: Recipe
    steps: Mapping[str, int]
    """By size of the student."""
    rates: tuple[float, ...]
    trial: Mapping[str, float]
    """Share of its steps for which a student tries each rate, by size."""
    held_out: int
    """Pictures of the training set that choose the rate."""
    batch_size: int
    """Of the students."""
    seeds: int
    """Of each student; the tiny ones, which are cheap and differ more, have `tiny_seeds`."""
    alpha: float = 0.1
    """Weight of the labels where a teacher is heard, too."""
    temperature: float = 20.0
    temperatures: tuple[float, ...] = (1.0, 2.5, 4.0, 8.0, 20.0)
    """Tried for the small students."""
    tiny_seeds: int = 3
    input_dropout: float = 0.1
    dropout: float = 0.4
    """Of the teacher."""


FULL = Plan(
    teacher_width=1200,
    widths={"student": 800, "small": 300, "tiny": 30},
    teacher=Recipe(steps=14_000, rate=2e-3, batch_size=512, jitter=2, max_norm=2.5, bf16=True),
    steps={"student": 4_000, "small": 6_000, "tiny": 6_000},
    rates=(1e-3, 2e-3, 4e-3, 8e-3),
    trial={"student": 1.0, "small": 0.3, "tiny": 0.3},
    held_out=10_000,
    batch_size=128,
    seeds=3,
    tiny_seeds=8,
)
QUICK = Plan(
    teacher_width=128,
    widths={"student": 16, "small": 12, "tiny": 8},
    teacher=Recipe(steps=1_200, rate=5e-3, batch_size=64, max_norm=3.5),
    steps={"student": 500, "small": 500, "tiny": 500},
    rates=(1e-2, 3e-2),
    trial={"student": 1.0, "small": 1.0, "tiny": 1.0},
    held_out=300,
    batch_size=64,
    seeds=3,
    temperature=2.5,
    input_dropout=0.1,
    dropout=0.3,
)
"""Chosen on 300 of the training digits. There is no jitter: a shift by a pixel of eight makes the teacher worse."""
PROFILES = {"full": FULL, "quick": QUICK}


def arms_of(plan: Plan) -> dict[str, Arm]:
    """The students of an experiment, by name."""
    taught = partial(Arm, "student", plan.alpha, plan.temperature)
    arms = {
        "plain": Arm("student", alpha=1.0),
        "distilled": taught(),
        "no threes": taught(pictures="no threes"),
        "plain, no threes": Arm("student", alpha=1.0, pictures="no threes"),
        "only 7s and 8s": taught(pictures="only 7s and 8s"),
        "plain, 3%": Arm("student", alpha=1.0, pictures="3%"),
        "distilled, 3%": taught(pictures="3%"),
        "plain, four times the steps": Arm("student", alpha=1.0, length=4.0),
        "distilled, four times the steps": taught(length=4.0),
    }
    if plan.teacher.jitter:
        arms["plain, jittered"] = Arm("student", alpha=1.0, length=2.0, jitter=True)
        arms["distilled, jittered"] = taught(length=2.0, jitter=True)
    for size in ("small", "tiny"):
        arms[f"plain, {size}"] = Arm(size, alpha=1.0)
        for temperature in plan.temperatures:
            arms[f"T = {temperature:g}, {size}"] = Arm(size, plan.alpha, temperature)
    return arms


def network(side: int, width: int, input_dropout: float = 0.0, dropout: float = 0.0) -> nn.Sequential:
    """Two hidden layers of `width` ReLUs; logits for ten classes of pictures (N, S, S)."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
    for inputs in (side * side, width):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def shifted(images: Tensor, most: int) -> Tensor:
    """Pictures (N, S, S), each shifted by up to `most` pixels in each direction; what comes in is paper, 0."""
    if not most:
        return images
    count, side = len(images), images.shape[-1]
    windows = F.pad(images, (most,) * 4).unfold(1, side, 1).unfold(2, side, 1)
    down, right = torch.randint(0, 2 * most + 1, (2, count))
    return windows[torch.arange(count), down, right]


@torch.no_grad()
def limit_norms(model: nn.Sequential, most: float) -> None:
    """Scale down what enters a hidden unit if its norm is above `most`, in place (Srivastava et al. 2014)."""
    if most:
        *hidden, _ = [layer for layer in model if isinstance(layer, nn.Linear)]
        for layer in hidden:
            layer.weight.copy_(torch.renorm(layer.weight, p=2, dim=0, maxnorm=most))


def train(
    model: nn.Sequential,
    images: Tensor,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    unfinished: Path | None = None,
) -> nn.Sequential:
    """Train a network in place; it comes back in eval mode.

    Args:
        images: (N, S, S).
        seed: of the order, jitter and dropout. They are drawn anew at each epoch from the seed and its number, so that
            a training that goes on is the one that was interrupted.
        unfinished: a file to which the training is saved every few epochs, and from which it goes on.
    """
    optimizer = torch.optim.Adam(model.parameters(), recipe.rate, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.steps // 10, recipe.steps)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    step, epoch = _restore(parts, unfinished)
    with torch.random.fork_rng():
        while step < recipe.steps:
            torch.manual_seed(seed * 100_003 + epoch)
            model.train()
            for rows in torch.randperm(len(images)).split(recipe.batch_size)[: recipe.steps - step]:
                optimizer.zero_grad()
                with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bf16):
                    loss = objective(model, shifted(images[rows], recipe.jitter), rows)
                loss.backward()
                optimizer.step()
                schedule.step()
                limit_norms(model, recipe.max_norm)
                step += 1
            epoch += 1
            if unfinished and epoch % SAVED_EVERY == 0 and step < recipe.steps:
                with written_whole(unfinished) as file:
                    torch.save({name: part.state_dict() for name, part in parts.items()} | {"at": (step, epoch)}, file)
    return model.eval()


def _restore(parts: Mapping[str, Any], unfinished: Path | None) -> tuple[int, int]:
    """Go on from a file, if it is there; the number of steps and epochs that are done."""
    if unfinished is None or not unfinished.exists():
        return 0, 0
    states = torch.load(unfinished, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return states["at"]


def labels_alone(labels: Tensor) -> Objective:
    """The cross-entropy with `labels` (N,)."""
    return lambda model, images, rows: F.cross_entropy(model(images), labels[rows])


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, 10)."""
    return torch.cat([model(batch) for batch in images.split(1000)])


def errors(logits: Tensor, labels: Tensor) -> int:
    """How many pictures are taken for another digit."""
    return int((logits.argmax(dim=1) != labels).sum())


SHIFTS = torch.arange(-20, 20.05, 0.1)


def best_shift(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> float:
    """What to add to the biases of some classes, to a tenth, so that errors are fewest; of several, the middle one.

    The paper chooses 3.5 for the missing 3, and −7.6 where there is nothing but 7s and 8s, by the test pictures.
    """
    counts = torch.tensor([errors(moved(logits, classes, float(shift)), labels) for shift in SHIFTS])
    best = (counts == counts.min()).nonzero().flatten()
    return round(float(SHIFTS[best[len(best) // 2]]), 1)


def moved(logits: Tensor, classes: Sequence[int], shift: float) -> Tensor:
    """The logits of a model in which `shift` is added to the biases of some classes."""
    added = torch.zeros(logits.shape[-1])
    added[list(classes)] = shift
    return logits + added


def corrected_by_others(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Logits with biases corrected, where each half of the pictures is corrected by what is best for the other half.

    A correction that is chosen on the pictures that judge it, as in the paper, flatters itself a little.
    """
    halves = torch.arange(len(labels)) % 2 == 0
    corrected = logits.clone()
    for half in (halves, ~halves):
        corrected[half] = moved(logits[half], classes, best_shift(logits[~half], labels[~half], classes))
    return corrected


OMITTED = {"no threes": [3], "plain, no threes": [3], "only 7s and 8s": [7, 8]}
"""Arms whose biases are corrected, and of which classes."""


@dataclass
class Task:
    """Pictures to learn from and to judge by, and what is computed of them, kept in `folder`."""

    folder: Path
    plan: Plan
    train: Pictures
    test: Pictures
    seconds: dict[str, float] = field(default_factory=dict)
    """Of one core, by training; of one that was interrupted, those since."""

    @property
    def side(self) -> int:
        return self.train.images.shape[-1]

    @cached_property
    def digest(self) -> str:
        """Of what every training depends on."""
        tensors = {"train": self.train.images, "labels": self.train.labels, "test": self.test.images}
        return hash_json({"pictures": hash_tensors(tensors), "versions": versions()})

    @cached_property
    def teacher(self) -> nn.Sequential:
        """Dropout, limited norms, jittered pictures and their labels."""
        plan = self.plan

        def fit(model: nn.Sequential, unfinished: Path) -> None:
            train(model, self.train.images, labels_alone(self.train.labels), plan.teacher, 0, unfinished)

        torch.manual_seed(0)
        model = network(self.side, plan.teacher_width, plan.input_dropout, plan.dropout)
        settings = {"width": plan.teacher_width, "dropout": [plan.input_dropout, plan.dropout]}
        return self._trained("teacher", settings | asdict(plan.teacher), model, fit).requires_grad_(False)

    @cached_property
    def teachers_answers(self) -> Tensor:
        """Its logits for the pictures of the training set as they are, (N, 10)."""
        return answers(self.teacher, self.train.images)

    def rows_of(self, arm: Arm, train: Pictures) -> Tensor:
        """The numbers of the pictures that an arm learns from."""
        every = torch.arange(len(train.labels))
        if arm.pictures == "no threes":
            return every[train.labels != 3]  # noqa: PLR2004
        if arm.pictures == "only 7s and 8s":
            return every[(train.labels == 7) | (train.labels == 8)]  # noqa: PLR2004
        return every[: round(0.03 * len(every))] if arm.pictures == "3%" else every

    def student(self, arm: Arm, rate: float, seed: int, *, held_out: int = 0, length: float = 1.0) -> nn.Sequential:
        """A student that has learned; without the last `held_out` pictures, and for a share of its steps."""
        pictures = Pictures(*(part[: len(part) - held_out] for part in self.train))
        rows = self.rows_of(arm, pictures)
        recipe = Recipe(
            steps=round(self.plan.steps[arm.size] * arm.length * length),
            rate=rate,
            batch_size=self.plan.batch_size,
            jitter=self.plan.teacher.jitter if arm.jitter else 0,
        )
        own = {name: value for name, value in asdict(arm).items() if name != "length"}  # the recipe counts the steps
        settings = {**own, **asdict(recipe), "width": self.plan.widths[arm.size], "held out": held_out}
        settings |= {"teacher": "" if arm.alpha == 1 else hash_tensors(dict(self.teacher.state_dict()))}

        def fit(model: nn.Sequential, unfinished: Path) -> None:
            train(model, pictures.images[rows], self._objective(arm, rows), recipe, seed, unfinished)

        torch.manual_seed(1_000 + seed)
        model = network(self.side, self.plan.widths[arm.size])
        name = "-".join([arm.size, f"alpha{arm.alpha:g}", arm.pictures.replace(" ", ""), str(seed)])
        return self._trained(name, settings | {"seed": seed}, model, fit)

    def _objective(self, arm: Arm, chosen: Tensor) -> Objective:
        """What an arm minimizes on a batch of its pictures, `chosen` of all."""
        labels = self.train.labels[chosen]
        if arm.alpha == 1:
            return labels_alone(labels)
        cached = None if arm.jitter else self.teachers_answers[chosen]

        def minimized(model: nn.Module, images: Tensor, rows: Tensor) -> Tensor:
            taught = answers(self.teacher, images) if cached is None else cached[rows]
            return distillation_loss(
                model(images), taught, labels[rows], alpha=arm.alpha, temperature=arm.temperature
            ).total  # fmt: skip

        return minimized

    def _trained(
        self, name: str, settings: Mapping[str, Any], model: nn.Sequential,
        fit: Callable[[nn.Sequential, Path], object],
    ) -> nn.Sequential:  # fmt: skip
        """The model with the weights that `fit(model, unfinished)` gives it, now or in an earlier call."""
        stem = f"{name}-{hash_json({'task': self.digest, **settings})[:16]}"
        unfinished = self.folder / f".{stem}.unfinished"

        def weights() -> dict[str, Tensor]:
            fit(model, unfinished)
            return dict(model.state_dict())

        trained, self.seconds[stem] = kept_with_seconds(self.folder / f"{stem}.safetensors", weights)
        unfinished.unlink(missing_ok=True)
        model.load_state_dict(trained)
        return model.eval()

    def kind(self, arm: Arm) -> str:
        """Arms of a kind take one learning rate: those of a size that hear a teacher, and those that do not."""
        return f"{arm.size}, {'plain' if arm.alpha == 1 else 'distilled'}"

    def try_rates(self, arm: Arm) -> dict[float, int]:
        """By learning rate, the errors on the pictures that are held out, of one seed that no result has."""
        arm = Arm(arm.size, arm.alpha, arm.temperature)
        held_out = self.plan.held_out
        images, labels = (part[-held_out:] for part in self.train)
        length = self.plan.trial[arm.size]
        tried = {rate: self.student(arm, rate, 99, held_out=held_out, length=length) for rate in self.plan.rates}
        return {rate: errors(answers(student, images), labels) for rate, student in tried.items()}


def load_task(folder: Path, plan: Plan, pictures: Path | None = None) -> Task:
    """MNIST for the plan of the full profile; for others, the 8 × 8 digits of scikit-learn.

    Args:
        pictures: a folder that has MNIST's four files; see `kdcourse.labs.mnist.load`.
    """
    if plan is FULL or pictures:
        return Task(folder, plan, mnist.load("train", pictures), mnist.load("test", pictures))
    images, labels = digits.load()
    images = images.reshape(-1, 8, 8)
    cut = len(images) // 2
    return Task(folder, plan, Pictures(images[:cut], labels[:cut]), Pictures(images[cut:], labels[cut:]))


def right_but_for(wrong: Sequence[Sequence[int]], pictures: int) -> np.ndarray:
    """1 where a student was right and 0 where it was wrong, (seeds, pictures), of the numbers of those it got wrong."""
    right = np.ones((len(wrong), pictures))
    for row, indices in zip(right, wrong, strict=True):
        row[list(indices)] = 0
    return right


@dataclass
class Results(Record):
    """What an experiment measured."""

    stored = RESULTS
    layout = COMPACT

    labels: list[int]
    """Of the test pictures, how many there are of each digit."""
    teacher: list[list[int]]
    """The test pictures that it takes for another digit, and for which."""
    arms: dict[str, list[list[list[int]]]]
    """By arm, for each seed, the same of a student."""
    corrected: dict[str, list[dict[str, float]]]
    """By arm with omitted digits, for each seed, what `judge_corrected` says."""
    trials: dict[str, dict[str, int]]
    """By kind of student and learning rate, the errors on pictures held out."""
    plan: dict[str, Any]
    minutes: float
    """Of one core, all trainings."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        return sum(self.labels)

    def errors(self, arm: str) -> list[int]:
        """One number for each seed; `teacher` has one."""
        return [len(wrong) for wrong in self._wrong(arm)]

    def right(self, arm: str) -> np.ndarray:
        """Whether each student was right about each test picture, (seeds, pictures)."""
        return right_but_for([[index for index, _ in pairs] for pairs in self._wrong(arm)], self.pictures)

    def compare(self, first: str, second: str) -> Verdict:
        """By which share of the pictures the second arm is right more often, over other seeds and other pictures."""
        return compare_paired(self.right(first), self.right(second))

    def share_saved(self, first: str, second: str) -> float:
        """Of the first arm's errors, in the mean over seeds, the share that the second does not make."""
        return 1 - mean(self.errors(second)) / mean(self.errors(first))

    def _wrong(self, arm: str) -> list[list[list[int]]]:
        return [self.teacher] if arm == "teacher" else self.arms[arm]


def judge_corrected(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> dict[str, float]:
    """A student's errors without correction, with the paper's, and with one that other pictures have chosen.

    Each is counted over all pictures, and over those of the first of the classes.
    """
    shift = best_shift(logits, labels, classes)
    own = labels == classes[0]
    judged: dict[str, float] = {"shift": shift}
    for name, answer in (
        ("as it is", logits),
        ("by the test pictures", moved(logits, classes, shift)),
        ("by other pictures", corrected_by_others(logits, labels, classes)),
    ):
        judged |= {name: errors(answer, labels), f"{name}, of its own": errors(answer[own], labels[own])}
    return judged


def wrong_answers(logits: Tensor, labels: Tensor) -> list[list[int]]:
    """The pictures that are taken for another digit, and for which."""
    choice = logits.argmax(dim=1)
    return [[index, int(choice[index])] for index in (choice != labels).nonzero().flatten().tolist()]


def run_all(
    task: Task, names: Sequence[str] = (), seeds: Sequence[int] = (), announce: Callable[[str], object] = print
) -> Results:
    """Train, or fetch, all students of a task, and judge them."""
    arms, plan = arms_of(task.plan), task.plan
    names = list(names) or list(arms)
    images, labels = task.test
    wrong: dict[str, list[list[list[int]]]] = {}
    corrected: dict[str, list[dict[str, float]]] = {}
    trials: dict[str, dict[float, int]] = {}
    teacher = wrong_answers(answers(task.teacher, images), labels)
    announce(f"teacher: {len(teacher)} errors")
    for name in names:
        arm = arms[name]
        kind = task.kind(arm)
        if kind not in trials:
            trials[kind] = task.try_rates(replace(arm, temperature=task.plan.temperature) if arm.alpha < 1 else arm)
        rate = min(trials[kind], key=trials[kind].__getitem__)
        own = list(seeds) or range(plan.tiny_seeds if arm.size == "tiny" else plan.seeds)
        logits = [answers(task.student(arm, rate, seed), images) for seed in own]
        wrong[name] = [wrong_answers(each, labels) for each in logits]
        if name in OMITTED:
            corrected[name] = [judge_corrected(each, labels, OMITTED[name]) for each in logits]
        announce(f"{name}: {', '.join(str(len(each)) for each in wrong[name])} errors at a rate of {rate:g}")
    return Results(
        labels=torch.bincount(labels, minlength=CLASSES).tolist(),
        teacher=teacher,
        arms={name: wrong[name] for name in names if name not in OMITTED},
        corrected=corrected,
        trials={kind: {f"{rate:g}": count for rate, count in tried.items()} for kind, tried in trials.items()},
        plan=asdict(task.plan),
        minutes=round(sum(task.seconds.values()) / 60, 1),
        versions=versions(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m kdcourse.labs.lab11", description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--folder", type=Path, default=Path("build/lab11"), help="keeps what is finished")
    parser.add_argument("--mnist", type=Path, help="a folder that has MNIST's four files; the asset if none is named")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="names; all of the profile if none is named")
    parser.add_argument("--seeds", nargs="+", type=int, help="numbers; all of the profile if none is named")
    chosen = parser.parse_args(arguments)
    known = arms_of(PROFILES[chosen.profile])
    if unknown := [name for name in chosen.arms or () if name not in known]:
        parser.error(f"the profile {chosen.profile} has no arm {unknown[0]!r}; it has {', '.join(known)}")
    torch.set_num_threads(1)  # networks this small are not faster with more, and a second process is
    task = load_task(chosen.folder / chosen.profile, PROFILES[chosen.profile], chosen.mnist)
    results = run_all(task, chosen.arms or (), chosen.seeds or ())
    results.save(task.folder / "results.json")
    print(f"{task.folder / 'results.json'} has what was measured.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
