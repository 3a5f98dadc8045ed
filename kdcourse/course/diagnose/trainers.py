"""A Trainer's `compute_loss`, as a loss of logits: its models answer with what they are told to.

Where the signature of its constructor can be read, a Trainer is made of tiny models, and what it keeps is kept. Of the
others nobody knows what they want; what their constructor would have kept is given when it is asked for:
`self.teacher…` is a model, `self.args.temperature` and `self.alpha` are settings, and so on.
"""

from __future__ import annotations

import copy
import functools
import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.diagnose.batches import Batch, draw
from kdcourse.course.diagnose.case import Case
from kdcourse.course.diagnose.foreign import CannotCallError, Recorder, Settings, possible_roles, value_of
from kdcourse.course.diagnose.report import Finding

CLOSE = 1e-5
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

    def __init__(self, logits: Tensor, dropout: float = 0.0) -> None:
        super().__init__()
        self.logits = logits
        self.dropout = nn.Dropout(dropout)
        self.answered_in_training: bool | None = None
        self.was_told_labels = False
        self.config = SimpleNamespace(num_labels=logits.shape[-1], vocab_size=logits.shape[-1], use_cache=False)
        self.device = logits.device

    def forward(self, *_: Any, labels: Tensor | None = None, **__: Any) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        self.answered_in_training = self.training
        self.was_told_labels |= labels is not None
        logits = self.dropout(self.logits.clone())
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


PIECES = 4
"""Into which a batch is cut, as accumulation does."""
UNEVEN = (2, 2, 2, 1)
"""Rows of such pieces at the end of a data set, where a mean of means is no mean."""
DROPOUT = 0.1


def loss_of(trainer: type, num_items: float | None = None, teacher_dropout: float = 0.0, steps: int = 1) -> Any:
    """A function of logits, labels and those settings that `compute_loss` asks for.

    Args:
        trainer: the class.
        num_items: what `num_items_in_batch` says; the number of labels if not given.
        teacher_dropout: of the teacher, if it is in train mode.
        steps: what `args.gradient_accumulation_steps` says.
    """
    asked: set[str] = set()

    def compute(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, **settings: float) -> Tensor:
        teacher, student = Answers(teacher_logits, teacher_dropout), Answers(student_logits)
        stand_in = _stand_in(trainer, teacher, Answers(student_logits), settings, asked, steps)
        inputs = _inputs(labels)
        keywords = {}
        if "num_items_in_batch" in inspect.signature(trainer.compute_loss).parameters:  # type: ignore[attr-defined]
            keywords["num_items_in_batch"] = torch.tensor(num_items or counted(labels))
        value = value_of(stand_in.compute_loss(student, inputs, **keywords))
        compute.teacher, compute.student = teacher, student  # type: ignore[attr-defined]
        compute.keeps_labels = "labels" in inputs  # type: ignore[attr-defined]
        return value

    for shape in ((4, 3), (2, 4, 3)):
        batch = draw(shape)
        with suppress(Exception):  # whatever it is, the diagnosis itself will say it
            compute(batch.student, batch.teacher, batch.labels)
    names = ["student_logits", "teacher_logits", "labels", *(role for role in SETTLED if role in asked)]
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    compute.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    compute.__name__ = f"{trainer.__name__}.compute_loss"
    return compute


def _inputs(labels: Tensor) -> dict[str, Tensor]:
    """A batch with these labels; what its words are, the models do not look at."""
    ids = torch.ones(labels.shape if labels.ndim > 1 else (len(labels), 3), dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def counted(labels: Tensor) -> int:
    """As transformers counts them: of a language model, without the first of each text."""
    following = labels[:, 1:] if labels.ndim > 1 else labels
    return max(int((following != IGNORED_LABEL).sum()), 1)


@functools.lru_cache(maxsize=8)
def _constructed(trainer: type) -> Any:
    """One made of tiny models; None if its constructor takes no teacher, or wants what nobody knows."""
    from transformers import TrainingArguments

    parameters = inspect.signature(trainer).parameters
    if not any("teacher" in possible_roles(name) for name in parameters):
        return None
    student, teacher = (Answers(torch.zeros(2, 3)).train() for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, report_to=[], use_cpu=True, disable_tqdm=True)
        known: dict[str, Any] = {"model": student, "args": arguments}
        if not {"model", "args"} <= parameters.keys() and not any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        ):
            return None
        for name in parameters:
            roles = possible_roles(name)
            if "teacher" in roles and name not in known:
                known[name] = teacher
            elif setting := next((role for role in roles if role in SETTLED), None):
                known[name] = Recorder(set())[setting]
        with suppress(Exception):  # it wants more than can be known from its names
            return trainer(**known)
    return None


