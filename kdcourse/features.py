"""What the layers of a student learn from those of a teacher: hidden states, hints and attention (lesson 11).

A teacher's logits say what it concludes, its layers how it came there. A `Feature` names one layer of each and how far
apart the two are. What a layer gives is caught by hooks while the models are called as they always are, so any
`nn.Module` will do. Where the layers' widths differ, a linear projection stands between them: it learns with the
student, is kept in its checkpoints, and is no part of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from safetensors import safe_open
from torch import Tensor, nn

from kdcourse.checkpoints import CheckpointError, said_of_a_checkpoint
from kdcourse.checks import MismatchError
from kdcourse.columns import TEACHER_PREFIX, Batch
from kdcourse.counting import real_positions
from kdcourse.files import written_whole
from kdcourse.layers import Seen, require_layer, watched
from kdcourse.temperature import at_least_float32

PROJECTIONS = "features.safetensors"
"""In a checkpoint, the weights of the projections."""

PROJECTED = ("auto", "always", "never")
"""When a projection stands between two layers: where their widths differ, or as it says."""

PAIRS, POSITIONS, PIXELS = 2, 3, 4
"""Dimensions of a layer's answer: (B, H), (B, T, H), or (B, H, height, width)."""

OWN_STEPS = ("lomo", "adalomo", "layerwise")
"""In the names of optimizers that step within the backward pass, and through the student's weights alone."""


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over the width H of (student − teacher)², of vectors (…, H); (…).

    As for the hidden states of TinyBERT (Jiao et al. 2020, arXiv:1909.10351). The hints of FitNets (Romero et al. 2015,
    arXiv:1412.6550) are half the sum over H: H / 2 times this.
    """
    return (student - teacher).square().mean(dim=-1)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos of the angle between vectors (…, H); (…), from 0 to 2. DistilBERT's (Sanh et al. 2019, arXiv:1910.01108),
    which looks at the direction of hidden states, and not at their length.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def attention_error(student: Tensor, teacher: Tensor, tokens: Tensor | None = None) -> Tensor:
    """How far apart two models look: the mean over heads and keys of (student − teacher)², for each query, (B, T).

    TinyBERT's (Jiao et al. 2020, arXiv:1909.10351), who take the scores before the softmax; transformers gives the
    attention behind it, in training with the student's own dropout.

    Args:
        student, teacher: (B, heads, T, T), queries before keys.
        tokens: (B, T), which of them are real. Padding is no key, and 0 as a query.
    """
    difference = student - teacher
    if tokens is None:
        return difference.square().mean(dim=(1, 3))
    both = tokens[:, None, :, None] & tokens[:, None, None, :]
    squares = torch.where(both, difference, torch.zeros_like(difference)).square()
    return squares.mean(dim=1).sum(dim=-1) / tokens.sum(dim=1, keepdim=True).clamp(min=1)


OF_VECTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": squared_error, "cosine": cosine_distance}

LOSSES = (*OF_VECTORS, "attention")


@dataclass(frozen=True)
class Feature:
    """A layer of the student, and the layer of the teacher that it is to resemble.

    Args:
        student, teacher: names of modules as in `named_modules()`, such as "bert.encoder.layer.1", whose answer is
            (B, H), (B, T, H) or, for pictures, (B, H, height, width); the first of several counts. Of models of
            transformers also "hidden_states.2" (0 is the embeddings) and "attentions.0".
        loss: "mse", the mean squared difference; "cosine", 1 − cos of the angle; or "attention", between "attentions.i"
            of both.
        weight: what the loss is times before it is added to the objective.
        projection: "auto", a linear layer from the student's width to the teacher's where the two differ; "always" or
            "never".

    Raises:
        ValueError: a setting is out of range, or two that do not go together.
    """

    student: str
    teacher: str
    loss: str = "mse"
    weight: float = 1.0
    projection: str = "auto"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss of a feature is {self.loss!r}; it can be {', '.join(LOSSES)}.")
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"weight of a feature is {self.weight}, but it must be a finite number above 0; leave the feature out "
                "for 0."
            )
        if self.projection not in PROJECTED:
            raise ValueError(f"projection of a feature is {self.projection!r}; it can be {', '.join(PROJECTED)}.")
        of_attention = [name.startswith("attentions.") for name in (self.student, self.teacher)]
        if any(of_attention) != (self.loss == "attention") or not (all(of_attention) or not any(of_attention)):
            raise ValueError(
                f"A feature has loss={self.loss!r} between {self.student!r} and {self.teacher!r}, but 'attention' is "
                "between 'attentions.i' of both models, and the other losses are between vectors."
            )
        if self.loss == "attention" and self.projection == "always":
            raise ValueError(
                "A feature of attention has projection='always', but attention is compared head for head and token for "
                "token, and has no width to project; leave projection out."
            )

    def __str__(self) -> str:
        return f"{self.student} → {self.teacher} ({self.loss})"


class Features:
    """The features of one student and one teacher, with the projections between them.

    Widths are known when both models have answered once (`meet`); the names are looked up at once.

    Args:
        seed: of the projections' first weights, so that all processes begin with the same.
        teacher: the model; anything else has no layers.

    Raises:
        MismatchError: a layer that does not exist, or no teacher that has layers.
    """

    def __init__(self, pairs: Sequence[Feature], student: Any, teacher: Any, seed: int = 0) -> None:
        self.pairs = tuple(pairs)
        self.teacher, self.seed = teacher, seed
        self.projections = nn.ModuleDict()
        """By the place of their feature, counted from 0; those that there are."""
        self._is_by_token: list[bool] = []
        self._lacking: Path | None = None
        for pair in self.pairs:
            if not isinstance(pair, Feature):
                raise TypeError(f"features holds {pair!r}; it is a list of kdcourse.Feature(student, teacher).")
        if not self.pairs:
            return
        if not isinstance(teacher, nn.Module):
            given = "there is no teacher model" if teacher is None else f"the teacher is a {type(teacher).__name__}"
            if isinstance(teacher, (list, tuple)):
                given = f"there are {len(teacher)} teachers"
            raise MismatchError(
                f"features names layers of the teacher, but {given}, and a layer is of one model. Pass one model, "
                "teacher=model, or leave features out."
            )
        for pair in self.pairs:
            require_layer("student", student, pair.student)
            require_layer("teacher", teacher, pair.teacher)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def weights(self) -> list[float]:
        return [pair.weight for pair in self.pairs]

    @property
    def has_met(self) -> bool:
        """Whether what the layers give has been seen to fit."""
        return len(self._is_by_token) == len(self.pairs)

    @contextmanager
    def watched(self, model: nn.Module, role: str) -> Iterator[dict[str, Tensor]]:
        """What the layers of a model give in the last of its calls meanwhile; it is there at the end."""
        names = [pair.student if role == "student" else pair.teacher for pair in self.pairs]
        with watched(model, names, role) as seen:
            yield seen

    def meet(self, ours: Seen, theirs: Seen, batch: Batch) -> None:
        """Look at what the layers give for one batch, and make the projections that are needed.

        Raises:
            MismatchError: shapes that do not fit.
        """
        self._is_by_token = [
            self._fit(number, pair, ours[pair.student], theirs[pair.teacher], batch)
            for number, pair in enumerate(self.pairs)
        ]

    def _fit(self, number: int, pair: Feature, student: Tensor, teacher: Tensor, batch: Batch) -> bool:
        """Whether the feature is one of tokens."""
        if pair.loss == "attention":
            _require_equal(pair, student.shape, teacher.shape, "head for head and token for token")
        else:
            ours, theirs = _vectors(pair.student, student), _vectors(pair.teacher, teacher)
            _require_equal(pair, ours.shape[:2], theirs.shape[:2], "example by example and position by position")
            self._project(number, pair, ours.shape[-1], theirs.shape[-1], at_least_float32(student))
        return _is_of_tokens(pair, student, batch)

    def _project(self, number: int, pair: Feature, width: int, to: int, like: Tensor) -> None:
        name = str(number)
        if name in self.projections:
            kept: Any = self.projections[name]
            _require_equal(pair, (width, to), (kept.in_features, kept.out_features), "through a projection of its own")
        elif pair.projection == "never" and width != to:
            raise MismatchError(
                f"Feature {pair}: the student's layer is {width} wide and the teacher's {to}, and projection is "
                "'never'; take 'auto', which learns a linear layer from one width to the other."
            )
        elif pair.projection == "always" or width != to:
            if self._lacking is not None:
                raise CheckpointError(
                    f"{self._lacking} has no {PROJECTIONS}, so the projection of feature {pair} would begin anew; "
                    "resume from a checkpoint of a training with these features."
                )
            self.projections[name] = _new_projection(width, to, self.seed + number)
        if name in self.projections:
            self.projections[name].to(like.device, like.dtype)

    def counts(self, batch: Batch, own: int | None = None) -> Tensor:
        """Of each feature, the rows or real tokens of a batch that it is averaged over, (features,).

        Args:
            own: see `kdcourse.counting.real_positions`.
        """
        rows, tokens = real_positions(batch, own)
        return torch.stack([(rows if tokens is None or not of else tokens).sum() for of in self._is_by_token])

    def losses(
        self, ours: Seen, theirs: Seen, batch: Batch, counts: Tensor | None = None, own: int | None = None
    ) -> Tensor:
        """The loss of each feature, (features,), without its weight: a mean over rows (of pictures and pooled vectors,
        each a mean over its positions) or over tokens that are no padding.

        Args:
            counts: of the whole optimizer step, in the place of this batch's.
            own: see `kdcourse.counting.real_positions`.

        Raises:
            MismatchError: a layer of the student from which no gradient reaches a weight.
        """
        divisors = (self.counts(batch, own) if counts is None else counts).clamp(min=1)
        rows, tokens = real_positions(batch, own)
        sums = []
        for number, (pair, is_by_token) in enumerate(zip(self.pairs, self._is_by_token, strict=True)):
            student, teacher = ours[pair.student], theirs[pair.teacher]
            _require_gradient(pair, student)
            counted = tokens if is_by_token else None
            with torch.autocast(student.device.type, enabled=False):
                terms = self._terms(number, pair, student, teacher, counted)
            counted = rows if counted is None else counted
            sums.append(torch.where(counted, terms, torch.zeros_like(terms)).sum())
        return torch.stack(sums) / divisors.to(sums[0].device)

    def _terms(self, number: int, pair: Feature, student: Tensor, teacher: Tensor, tokens: Tensor | None) -> Tensor:
        """How far apart two layers are, for each token, (B, T), or each row, (B,)."""
        student = at_least_float32(student)
        teacher = teacher.detach().to(student)
        if pair.loss == "attention":
            _require_equal(pair, student.shape, teacher.shape, "head for head and token for token")
            terms = attention_error(student, teacher, tokens)
        else:
            student, teacher = _vectors(pair.student, student), _vectors(pair.teacher, teacher)
            if tokens is not None:  # before any arithmetic, so that nothing in padding, not even a NaN, has a say
                student, teacher = _with_ones(student, tokens), _with_ones(teacher, tokens)
            if str(number) in self.projections:
                student = self.projections[str(number)](student)
            _require_equal(pair, student.shape, teacher.shape, "vector by vector")
            terms = OF_VECTORS[pair.loss](student, teacher)
        return terms if tokens is not None else terms.mean(dim=1)

    def weigh(self, losses: Tensor) -> Tensor:
        """What is added to the objective: Σ weight · loss."""
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()

    def add_to(self, optimizer: Any, settings: Any, is_new: bool) -> None:
        """Let the optimizer train the projections, too; their bias without weight decay, as the student's.

        Raises:
            ValueError: it is one that was passed, and does not, or that cannot.
        """
        theirs = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        left = [(name, weight) for name, weight in self.projections.named_parameters() if id(weight) not in theirs]
        if not left:
            return
        name = str(getattr(settings.optim, "value", settings.optim))
        if not is_new or not hasattr(optimizer, "add_param_group") or any(own in name for own in OWN_STEPS):
            raise ValueError(
                f"The features need {len(self.projections)} projection(s), and the optimizer "
                f"({type(optimizer).__name__}) trains the student's weights alone. Leave `optimizers` out, take "
                "another `optim`, or name layers of equal width."
            )
        for decays in (True, False):
            weights = [weight for name, weight in left if name.endswith("weight") == decays]
            optimizer.add_param_group({"params": weights, "weight_decay": settings.weight_decay if decays else 0.0})

    def average_gradients(self, processes: int) -> None:
        """Of all processes, as DDP does with the student's."""
        for weight in self.projections.parameters():
            if weight.grad is not None:
                torch.distributed.all_reduce(weight.grad)
                weight.grad /= processes

    def save(self, folder: Path) -> None:
        """Beside a checkpoint's other files, if there is a projection."""
        if self.projections:
            tensors = {name: weight.contiguous() for name, weight in self.projections.state_dict().items()}
            with written_whole(folder / PROJECTIONS) as unfinished:
                safetensors.torch.save_file(tensors, unfinished, {"features": self._described()})

    def load(self, folder: Path) -> None:
        """The projections of a checkpoint.

        Raises:
            CheckpointError: they are of other features, or cannot be read; that they are missing, where one is needed,
                is found when the models meet.
        """
        path = folder / PROJECTIONS
        if not path.exists():
            self.projections.clear()
            self._lacking = folder  # there may have been none: `meet` tells
            return
        with said_of_a_checkpoint(folder), safe_open(path, "pt") as file:
            described = (file.metadata() or {}).get("features")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
        if described != self._described():
            raise CheckpointError(
                f"{folder} holds the projections of the features {described}, and these are {self._described()}; "
                "resume with those of the checkpoint."
            )
        # In the order of the features: the optimizer's own state, in a checkpoint, goes by the order of the weights.
        for number in sorted({name.partition(".")[0] for name in tensors}, key=int):
            weight, bias = tensors[f"{number}.weight"], tensors[f"{number}.bias"]
            if number not in self.projections:
                self.projections[number] = nn.utils.skip_init(nn.Linear, *reversed(weight.shape), dtype=weight.dtype)
            self.projections[number].load_state_dict({"weight": weight, "bias": bias})

    def _described(self) -> str:
        """Not the weight of a feature: it may be another one after a resume."""
        names = [field.name for field in fields(Feature) if field.name != "weight"]
        return json.dumps([[getattr(pair, name) for name in names] for pair in self.pairs])


