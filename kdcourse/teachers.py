"""Several teachers of one student, and what they say together (lesson 11).

They are mixed before they teach: as probabilities, where a class that one teacher believes in keeps its share, or as
logits, where each teacher has a veto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from kdcourse.cache import LogitsCache
from kdcourse.checks import MismatchError, require_logits, require_temperature
from kdcourse.columns import ANSWERS, LOGITS_COLUMN, ROW_COLUMN, TEACHER_PREFIX, Batch, is_own_column
from kdcourse.pieces import CacheMismatchError
from kdcourse.provenance import said_of_rows
from kdcourse.teacher import CachedTeacher, ColumnTeacher, ModelTeacher, Teacher
from kdcourse.temperature import at_least_float32, at_temperature

MIXES = ("probabilities", "logits")

ROUNDING = 1e-6
"""By which the sum of weights may miss 1."""


def mix_logits(
    logits: Sequence[Tensor], weights: Sequence[float], temperature: float, mix: str = "probabilities"
) -> Tensor:
    """The logits of a mixture of teachers, in float32 or better.

    "probabilities" is the arithmetic mean of their distributions, T · log Σ wᵢ softmax(tᵢ / T), so that a softmax at
    the temperature T gives Σ wᵢ softmax(tᵢ / T) back; at another one it does not. "logits" is Σ wᵢ tᵢ: at every
    temperature the geometric mean, made to sum to 1. Hinton et al. (2015, arXiv:1503.02531) name both for an ensemble.
    A class that is ruled out (-inf) stays so if all teachers rule it out; as logits, if one does.

    Args:
        logits: of each teacher, (…, C).
        weights: one for each, 0 or more, that sum to 1; what a teacher of weight 0 says has no say, whatever it is.
        temperature: T, above 0.
        mix: "probabilities" or "logits".

    Raises:
        MismatchError: the shapes differ.
        ValueError: other weights, another temperature or mix.
    """
    require_mixture(weights, mix)
    require_temperature(temperature)
    if len(weights) != len(logits):
        raise ValueError(
            f"There are {len(weights)} weights for the logits of {len(logits)} teachers; give one for each."
        )
    for number, each in enumerate(logits):
        if each.shape != logits[0].shape:
            raise MismatchError(
                f"Teacher 1 of {len(logits)} gives logits {tuple(logits[0].shape)} and teacher {number + 1} "
                f"{tuple(each.shape)}, but they are mixed row for row and class for class; check the teachers' "
                "num_labels (or vocabulary sizes), and that all score the same rows."
            )
    heard = [(weight, each) for weight, each in zip(weights, logits, strict=True) if weight]
    if mix == "logits":
        return torch.stack([weight * at_least_float32(each) for weight, each in heard]).sum(dim=0)
    weight, first = heard[0]
    log_mixture = math.log(weight) + F.log_softmax(at_temperature(first, temperature), dim=-1)
    for weight, each in heard[1:]:  # one after the other: of a large vocabulary, all at once would take much memory
        log_probs = math.log(weight) + F.log_softmax(at_temperature(each, temperature), dim=-1)
        log_mixture = torch.logaddexp(log_mixture, log_probs)
    return temperature * log_mixture


def require_mixture(weights: Sequence[float] | None, mix: str) -> None:
    """
    Raises:
        ValueError: weights that are negative, no numbers or do not sum to 1; or a way of mixing that there is not.
    """
    if mix not in MIXES:
        raise ValueError(f"teacher_mix is {mix!r}; it can be {' or '.join(MIXES)}.")
    if weights is None:
        return
    if not all(0 <= weight < math.inf for weight in weights) or abs(sum(weights) - 1) > ROUNDING:
        raise ValueError(
            f"teacher_weights are {list(weights)}, but they are shares of one teaching: each 0 or more, and 1 together "
            f"(here {sum(weights):g})."
        )


class Mixing(Protocol):
    """How teachers are mixed; `DistillationArguments` say it, and are asked at each step, since a schedule may change
    the temperature.
    """

    temperature: float
    teacher_weights: list[float] | None
    teacher_mix: str


class Teachers:
    """Several sources of logits as one. Each is asked for whole logits; one whose weight is 0 is not asked.

    Args:
        sources: two or more.
        settings: weights (equal ones, if None), temperature and mix.

    Raises:
        CacheMismatchError: two caches that do not hold the same rows.
    """

    def __init__(self, sources: Sequence[Teacher], settings: Mixing) -> None:
        self.sources, self.settings = list(sources), settings
        self._has_looked = False
        require_same_rows(self.sources)

    @property
    def weights(self) -> list[float]:
        given = self.settings.teacher_weights
        return [1 / len(self.sources)] * len(self.sources) if given is None else given

    def logits(self, inputs: Batch) -> Tensor | None:
        """
        Raises:
            MismatchError: a teacher that keeps some of its classes alone, gives probabilities, or another shape.
        """
        heard, weights = [], []
        for number, (source, weight) in enumerate(zip(self.sources, self.weights, strict=True)):
            if not weight:
                continue
            with said_of(number, len(self.sources)):
                logits = source.logits(inputs)
                if logits is None:
                    return None
                if not isinstance(logits, Tensor):
                    raise MismatchError(
                        f"{type(source).__name__} gives some of the classes alone ({type(logits).__name__}), and two "
                        "teachers keep different ones, so that there is no mixture of them. Give whole logits: a cache "
                        "without k, or the model itself."
                    )
                if not self._has_looked:
                    require_logits(teacher_logits=logits)
            heard.append(logits)
            weights.append(weight)
        self._has_looked = True
        device = next(each for each in inputs.values() if isinstance(each, Tensor)).device
        heard = [each.to(device) for each in heard]
        return mix_logits(heard, weights, self.settings.temperature, self.settings.teacher_mix)


def sources_of(teacher: Any) -> list[Any]:
    """The teachers, of whom there may be one."""
    if isinstance(teacher, Teachers):
        return list(teacher.sources)
    return list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]


def models_of(teacher: Teacher) -> list[nn.Module]:
    """The models that are asked at each step."""
    return [source.model for source in sources_of(teacher) if isinstance(source, ModelTeacher)]


def is_for_a_teacher(name: str, teacher: Teacher) -> bool:
    """Whether a column is one of a teacher's: what a model reads, or an answer; of a source of one's own, any."""
    if not name.startswith(TEACHER_PREFIX):
        return False
    return name in ANSWERS or any(
        is_own_column(name, source.model)
        if isinstance(source, ModelTeacher)
        else not isinstance(source, (CachedTeacher, ColumnTeacher))
        for source in sources_of(teacher)
    )


def require_teachers(teacher: Any, settings: Mixing, tokenizers: Sequence[Any]) -> None:
    """
    Raises:
        TypeError: a teacher that is a name.
        ValueError: no teacher, or weights or tokenizers for another number of them.
    """
    sources, weights = sources_of(teacher), settings.teacher_weights
    if not sources:
        raise ValueError("teacher is an empty list; pass a model, or several, or None for logits in the dataset.")
    for number, source in enumerate(sources):
        if isinstance(source, str):
            which = "" if len(sources) == 1 else f" (teacher {number + 1} of {len(sources)})"
            raise TypeError(
                f"teacher is the name {source!r}{which}; load the model that it names, as the student was, and pass "
                "that."
            )
    if weights is not None and len(weights) != len(sources):
        raise ValueError(
            f"teacher_weights are {weights}, {len(weights)} of them, and the number of teachers is {len(sources)}; "
            "give each teacher its weight, teacher=[…], or leave the weights out for equal ones."
        )
    if len(tokenizers) not in (1, len(sources)):
        raise ValueError(
            f"teacher_processing_class holds {len(tokenizers)} for {len(sources)} teachers; pass one that all of them "
            "read with, or one for each."
        )


def require_same_rows(sources: Sequence[Any]) -> None:
    """Caches are read by one column, `teacher_row`: row 5 has to be the same example in each.

    Raises:
        CacheMismatchError: it is not, or cannot be told.
    """
    caches = [(number, source.cache) for number, source in enumerate(sources) if isinstance(source, CachedTeacher)]
    for number, cache in caches[1:]:
        first_number, first = caches[0]
        if _rows_of(cache) != _rows_of(first):
            raise CacheMismatchError(
                f"Teacher {first_number + 1} of {len(sources)} is the cache {first.folder} and teacher {number + 1} "
                f"{cache.folder}, and their files are not of the same rows and columns, so that row 5 of one may be "
                "another example in the other. Score the same dataset with the same columns, rows_per_file and "
                "batch_size for each."
            )


def _rows_of(cache: LogitsCache) -> list[Any]:
    """What each file of a cache holds, as far as that depends on the dataset."""
    return [(rows, said_of_rows(about)) for rows, about in cache.pieces()]


def nothing_from(teacher: Teacher, inputs: Batch) -> str:
    """In words, why a source has no logits for a batch."""
    for number, source in enumerate(sources_of(teacher)):
        if isinstance(source, ModelTeacher) or source.logits(inputs) is not None:
            continue
        which = f"Teacher {number + 1} of {len(sources_of(teacher))}: " if isinstance(teacher, Teachers) else ""
        if isinstance(source, CachedTeacher):
            return (
                f"{which}The batch has {sorted(inputs)} and no {ROW_COLUMN}, by which the cache finds a row's logits; "
                "train on the dataset that add_rows(dataset) of the cached teacher gives, with a collator that "
                "keeps the column (kdcourse.collators.LanguageModelCollator does, packed=True or not)."
            )
        break
    else:
        which = ""
    return (
        f"{which}There is no teacher: pass teacher=..., or add its logits to the dataset as column "
        f"'{LOGITS_COLUMN}'; none is needed at alpha=1, where labels alone teach. This batch has {sorted(inputs)}."
    )


@contextmanager
def said_of(number: int, teachers: int) -> Iterator[None]:
    """Of several teachers, which one an error is about."""
    try:
        yield
    except ValueError as error:
        if teachers == 1 or type(error) not in (ValueError, MismatchError, CacheMismatchError):
            raise
        raise type(error)(f"Teacher {number + 1} of {teachers}: {error}") from error
