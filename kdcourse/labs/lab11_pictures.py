"""What lab 11 asks with `DistillationTrainer`: answers that are kept while pictures move, layers, and two teachers.

Residual networks of transformers learn scikit-learn's digits, which an image processor brings to 16 × 16 pixels: the
first half of them, as in the quick profile of lab 11, and the other half judges. Each finished student's answers are
kept, so that a run that was interrupted goes on where it was.

    python -m kdcourse.labs.lab11_pictures --folder build/lab11_pictures    # about four minutes of one core
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    PrinterCallback,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from kdcourse import DistillationArguments, DistillationTrainer, Feature, forward_kl
from kdcourse.hashing import hash_json
from kdcourse.labs import lab11
from kdcourse.labs.experiments import versions
from kdcourse.labs.kept import kept_with_seconds
from kdcourse.labs.lab11 import CLASSES, errors, right_but_for, shifted, wrong_answers
from kdcourse.labs.mnist import Pictures
from kdcourse.labs.record import COMPACT, Record
from kdcourse.labs.verdict import Verdict, compare_paired
from kdcourse.teacher import add_logits, cache_logits, score
from kdcourse.teachers import mix_logits

if TYPE_CHECKING:
    from transformers import ViTImageProcessor

RESULTS = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "lab11_pictures.json"
"""What was measured."""

SIDE = 16
LAYER = "resnet.encoder.stages.0"
"""Of student and teacher: its width is 8 in one and 16 in the other, on 4 × 4 places."""

HALVES = {"0 to 4": range(5), "5 to 9": range(5, 10)}
"""The classes that a specialist has seen."""


@dataclass(frozen=True)
class Plan:
    """What the arms have in common."""

    steps: int = 200
    batch_size: int = 64
    rate: float = 1e-2
    alpha: float = 0.1
    temperature: float = 2.5
    most: int = 1
    """Pixels by which a picture is shifted at most: half of one of the 8 × 8."""
    copies: int = 8
    """Shifts of each picture, where answers are kept for (picture, seed)."""
    weights: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Of the layer's loss, tried on pictures that are held out."""
    held_out: int = 300
    seeds: int = 5


@dataclass(frozen=True)
class Arm:
    """One way to learn."""

    alpha: float | None = None
    """None is the plan's."""
    shifted: bool = False
    """Whether the student sees each picture shifted, anew each time."""
    answers: str = "asked"
    """Where the teacher's come from: `asked`, `kept`, `kept by seed`, or, of specialists, `probabilities`, `logits`."""
    layer: bool = False


ARMS = {
    "labels, shifted": Arm(alpha=1.0, shifted=True),
    "the cached answer to the picture as it was": Arm(shifted=True, answers="kept"),
    "the teacher asked about what the student sees": Arm(shifted=True),
    "answers cached for eight shifts of each": Arm(shifted=True, answers="kept by seed"),
    "labels": Arm(alpha=1.0),
    "labels and a layer": Arm(alpha=1.0, layer=True),
    "soft answers": Arm(answers="kept"),
    "soft answers and a layer": Arm(layer=True),
    "one teacher": Arm(alpha=0.0, answers="kept"),
    "mean of probabilities": Arm(alpha=0.0, answers="probabilities"),
    "mean of logits": Arm(alpha=0.0, answers="logits"),
}


def image_processor() -> ViTImageProcessor:
    """For pictures of ink from 0 to 255, with one channel: 16 × 16 pixels, from −1 to 1. Nothing is downloaded."""
    from transformers import ViTImageProcessor  # where torchvision is missing, its import says so

    return ViTImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0.5], image_std=[0.5])


def processed(images: Tensor) -> Tensor:
    """Pictures (N, 8, 8), from 0 to 1, as the models read them: (N, 1, 16, 16)."""
    arrays = [(255 * image[..., None]).byte().numpy() for image in images]
    return image_processor()(arrays, input_data_format="channels_last", return_tensors="pt")["pixel_values"]


def classifier(width: int, seed: int) -> ResNetForImageClassification:
    """A residual network of two stages, `width` and twice as wide, with random weights."""
    torch.manual_seed(seed)
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1, embedding_size=width, hidden_sizes=[width, 2 * width], depths=[1, 1], layer_type="basic",
            num_labels=CLASSES,  # type: ignore[call-arg]  # every configuration takes it
        )
    )  # fmt: skip


TEACHER_WIDTH, STUDENT_WIDTH = 16, 8


def moved(pixel_values: Tensor, most: int) -> Tensor:
    """Pictures (N, 1, S, S) as a model reads them, shifted at random; what comes in is paper, −1."""
    return shifted(pixel_values[:, 0] + 1, most)[:, None] - 1


@dataclass(frozen=True)
class Moving:
    """Makes a batch of rows, as the Trainer does, and shifts its pictures, for whoever reads them."""

    most: int

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        batch = default_data_collator(rows)
        return batch | {"pixel_values": moved(batch["pixel_values"], self.most)}


def as_rows(pixel_values: Tensor, labels: Tensor) -> Dataset:
    """A dataset for the trainer."""
    columns = {"pixel_values": pixel_values.numpy(), "labels": labels.numpy()}
    return Dataset.from_dict(columns).with_format("torch")


