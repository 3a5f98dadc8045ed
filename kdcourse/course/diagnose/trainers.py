"""A Trainer's `compute_loss`, as a loss of logits: its models answer with what they are told to.

The Trainer is not constructed, since nobody knows with what. What its constructor would have kept is given when it is
asked for: `self.teacher…` is a model, `self.args.temperature` and `self.alpha` are settings, and so on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.diagnose.batches import draw
from kdcourse.course.diagnose.case import Case
from kdcourse.course.diagnose.foreign import Recorder, Settings, possible_roles, value_of
from kdcourse.course.diagnose.report import Finding
from kdcourse.course.misuse import MisuseError

SETTLED = ("temperature", "weight", "hard_weight", "soft_weight", "beta")
PLAIN: dict[str, Any] = {
    "label_smoother": None, "compute_loss_func": None, "model_accepts_loss_kwargs": True, "label_names": ["labels"],
    "processing_class": None, "is_in_train": True, "is_deepspeed_enabled": False, "is_fsdp_enabled": False,
    "accelerator": SimpleNamespace(num_processes=1, device=torch.device("cpu"), unwrap_model=lambda model, **_: model),
    "state": SimpleNamespace(global_step=0, epoch=0.0), "control": None, "callback_handler": None,
}  # fmt: skip
"""What transformers' own constructor keeps."""
ARGUMENTS: dict[str, Any] = {
    "device": torch.device("cpu"), "n_gpu": 1, "world_size": 1, "average_tokens_across_devices": False,
    "label_smoothing_factor": 0.0, "gradient_accumulation_steps": 1, "past_index": -1, "logging_steps": 500,
}  # fmt: skip


class Answers(nn.Module):
    """A model that gives the logits that it was made with; and its own loss, if it is given labels."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.config = SimpleNamespace(num_labels=logits.shape[-1], vocab_size=logits.shape[-1], use_cache=False)
        self.device = logits.device

    def forward(self, *_: Any, labels: Tensor | None = None, **__: Any) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        logits = self.logits.clone()
        loss = None if labels is None else own_loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def own_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What transformers' models return: a mean; of a language model, of the tokens that follow."""
    if labels.ndim > 1:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(logits, labels)


def is_trainer(thing: Any) -> bool:
    """Whether it is a subclass of transformers' Trainer."""
    return inspect.isclass(thing) and any(base.__name__ == "Trainer" for base in thing.__mro__[1:])


def loss_of(trainer: type, num_items: float = 1.0) -> Any:
    """A function of logits, labels and those settings that `compute_loss` asks for.

    Args:
        trainer: the class.
        num_items: by which the number of labels is multiplied that `num_items_in_batch` says.
    """
    asked: set[str] = set()

    def compute(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, **settings: float) -> Tensor:
        stand_in = _stand_in(trainer, Answers(teacher_logits), Answers(student_logits), settings, asked)
        counted = labels[:, 1:] if labels.ndim > 1 else labels
        ids = torch.ones(labels.shape if labels.ndim > 1 else (len(labels), 3), dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        keywords = {}
        if "num_items_in_batch" in inspect.signature(trainer.compute_loss).parameters:  # type: ignore[attr-defined]
            keywords["num_items_in_batch"] = num_items * (counted != IGNORED_LABEL).sum().clamp(min=1)
        return value_of(stand_in.compute_loss(Answers(student_logits), inputs, **keywords))

    for shape in ((4, 3), (2, 4, 3)):
        batch = draw(shape)
        with suppress(Exception):  # whatever it is, the diagnosis itself will say it
            compute(batch.student, batch.teacher, batch.labels)
    names = ["student_logits", "teacher_logits", "labels", *(role for role in SETTLED if role in asked)]
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    compute.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    compute.__name__ = f"{trainer.__name__}.compute_loss"
    return compute


def _stand_in(
    trainer: type, teacher: nn.Module, student: nn.Module, given: Mapping[str, float], asked: set[str]
) -> Any:
    """An instance that was never constructed, and has what it is asked for."""
    settings = Recorder(asked, given)
    arguments = Settings(settings)
    arguments.update(ARGUMENTS)

    def find(_: Any, name: str) -> Any:
        if name in PLAIN:
            return PLAIN[name]
        if name in ("args", "config", "distillation_args", "kd_args"):
            return arguments
        if name in ("model", "student", "student_model"):
            return student
        roles = possible_roles(name)
        if "teacher" in roles:
            return teacher
        for role in roles:
            if role in SETTLED:
                return settings[role]
        raise AttributeError(f"self.{name}, which its constructor makes; put it into the class to have it diagnosed")

    nothing = {"__init__": lambda self: None, "__getattr__": find, "log": lambda self, *_, **__: None}
    return type(trainer.__name__, (trainer,), nothing)()


def accumulation(trainer: type, case: Case) -> Iterator[Finding]:
    """What a step in several pieces adds up to."""
    if "num_items_in_batch" not in inspect.signature(trainer.compute_loss).parameters:  # type: ignore[attr-defined]
        words = "transformers calls compute_loss with num_items_in_batch, which this one does not take: a TypeError."
        yield Finding("accumulation", "refused", words, "05", "problem")
        return
    batch = draw(case.shape)
    settings = {role: getattr(case.setting, role) for role in ("temperature", "weight", "beta") if case.loss.has(role)}
    given = {"student_logits": batch.student, "teacher_logits": batch.teacher, "labels": batch.labels, **settings}
    try:
        once, twice = (loss_of(trainer, times)(**given).item() for times in (1.0, 2.0))
    except (MisuseError, TypeError):
        return
    ratio = once / twice if twice else math.nan
    if math.isclose(ratio, 2, rel_tol=1e-6):
        words = "It divides by num_items_in_batch: with twice as many, it is half. A step in pieces is the whole step."
        yield Finding("accumulation", "counted", words, "05", "ok", ratio)
    elif getattr(trainer, "loss_is_scaled_for_ga", None) is False:
        words = "It is a mean, and loss_is_scaled_for_ga = False has transformers divide it by the steps."
        yield Finding("accumulation", "mean_divided", words, "05", "ok", ratio)
    elif math.isclose(ratio, 1, rel_tol=1e-6):
        words = (
            "It is a mean that does not look at num_items_in_batch: 4 accumulation steps add up to 4 times as much, "
            "unless loss_is_scaled_for_ga is False or the model takes no keywords."
        )
        yield Finding("accumulation", "mean", words, "05", "problem", ratio)
    else:
        words = (
            f"With twice the num_items_in_batch, it is {1 / ratio:.3g} times as large: one term does not look at it."
        )
        yield Finding("accumulation", "in_part", words, "05", "problem", ratio)