def _kept(trainer: type, teacher: nn.Module, settings: Mapping[str, float]) -> dict[str, Any]:
    """What the constructor keeps, with these settings and this teacher, which is left in the same mode."""
    made = _constructed(trainer)
    if made is None:
        return {}
    kept: dict[str, Any] = {}
    for name, value in vars(made).items():
        roles = [role for role in possible_roles(name) if role in SETTLED]
        if isinstance(value, Answers) and "teacher" in possible_roles(name):
            kept[name] = teacher.train(value.training)
        elif roles and isinstance(value, (int, float)):
            kept[name] = settings[roles[0]]
        elif name not in ("args", "model", "model_wrapped"):
            kept[name] = copy.copy(value) if isinstance(value, (list, dict)) else value
    return kept


def _stand_in(
    trainer: type, teacher: nn.Module, student: nn.Module, given: Mapping[str, float], asked: set[str], steps: int
) -> Any:
    """An instance that was never constructed, and has what it is asked for."""
    settings = Recorder(asked, given)
    arguments = Settings(settings)
    arguments.update(ARGUMENTS | {"gradient_accumulation_steps": steps})

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
    instance = type(trainer.__name__, (trainer,), nothing)()
    vars(instance).update(_kept(trainer, teacher, settings))
    return instance


def accumulation(trainer: type, case: Case) -> Iterator[Finding]:
    """What a step in several pieces adds up to."""
    if "num_items_in_batch" not in inspect.signature(trainer.compute_loss).parameters:  # type: ignore[attr-defined]
        words = "transformers calls compute_loss with num_items_in_batch, which this one does not take: a TypeError."
        yield Finding("accumulation", "refused", words, "05", "problem")
        return
    try:
        size, off = _in_pieces(trainer, case, (1,) * PIECES)
        _, off_if_uneven = _in_pieces(trainer, case, UNEVEN)
    except CannotCallError:
        return
    divided = getattr(trainer, "loss_is_scaled_for_ga", None) is False
    times = size / PIECES if divided else size
    found = f"{PIECES} pieces of a batch add up to {times:.3g} times the gradient of the whole"
    if off < CLOSE <= off_if_uneven and not divided:
        rows = " + ".join(map(str, UNEVEN))
        words = (
            f"A mean is divided by the number of pieces, in one term at least: equal pieces add up to the whole, and "
            f"of {rows} rows the single one weighs twice as much."
        )
        yield Finding("accumulation", "mean_over_steps", words, "05", "note", off_if_uneven)
    elif off < CLOSE:
        words = f"It divides by num_items_in_batch: {found}."
        yield Finding("accumulation", "counted", words, "05", "problem" if divided else "ok", times)
    elif divided:
        words = f"It is a mean, and loss_is_scaled_for_ga = False has transformers divide it by the steps: {found}."
        yield Finding("accumulation", "mean_divided", words, "05", "ok", times)
    elif _looks_at_the_steps(trainer, case):
        words = f"It divides by the number of pieces, beside num_items_in_batch: {found}."
        yield Finding("accumulation", "divided_by_steps", words, "05", "problem", times)
    elif _looks_at_the_count(trainer, case):
        words = f"One term does not look at num_items_in_batch: {found}."
        yield Finding("accumulation", "in_part", words, "05", "problem", times)
    else:
        words = (
            f"It is a mean that does not look at num_items_in_batch: {found}, unless loss_is_scaled_for_ga is False or "
            "the model takes no keywords."
        )
        yield Finding("accumulation", "mean", words, "05", "problem", times)


def _settings(case: Case) -> dict[str, float]:
    return {role: getattr(case.setting, role) for role in ("temperature", "weight", "beta") if case.loss.has(role)}


def _gradient(case: Case, loss: Any, batch: Batch) -> Tensor:
    """Of the loss of a batch, with respect to the student's logits."""
    trial = batch.with_gradient()
    return case.loss.gradients(_called(case, loss, trial), trial.student)[0]


def _in_pieces(trainer: type, case: Case, sizes: Sequence[int]) -> tuple[float, float]:
    """The size of the step in pieces as a share of the whole step, and how far it is from that, as a share, too."""
    batch = draw((sum(sizes), *case.shape[1:]), missing=case.is_tokens)
    count = counted(batch.labels)
    whole = _gradient(case, loss_of(trainer, count), batch)
    cut = zip(*(part.split(list(sizes)) for part in (batch.student, batch.teacher, batch.labels)), strict=True)
    in_pieces = loss_of(trainer, count, steps=len(sizes))
    pieces = torch.cat([_gradient(case, in_pieces, Batch(*parts)) for parts in cut])
    size = (pieces * whole).sum() / whole.square().sum()
    return size.item(), ((pieces - whole).norm() / whole.norm()).item()


