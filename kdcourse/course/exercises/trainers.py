"""Watch somebody's `compute_loss` from outside: what student and teacher are told, and which gradient comes back.

It is a method of a Trainer, and called as a Trainer calls it: `compute_loss(self, model, inputs, return_outputs=False,
num_items_in_batch=None)`, for one piece of an optimizer step after the other. `self` has `args.alpha`,
`args.temperature`, `model` and `teacher`; `num_items_in_batch` is a pair, as that of `DistillationTrainer`: the
labelled and the taught rows of the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn
from transformers import BatchEncoding
from transformers.modeling_outputs import SequenceClassifierOutput

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.comparing import close
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.logits import kl_per_row, one_hot, softened

Items = tuple[int, int]

WORDS, CLASSES = 40, 5
CLOSE = 1e-4
"""Of weights, and of what no weights explain: float32 leaves less."""
CLOSE_VALUE = 1e-5
"""Of a value, as a share: a constant that is added has no gradient."""
EIGHT = (0, 1, 2, 3, 4, 0, 1, 2)
ONE_BATCH, HALF_LABELLED = (EIGHT[:4],), ((0, IGNORED_LABEL, 2, IGNORED_LABEL),)
EVEN = (EIGHT[:2], EIGHT[2:4], EIGHT[4:6], EIGHT[6:])
UNEVEN = (*EVEN[:3], EIGHT[6:7])
MOSTLY_LABELLED = ((0, IGNORED_LABEL, 2, 3),)
ONE_UNLABELLED = (EIGHT[:2], (IGNORED_LABEL, IGNORED_LABEL))
NONE_LABELLED = ((IGNORED_LABEL, IGNORED_LABEL),)


class Classifier(nn.Module):
    """Answers like a model of transformers: the mean of its words' rows in a table that a seed has drawn."""

    def __init__(self, seed: int, size: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        table = size * torch.randn(WORDS, CLASSES, generator=torch.Generator().manual_seed(seed))
        self.table, self.dropout = nn.Embedding.from_pretrained(table, freeze=False), nn.Dropout(dropout)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Swallows what else it is given, as classifiers do."""
        mask = attention_mask.unsqueeze(-1)
        logits = (self.dropout(self.table(input_ids)) * mask).sum(dim=1) / mask.sum(dim=1)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Wrapper(nn.Module):
    """What a Trainer hands over in the place of its model, where something is to be done with the gradients."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.module(*given, **named)


class Run:
    """The trainer, as far as a `compute_loss` asks for it."""

    def __init__(self, alpha: float, temperature: float, size: float = 2.0) -> None:
        self.args = SimpleNamespace(alpha=alpha, temperature=temperature)
        self.model, self.teacher = Classifier(0, size), Classifier(1, size, dropout=0.5).eval()


@dataclass
class Piece:
    """One micro-batch: what came in, what the student answered, and what it is taught, in float64."""

    inputs: BatchEncoding
    logits: Tensor
    gradient: Tensor
    """Of the loss, with respect to these logits; 0 if none arrived."""
    value: float


@dataclass
class Watched:
    """What was seen of one optimizer step."""

    run: Run
    items: Items
    pieces: list[Piece] = field(default_factory=list)
    asked: int = 0
    """How often the model was asked that was handed over."""
    told: list[str] = field(default_factory=list)
    """What the teacher was given besides the features."""
    graphs: int = 0
    """How many answers of the teacher carry a graph."""
    changes: list[str] = field(default_factory=list)
    """What is not as it was, in words."""


def watch(
    compute_loss: Function,
    labels: Sequence[Sequence[int]],
    *,
    alpha: float = 0.3,
    temperature: float = 1.0,
    size: float = 2.0,
    counted: bool = True,
) -> Watched:
    """One optimizer step, in as many pieces as there are labels; without `counted` each piece is all that there is."""
    run = Run(alpha, temperature, size)
    flat = [label for piece in labels for label in piece]
    seen = Watched(run, (sum(label != IGNORED_LABEL for label in flat), len(flat)))
    model = Wrapper(run.model)
    model.register_forward_hook(lambda *_: setattr(seen, "asked", seen.asked + 1))
    run.teacher.register_forward_hook(lambda _, *asked: _see_teacher(seen, *asked), with_kwargs=True)
    for place, piece in enumerate(labels):
        _watch_piece(compute_loss, seen, model, batch(piece, seed=place), seen.items if counted else None)
    return seen


def batch(labels: Sequence[int], seed: int) -> BatchEncoding:
    """Rows of 4 words, the first of which has 2 and padding."""
    ids = torch.randint(0, WORDS, (len(labels), 4), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, 2:] = 0
    return BatchEncoding({"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(labels)})


def _watch_piece(compute_loss: Function, seen: Watched, model: Wrapper, inputs: BatchEncoding, items: Any) -> None:
    before = {name: value.clone() for name, value in inputs.items()}
    learned = torch.zeros(len(before["labels"]), CLASSES)

    def see(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        asked = named["input_ids"] if "input_ids" in named else given[0]
        rows = (asked[:, None] == before["input_ids"]).all(-1).long().argmax(-1)  # it may be asked about a part of them

        def add(gradient: Tensor) -> None:
            learned.index_add_(0, rows, gradient.detach())

        if output.logits.requires_grad:
            output.logits.register_hook(add)

    hook = seen.run.model.register_forward_hook(see, with_kwargs=True)
    loss = as_loss(compute_loss(seen.run, model, inputs, num_items_in_batch=items))
    hook.remove()
    if loss.requires_grad:
        loss.backward()
    logits = _said_by(seen.run.model, before)
    seen.pieces.append(Piece(BatchEncoding(before), logits, learned.double(), loss.item()))
    seen.changes += _changes(seen.run, inputs, before)


def as_loss(given: Any) -> Tensor:
    """The loss, where outputs are given back beside it, too.

    Raises:
        TypeError: there is none.
    """
    loss = given[0] if isinstance(given, tuple) and given else given
    if loss is None:
        raise TypeError("your compute_loss gives nothing back; a `return` is missing")
    if not isinstance(loss, Tensor):
        raise TypeError(f"a loss is asked for, and your compute_loss gives back {type(loss).__name__}")
    return loss


def _see_teacher(seen: Watched, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
    features = ("input_ids", "attention_mask")
    seen.told += ["labels"] * (len(given) > len(features)) + [name for name in named if name not in features]
    seen.graphs += output.logits.requires_grad


def _changes(run: Run, inputs: BatchEncoding, before: dict[str, Tensor]) -> list[str]:
    gone = [f"{name!r} is gone from the inputs" for name in before if name not in inputs]
    new = [f"{name!r} is new in the inputs" for name in inputs if name not in before]
    others = [name for name in inputs if name in before and not torch.equal(inputs[name], before[name])]
    modes = [(run.model, True, "the student is in eval mode"), (run.teacher, False, "the teacher is in train mode")]
    turned = [words for model, trains, words in modes if model.training != trains]
    return [*gone, *new, *(f"{name!r} holds other numbers" for name in others), *turned]


# ---------------------------------------------------------------------------------------------------------------------
# What is broken, in words; "" if nothing


def labels_told(compute_loss: Function) -> str:
    told = watch(compute_loss, ONE_BATCH).told
    return f"it is given {', '.join(map(repr, told))}" if told else ""


def graph_of_the_teacher(compute_loss: Function) -> str:
    seen = watch(compute_loss, EVEN)
    if any(each.grad is not None for each in seen.run.teacher.parameters()):
        return "its weights hold a gradient"
    return f"{seen.graphs} of 4 answers carry a graph" if seen.graphs else ""


def model_passed_over(compute_loss: Function) -> str:
    return "" if watch(compute_loss, ONE_BATCH).asked else "it is asked 0 times"


def what_has_changed(compute_loss: Function) -> str:
    return (watch(compute_loss, (*EVEN, *HALF_LABELLED)).changes or [""])[0]


def weights_at(temperature: float) -> Callable[[Function], str]:
    """Of the two terms in the gradient of a single batch."""

    def broken(compute_loss: Function) -> str:
        steps = (watch(compute_loss, ONE_BATCH, alpha=alpha, temperature=temperature) for alpha in (0.3, 0.0, 1.0))
        return next(filter(None, map(_said_of_all, steps)), "")

    return broken


def weights_in_pieces(labels: Sequence[Sequence[int]], **settings: Any) -> Callable[[Function], str]:
    """Of the two terms in the gradient of each piece."""

    def broken(compute_loss: Function) -> str:
        seen = watch(compute_loss, labels, **settings)
        said = [(piece, _said_of_rows(seen, piece, slice(None))) for piece in seen.pieces]
        return next((f"in a piece of {len(piece.logits)} {words}" for piece, words in said if words), "")

    return broken


def weights_without_labels(compute_loss: Function) -> str:
    """Of rows with and without a label in one batch."""
    seen = watch(compute_loss, HALF_LABELLED)
    [piece] = seen.pieces
    known = piece.inputs["labels"] != IGNORED_LABEL
    for words, rows in (("a row that has one", known), ("a row that has none", ~known)):
        if said := _said_of_rows(seen, piece, rows):
            return f"in {words} {said}"
    return ""


def evaluation(compute_loss: Function) -> str:
    """An evaluation hands over no count, and some of its batches may be without labels."""
    try:
        said = weights_in_pieces(MOSTLY_LABELLED, counted=False)(compute_loss)
        return said or _without_any_label(compute_loss)
    except Exception as error:
        return f"there is no loss, but {type(error).__name__}"


def _without_any_label(compute_loss: Function) -> str:
    seen = watch(compute_loss, NONE_LABELLED, counted=False)
    [piece] = seen.pieces
    said = _said_of_rows(seen, piece, slice(None)) if math.isfinite(piece.value) else f"the loss is {piece.value}"
    return f"in a batch without labels {said}" if said else ""


def value(compute_loss: Function) -> str:
    """Of the step, for models that are unsure and for some that are sure."""
    for words, size in (("", 2.0), ("of models that are sure of themselves ", 40.0)):
        seen = watch(compute_loss, UNEVEN, temperature=2.0, size=size)
        found, asked = sum(piece.value for piece in seen.pieces), _value(seen)
        if not abs(found - asked) < CLOSE_VALUE * asked:
            return f"{words}it adds up to {found:.3f} where {asked:.3f} is asked for"
    return ""


def outputs_returned(compute_loss: Function) -> str:
    """To be asked for, and not to come unasked."""
    run = Run(0.3, 2.0, size=40.0)
    model, inputs = Wrapper(run.model), batch(EIGHT[:4], seed=0)
    alone, both = (
        compute_loss(run, model, dict(inputs), **asked, num_items_in_batch=(4, 4))
        for asked in ({}, {"return_outputs": True})
    )
    if isinstance(alone, tuple):
        return f"nobody asks for outputs, and {len(alone)} things come back"
    if not (isinstance(both, tuple) and len(both) == 2):  # noqa: PLR2004
        return f"asked for a loss and outputs, it gives back {type(both).__name__}"
    loss, outputs = as_loss(both), both[1]
    if not torch.allclose(loss, as_loss(alone)):
        return f"with outputs the loss is {loss.item():.3f}, and without {as_loss(alone).item():.3f}"
    logits = getattr(outputs, "logits", outputs["logits"] if isinstance(outputs, dict) else None)
    is_the_students = isinstance(logits, Tensor) and close(logits, _said_by(run.model, inputs), CLOSE)
    return "" if is_the_students else "what comes back beside the loss has not the student's logits"


def _said_of_all(seen: Watched) -> str:
    said = _said_of_rows(seen, seen.pieces[0], slice(None))
    return f"at alpha = {seen.run.args.alpha:g} {said}" if said else ""


def _said_of_rows(seen: Watched, piece: Piece, rows: slice | Tensor) -> str:
    """How much labels and teacher weigh in the gradient of these rows, if it is not what they should."""
    gradient, alpha = piece.gradient[rows].flatten(), seen.run.args.alpha
    if not gradient.isfinite().all():
        return "the gradient is no number"
    asked = {"the labels weigh": alpha, "the teacher weighs": 1 - alpha}
    terms = dict(zip(asked, (term[rows].flatten() for term in _terms(seen, piece)), strict=True))
    terms = {words: term for words, term in terms.items() if term.any()}  # rows without labels have one term
    columns = torch.stack([*terms.values()], dim=-1)
    weights = torch.linalg.lstsq(columns, gradient[:, None]).solution[:, 0]
    if (gradient - columns @ weights).norm() > CLOSE * gradient.norm().clamp(min=CLOSE):
        rest = (gradient - columns @ weights).norm() / gradient.norm()
        return f"no weights of the two terms give your gradient; {rest:.0%} of it is left over"
    found = dict(zip(terms, weights.tolist(), strict=True))
    wrong = [words for words in terms if not abs(found[words] - asked[words]) < CLOSE]
    return "; ".join(f"{words} {found[words]:z.2f} instead of {asked[words]:g}" for words in wrong)


def _terms(seen: Watched, piece: Piece) -> tuple[Tensor, Tensor]:
    """The gradients of both terms by the student's logits, row by row, in closed form (lessons 01 and 03)."""
    labelled, taught = seen.items
    temperature, student, teacher = seen.run.args.temperature, piece.logits, _said_by(seen.run.teacher, piece.inputs)
    known = piece.inputs["labels"] != IGNORED_LABEL
    hard = student.softmax(-1) - one_hot(piece.inputs["labels"].clamp(min=0), student)
    soft = temperature * (softened(student, temperature) - softened(teacher, temperature))
    return hard * known[:, None] / max(labelled, 1), soft / taught


def _value(seen: Watched) -> float:
    labelled, taught = seen.items
    temperature, alpha = seen.run.args.temperature, seen.run.args.alpha
    hard, soft = 0.0, 0.0
    for piece in seen.pieces:
        student, teacher = piece.logits, _said_by(seen.run.teacher, piece.inputs)
        hard += F.cross_entropy(student, piece.inputs["labels"], reduction="sum").item() / labelled
        soft += temperature**2 * kl_per_row(student / temperature, teacher / temperature).sum().item() / taught
    return alpha * hard + (1 - alpha) * soft


def _said_by(model: Classifier, inputs: Mapping[str, Tensor]) -> Tensor:
    """Asked anew, and nobody sees it: another model with the same weights, without dropout."""
    again = Classifier(0).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        return again(**_features(inputs)).logits.double()


def _features(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "labels"}