def require_one_place(ways: Mapping[str, bool]) -> None:
    """Hooks see whole layers in one process, and projections are averaged over processes as DDP does it.

    Args:
        ways: names of settings under which that is not so, and whether they are on.

    Raises:
        MismatchError: one of them is.
    """
    for name, is_on in ways.items():
        if is_on:
            raise MismatchError(
                f"There are features, and {name} is on, under which a student's layers cannot be seen as they are; "
                "train in one process, or with plain data parallelism (torchrun), or leave features out."
            )


def _vectors(name: str, answer: Tensor) -> Tensor:
    """A layer's answer as (B, positions, H)."""
    if answer.ndim == PAIRS:
        return answer[:, None]
    if answer.ndim == POSITIONS:
        return answer
    if answer.ndim == PIXELS:
        return answer.flatten(2).transpose(1, 2)
    raise MismatchError(
        f"features asks for {name!r}, which gives {tuple(answer.shape)}, but vectors come as (examples, width), "
        "(examples, positions, width) or (examples, width, height, width of a picture)."
    )


def _require_equal(pair: Feature, student: Sequence[int], teacher: Sequence[int], how: str) -> None:
    if tuple(student) != tuple(teacher):
        raise MismatchError(
            f"Feature {pair}: the student's layer gives {tuple(student)} and the teacher's {tuple(teacher)}, but they "
            f"are compared {how}."
        )