def _looks_at_the_count(trainer: type, case: Case) -> bool:
    batch = draw(case.shape)
    once, twice = (_gradient(case, loss_of(trainer, times * counted(batch.labels)), batch) for times in (1, 2))
    return not torch.allclose(once, twice)


def _looks_at_the_steps(trainer: type, case: Case) -> bool:
    batch = draw(case.shape)
    count = counted(batch.labels)
    alone, one_of_many = (_gradient(case, loss_of(trainer, count, steps=steps), batch) for steps in (1, PIECES))
    return not torch.allclose(alone, one_of_many)


def _called(case: Case, loss: Any, batch: Batch) -> Tensor:
    """The loss of a batch."""
    given = {"student_logits": batch.student, "teacher_logits": batch.teacher, "labels": batch.labels}
    value: Tensor = case.loss.in_time(lambda: loss(**given, **_settings(case)))
    return value


def handling(trainer: type, case: Case) -> Iterator[Finding]:
    """Whether the labels stay in the batch, the model that is handed over is asked, and the teacher is told them."""
    loss = loss_of(trainer)
    _called(case, loss, draw(case.shape))
    if not loss.keeps_labels:
        words = "It takes the labels out of the batch itself: whoever reads inputs['labels'] afterwards finds none."
        yield Finding("in_place", "labels_popped", words, "05", "note")
    if loss.student.answered_in_training is None:
        words = (
            "The model that is handed over is asked 0 times, and self.model in its place. Where there are several "
            "processes it is a wrapper that averages their gradients: without it each trains a student of its own."
        )
        yield Finding("student_asked", "its_own", words, "05", "problem")
    if loss.teacher.was_told_labels:
        words = (
            "The teacher is given the labels. It computes a loss of its own that nobody reads, and a teacher of other "
            "classes stops there."
        )
        yield Finding("teacher_told", "labels", words, "05", "note")


def evaluation(trainer: type, case: Case) -> Iterator[Finding]:
    """What comes back where outputs are asked for; and where no count of rows is handed over besides."""
    counts: dict[str, Any] = {}
    if "num_items_in_batch" in inspect.signature(trainer.compute_loss).parameters:  # type: ignore[attr-defined]
        counts["num_items_in_batch"] = torch.tensor(counted(draw(case.shape).labels))
    given, error = _evaluated(trainer, case, counts)
    if error:
        words = f"An evaluation calls it with return_outputs=True, and it stops: {error}"
        yield Finding("evaluation", "refused", words, "05", "problem")
    elif not isinstance(given, tuple):
        words = "An evaluation calls it with return_outputs=True, and gets the loss alone: transformers stops there."
        yield Finding("evaluation", "no_outputs", words, "05", "problem")
    elif counts and (error := _evaluated(trainer, case, {})[1]):
        words = f"Without num_items_in_batch, as for a model that takes no keywords, an evaluation stops: {error}"
        yield Finding("evaluation", "needs_a_count", words, "05", "note")


def _evaluated(trainer: type, case: Case, counts: Mapping[str, Any]) -> tuple[Any, str]:
    """What an evaluation gets, and the error if it is stopped."""
    batch = draw(case.shape)
    stand_in = _stand_in(trainer, Answers(batch.teacher), Answers(batch.student), _settings(case), set(), 1)
    asked = (Answers(batch.student), _inputs(batch.labels))
    try:
        return case.loss.in_time(lambda: stand_in.compute_loss(*asked, return_outputs=True, **counts)), ""
    except CannotCallError as error:
        return None, str(error)


def teacher_mode(trainer: type, case: Case) -> Iterator[Finding]:
    """Whether the teacher is in train mode when it answers, with its dropout on."""
    batch = draw(case.shape)
    loss = loss_of(trainer, teacher_dropout=DROPOUT)
    try:
        values = [_called(case, loss, batch).sum().item() for _ in range(PIECES)]
    except CannotCallError:
        return
    if loss.teacher.answered_in_training is None:
        return
    if not loss.teacher.answered_in_training:
        words = "The teacher is in eval mode when it answers, though it was given in train mode: its dropout is off."
        yield Finding("teacher_mode", "eval", words, "05", "ok", 0.0)
        return
    spread = (max(values) - min(values)) / (abs(sum(values)) / len(values) or 1.0)
    more = f"a dropout of {DROPOUT:g} moves the loss by {spread:.0%} from call to call"
    if _constructed(trainer) is not None:
        words = f"The teacher answers in train mode, since nothing here calls eval(): {more}."
        yield Finding("teacher_mode", "train", words, "05", "problem", spread)
        return
    words = f"The teacher answers in the mode that it is in. Whoever makes the Trainer must call eval(); else {more}."
    yield Finding("teacher_mode", "as_given", words, "05", "note", spread)