def trained(
    student: nn.Module, rows: Dataset, plan: Plan, seed: int, *, alpha: float, most: int = 0, teacher: Any = None,
    features: Sequence[Feature] = (),
) -> nn.Module:  # fmt: skip
    """A student after its training, in eval mode; on labels alone (`alpha` 1, no features) by transformers' Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        settings: Any = {
            "output_dir": folder, "max_steps": plan.steps, "learning_rate": plan.rate, "seed": seed, "use_cpu": True,
            "per_device_train_batch_size": plan.batch_size, "lr_scheduler_type": "cosine",
            "warmup_steps": plan.steps // 10, "report_to": "none", "save_strategy": "no", "logging_strategy": "no",
            "disable_tqdm": True,
        }  # fmt: skip
        given: Any = {"train_dataset": rows, "data_collator": Moving(most)}
        if alpha == 1 and not features:
            trainer = Trainer(student, TrainingArguments(**settings), **given)
        else:
            arguments = DistillationArguments(**settings, alpha=alpha, temperature=plan.temperature)
            trainer = DistillationTrainer(student, arguments, teacher=teacher, features=features, **given)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return student.eval()


@dataclass
class Lab:
    """Digits, teachers, and what is computed of them, kept in `folder`."""

    folder: Path
    plan: Plan = Plan()
    seconds: dict[str, float] = field(default_factory=dict)
    """Of one core, by what was computed."""

    @cached_property
    def train(self) -> Pictures:
        """As models read them."""
        pictures = lab11.load_task(self.folder, lab11.QUICK).train
        return Pictures(processed(pictures.images), pictures.labels)

    @cached_property
    def test(self) -> Pictures:
        pictures = lab11.load_task(self.folder, lab11.QUICK).test
        return Pictures(processed(pictures.images), pictures.labels)

    @cached_property
    def test_shifted(self) -> Tensor:
        """The test pictures, each with one shift that is always the same."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return moved(self.test.images, self.plan.most)

    @cached_property
    def teacher(self) -> nn.Module:
        """It has seen all classes, and shifted pictures."""
        return self._teacher("teacher", range(CLASSES))

    @cached_property
    def specialists(self) -> list[nn.Module]:
        """Each has seen one half of the classes."""
        return [self._teacher(f"specialist for {name}", classes) for name, classes in HALVES.items()]

    def _teacher(self, name: str, classes: Sequence[int]) -> nn.Module:
        model = classifier(TEACHER_WIDTH, seed=0)

        def fit() -> dict[str, Tensor]:
            seen = torch.isin(self.train.labels, torch.tensor(list(classes)))
            rows = as_rows(self.train.images[seen], self.train.labels[seen])
            return trained(model, rows, self.plan, seed=0, alpha=1.0, most=self.plan.most).state_dict()

        model.load_state_dict(self._kept(name, {}, fit))
        return model.eval().requires_grad_(False)

    def rows_of(self, arm: Arm, rows: Tensor) -> tuple[Dataset, Any]:
        """The dataset of an arm, of some of the training pictures, and its teacher."""
        images, labels = self.train.images[rows], self.train.labels[rows]
        dataset = as_rows(images, labels)
        if arm.answers in ("probabilities", "logits"):
            logits = [score(each, None, dataset) for each in self.specialists]
            return add_logits(dataset, self.mixed(logits, arm.answers)), None
        if arm.alpha == 1 and not arm.layer:
            return dataset, None
        if arm.answers == "asked":
            return dataset, self.teacher
        if arm.answers == "kept by seed":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                copies = torch.cat([moved(images, self.plan.most) for _ in range(self.plan.copies)])
            dataset = as_rows(copies, labels.repeat(self.plan.copies))
        with tempfile.TemporaryDirectory() as folder:
            cached = cache_logits(Path(folder) / "answers", self.teacher, None, dataset)
            answers = [cast("Tensor", cached.cache[row]) for row in range(len(dataset))]  # whole: there is no k
            return add_logits(dataset, torch.stack(answers)), None

    def mixed(self, logits: Sequence[Tensor], how: str) -> Tensor:
        """What the specialists say together."""
        return mix_logits(logits, [1 / len(logits)] * len(logits), self.plan.temperature, how)

    def answers(self, arm: Arm, seed: int, weight: float = 0.0, held_out: int = 0) -> dict[str, Tensor]:
        """A student's logits for the test pictures (N, 10), `as they are` and `shifted`, and for those held out."""
        settings = {**asdict(arm), "seed": seed, "weight": weight, "held out": held_out}

        def fit() -> dict[str, Tensor]:
            count = len(self.train.labels)
            dataset, teacher = self.rows_of(arm, torch.arange(count - held_out))
            most = self.plan.most if arm.shifted and arm.answers != "kept by seed" else 0
            alpha = self.plan.alpha if arm.alpha is None else arm.alpha
            student = trained(
                classifier(STUDENT_WIDTH, seed=1000 + seed), dataset, self.plan, seed, alpha=alpha, most=most,
                teacher=teacher, features=[Feature(LAYER, LAYER, weight=weight)] if arm.layer else (),
            )  # fmt: skip
            judged = {"as they are": self.test.images, "shifted": self.test_shifted}
            judged |= {"held out": self.train.images[count - held_out :]} if held_out else {}
            with torch.no_grad():
                return {name: student(pixel_values=images).logits for name, images in judged.items()}

        return self._kept("student", settings, fit)

    @cached_property
    def weights_tried(self) -> dict[float, int]:
        """Errors on pictures held out, by the weight of the layer's loss, of a seed that no result has."""
        held_out, arm = self.plan.held_out, ARMS["soft answers and a layer"]
        labels = self.train.labels[-held_out:]
        return {
            weight: errors(self.answers(arm, 99, weight, held_out)["held out"], labels) for weight in self.plan.weights
        }

    def apart(self, most: int | None = None, draws: int = 8) -> dict[str, float]:
        """How far the teacher's answer to a training picture is from the one to the same, shifted.

        Args:
            most: pixels; None takes those of the plan.
        """
        most = self.plan.most if most is None else most
        kl, other = [], []
        kept_logits = self.teacher(pixel_values=self.train.images).logits
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(draws):
                asked = self.teacher(pixel_values=moved(self.train.images, most)).logits
                both = [(each / self.plan.temperature).log_softmax(-1) for each in (kept_logits, asked)]
                kl.append(forward_kl(*both).mean().item())
                other.append((kept_logits.argmax(-1) != asked.argmax(-1)).float().mean().item())
        return {"KL, nats": float(np.mean(kl)), "another digit": float(np.mean(other))}

    def teachers_errors(self) -> dict[str, int]:
        """On the test pictures, of each teacher and of the two ways to mix the specialists."""
        images, labels = self.test
        said = {"teacher": self.teacher(pixel_values=images).logits}
        logits = [each(pixel_values=images).logits for each in self.specialists]
        said |= dict(zip(HALVES, logits, strict=True))
        said |= {how: self.mixed(logits, how) for how in ("probabilities", "logits")}
        return {name: errors(each, labels) for name, each in said.items()}

    def _kept(self, name: str, settings: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        digest = hash_json({"plan": asdict(self.plan), "versions": versions(), "name": name, **settings})[:16]
        path = self.folder / f"{name.replace(' ', '-')}-{digest}.safetensors"
        tensors, self.seconds[digest] = kept_with_seconds(path, make)
        return tensors


@dataclass
class Results(Record):
    """What was measured."""

    stored = RESULTS
    layout = COMPACT

    pictures: int
    """That judge."""
    arms: dict[str, dict[str, list[list[int]]]]
    """By arm, for the test pictures `as they are` and `shifted`, for each seed, the numbers of those it got wrong."""
    apart: dict[str, float]
    teachers: dict[str, int]
    weights: dict[str, int]
    """By weight of the layer's loss, errors on pictures held out."""
    plan: dict[str, Any]
    minutes: float
    versions: dict[str, str] = field(default_factory=dict)

    def errors(self, arm: str, judge: str = "as they are") -> list[int]:
        """One number for each seed."""
        return [len(wrong) for wrong in self.arms[arm][judge]]

    def right(self, arm: str, judge: str = "as they are") -> np.ndarray:
        """Whether each student was right about each test picture, (seeds, pictures)."""
        return right_but_for(self.arms[arm][judge], self.pictures)

    def compare(self, first: str, second: str, judge: str = "as they are") -> Verdict:
        """By which share of the pictures the second arm is right more often, over other seeds and other pictures."""
        return compare_paired(self.right(first, judge), self.right(second, judge))


def run_all(lab: Lab, announce: Callable[[str], object] = print) -> Results:
    """Train, or fetch, all students, and judge them."""
    labels, arms = lab.test.labels, {}
    teachers = lab.teachers_errors()
    announce(f"teachers: {teachers}")
    tried = lab.weights_tried
    announce(f"weights of the layer: {tried}")
    weight = min(tried, key=tried.__getitem__)
    for name, arm in ARMS.items():
        judged: dict[str, list[list[int]]] = {"as they are": [], "shifted": []}
        for seed in range(lab.plan.seeds):
            answers = lab.answers(arm, seed, weight if arm.layer else 0.0)
            for judge, wrong in judged.items():
                wrong.append([index for index, _ in wrong_answers(answers[judge], labels)])
        arms[name] = judged
        announce(f"{name}: " + "; ".join(f"{judge} {[len(each) for each in wrong]}" for judge, wrong in judged.items()))
    return Results(
        pictures=len(labels), arms=arms, apart=lab.apart(), teachers=teachers,
        weights={f"{each:g}": count for each, count in tried.items()}, plan=asdict(lab.plan),
        minutes=round(sum(lab.seconds.values()) / 60, 1), versions=versions(),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m kdcourse.labs.lab11_pictures", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("build/lab11_pictures"), help="keeps what is finished")
    folder = parser.parse_args(arguments).folder
    torch.set_num_threads(1)  # networks this small are not faster with more
    run_all(Lab(folder)).save(folder / "results.json")
    print(f"{folder / 'results.json'} has what was measured.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