def _is_of_tokens(pair: Feature, student: Tensor, batch: Batch) -> bool:
    """Whether a feature's positions are the tokens of a batch.

    Raises:
        MismatchError: there are tokens, and the positions are others, or those of another tokenizer.
    """
    rows, tokens = real_positions(batch)
    if len(student) != len(rows):
        raise MismatchError(
            f"Feature {pair}: the student's layer gives {tuple(student.shape)} for {len(rows)} examples; name one that "
            "keeps examples apart."
        )
    if tokens is None or not (student.ndim == POSITIONS or pair.loss == "attention"):
        return False
    if TEACHER_PREFIX + "input_ids" in batch:
        raise MismatchError(
            f"Feature {pair} compares token with token, but the teacher reads tokens of its own, "
            f"{TEACHER_PREFIX}input_ids; name layers that give one vector for each example."
        )
    positions = student.shape[-1] if pair.loss == "attention" else student.shape[1]
    if positions != tokens.shape[1]:
        raise MismatchError(
            f"Feature {pair}: the layers give {positions} positions for {tokens.shape[1]} tokens, so that it cannot be "
            "told which of them are padding; name layers that give one vector for each token."
        )
    return True


def _require_gradient(pair: Feature, student: Tensor) -> None:
    if torch.is_grad_enabled() and not student.requires_grad:
        raise MismatchError(
            f"Feature {pair} would teach the student nothing: no gradient reaches a weight from its layer. Everything "
            "up to there is frozen, or gradient checkpointing has use_reentrant=True (take False)."
        )


def _with_ones(vectors: Tensor, tokens: Tensor) -> Tensor:
    """Vectors (B, T, H), with ones in the place of those that do not count: a cosine of zeros has no gradient."""
    return torch.where(tokens[..., None], vectors, torch.ones_like(vectors))


def _new_projection(width: int, to: int, seed: int) -> nn.Linear:
    """With first weights as those of any `nn.Linear`, from random numbers of its own."""
    projection = nn.utils.skip_init(nn.Linear, width, to)
    generator, bound = torch.Generator().manual_seed(seed), width**-0.5
    for weights in projection.parameters():
        nn.init.uniform_(weights, -bound, bound, generator=generator)
    return projection
