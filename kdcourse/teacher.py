"""Where teacher logits come from: a model that scores each batch, or what it has scored before (lessons 05 and 07).

A student that is trained several times asks the same teacher the same questions. The answers are a few numbers per
sentence, so they are computed once and stored beside a fingerprint of everything that they depend on. Whichever source
it is, a training step asks it one thing: the logits for this batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdcourse.cache import LogitsCache, locked
from kdcourse.checks import MismatchError, require_temperature
from kdcourse.collators import Collator, Rows, padding_by_position, padding_on_the_right
from kdcourse.columns import (
    CACHE_COLUMN,
    LOGITS_COLUMN,
    ROW_COLUMN,
    TEACHER_PREFIX,
    TOPK_IDS_COLUMN,
    TOPK_LOG_PROBS_COLUMN,
    Batch,
    arguments_of,
    is_packed,
    teacher_features,
    unwrapped,
)
from kdcourse.compat import label_names, require_room, vocabulary_of
from kdcourse.hashing import values_of
from kdcourse.parts import Part, folder_of_part, part_in_words, rows_of_part
from kdcourse.pieces import ROW, ROWS_AND_CLASSES, CacheMismatchError, narrowed, require_same
from kdcourse.provenance import (
    COLUMNS,
    PART,
    columns_named,
    columns_read,
    fingerprint,
    fingerprint_of_rows,
    number_of_rows,
)
from kdcourse.sampled import sample_k
from kdcourse.served import require_served, served_top_k
from kdcourse.tasks import Task, registered_task, with_article
from kdcourse.topk import Logits, concatenate, spread, stack, top_k

if TYPE_CHECKING:
    from datasets import Dataset

Answer = TypeVar("Answer")

LABEL_NAMES = "label names"
"""What a cache keeps of a classifier's labels, as JSON: in another order, its logits would teach other classes."""

IN_THE_LOOP: dict[Task, str] = {
    "masked language model": "its texts are masked anew in each epoch, and an answer is for one of them",
    "encoder-decoder": "it answers for tokens of labels, and what is stored of a row are answers for what it reads",
}
"""Tasks whose teachers are asked at each step, and why nothing of them is stored."""

SHORT = (torch.float16, torch.bfloat16)
"""The precisions in which logits take half the room."""


FILE_BYTES = 256 * 2**20
"""Of a language model's logits in float32 that one file of a cache holds, unless a single batch has more: until it is
written, they are in memory."""


class Teacher(Protocol):
    """A source of logits."""

    def logits(self, inputs: Batch) -> Logits | None:
        """Logits for a batch, in the shape of the student's; None if the batch brings nothing to go by."""


class ModelTeacher:
    """A model that scores each batch, in eval mode and without gradients.

    It reads columns of its own where the batch has them, such as `teacher_input_ids` (another tokenizer) or
    `teacher_pixel_values`, and else what it can read of the student's; see `kdcourse.columns.teacher_features`.
    """

    def __init__(self, model: nn.Module, vocabulary: int | None = None) -> None:
        """`vocabulary`: how many ids student and teacher share, if the teacher's logits are padded beyond them."""
        self.model = model.eval().requires_grad_(False)
        self.vocabulary = vocabulary

    def logits(self, inputs: Batch) -> Tensor:
        return self.answer(inputs, lambda model, arguments: logits_of(model(**arguments)))[..., : self.vocabulary]

    def answer(self, inputs: Batch, call: Callable[[nn.Module, dict[str, Any]], Answer]) -> Answer:
        """What `call(model, arguments)` makes of the model and of what it can read of a batch."""
        if self.model.training:  # somebody else has called train()
            self.model.eval()
        with torch.no_grad():
            return call(self.model, arguments_for(self.model, inputs))


def placed(teacher: nn.Module, device: torch.device) -> nn.Module:
    """The teacher beside the student, unless it is spread over devices or quantised, and so placed already."""
    if getattr(teacher, "hf_device_map", None) or getattr(teacher, "is_quantized", False):
        return teacher
    return teacher.to(device)


def ask(teacher: nn.Module, inputs: Batch) -> Tensor:
    """A teacher's logits for what it can read of a batch."""
    return logits_of(teacher(**arguments_for(teacher, inputs)))


def arguments_for(teacher: nn.Module, inputs: Batch) -> dict[str, Any]:
    """What a teacher is called with, to answer a batch."""
    # A cache of keys and values serves generation. Here it costs memory, and models that tell packed texts apart by
    # their positions do not look at them while there is a cache: the teacher would read across texts.
    settings = {"use_cache": False} if "use_cache" in arguments_of(teacher) else {}
    features = teacher_features(inputs, teacher)
    require_room("teacher", teacher, features)
    return features | settings


def logits_of(outputs: Any) -> Tensor:
    """The logits among a model's outputs, which name them, or begin with them, or are nothing else.

    Raises:
        TypeError: something else.
    """
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    if isinstance(outputs, (tuple, list)) and outputs:
        return logits_of(outputs[0])
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The model gave {type(outputs).__name__}, in which there are no logits; its forward has to return "
            "them as a tensor, under the name `logits`, or as the first of several."
        )
    return logits


class ColumnTeacher:
    """Answers that travel with the examples: logits in the column `teacher_logits` (see `add_logits`), or a language
    model's top k from elsewhere in `teacher_topk_ids` and `teacher_topk_log_probs` (see `add_top_k`).
    """

    def __init__(self, vocabulary: int | None = None) -> None:
        """`vocabulary`: how many token ids the student has logits for; a top k alone does not tell."""
        self.vocabulary = vocabulary

    @staticmethod
    def has_answers(inputs: Batch) -> bool:
        """Whether a batch has one of the two columns."""
        return TOPK_IDS_COLUMN in inputs or LOGITS_COLUMN in inputs

    def logits(self, inputs: Batch) -> Logits | None:
        if TOPK_IDS_COLUMN not in inputs:
            return inputs.get(LOGITS_COLUMN)
        if self.vocabulary is None:
            raise ValueError(
                f"The batch brings {TOPK_IDS_COLUMN}, and nothing says how many token ids there are; pass "
                "teacher=kdcourse.teacher.ColumnTeacher(vocabulary=...), the width of the student's logits."
            )
        return served_top_k(inputs[TOPK_IDS_COLUMN], inputs[TOPK_LOG_PROBS_COLUMN], self.vocabulary)


class CachedTeacher:
    """Logits from a `LogitsCache`; the columns `teacher_row` and `teacher_cache` say which (see `add_rows`)."""

    def __init__(self, cache: LogitsCache, vocabulary: int | None = None) -> None:
        """`vocabulary`: how many ids student and teacher share, if the teacher's logits are padded beyond them."""
        self.cache, self.vocabulary = cache, vocabulary

    @property
    def label_names(self) -> list[str]:
        """The labels that the cached logits are for, by class; none if the teacher's had no names."""
        return json.loads(next((about[LABEL_NAMES] for _, about in self.cache.pieces() if LABEL_NAMES in about), "[]"))

    def logits(self, inputs: Batch) -> Logits | None:
        """
        Raises:
            CacheMismatchError: rows that were numbered for another cache, or that do not say for which.
            ValueError: texts of another length than were scored.
        """
        if ROW_COLUMN not in inputs:
            return None
        rows = [self._cut(self.cache[row]) for row in self._own_rows(inputs)]
        if rows[0].ndim == ROW:
            return stack(rows)
        mask = inputs["attention_mask"] if "attention_mask" in inputs else torch.ones_like(inputs["input_ids"])
        lengths = _lengths_of_packed(inputs) if is_packed(inputs) and len(rows) > len(mask) else mask.sum(dim=1)
        _require_lengths([len(row) for row in rows], lengths.tolist())
        return spread(concatenate(rows), mask)  # padding may be on either side

    def _cut(self, logits: Logits) -> Logits:
        if self.vocabulary is None:
            return logits
        return logits[..., : self.vocabulary] if isinstance(logits, Tensor) else logits.first(self.vocabulary)

    def _own_rows(self, inputs: Batch) -> list[int]:
        """The rows that a batch asks for, each of which was numbered for this cache."""
        if CACHE_COLUMN not in inputs:
            raise CacheMismatchError(
                f"The batch has {ROW_COLUMN} and no {CACHE_COLUMN}, so that row 5 may be another cache's; take the "
                "dataset that add_rows(dataset) gives, and a collator that keeps both columns."
            )
        rows, numbers = torch.stack([inputs[ROW_COLUMN], inputs[CACHE_COLUMN]]).tolist()
        for row, number in zip(rows, numbers, strict=True):
            own = number_of_rows(self.cache.about(row))
            if number != own:
                raise CacheMismatchError(
                    f"Row {row} was numbered for another cache ({CACHE_COLUMN} {number:x}) than {self.cache.folder} "
                    f"({own:x}), which has there another example or none. Give the dataset that add_rows of this "
                    "teacher makes; to train and evaluate, score both into one cache, concatenate_datasets([train, "
                    "evaluation]), and take each of them out of what add_rows makes of it."
                )
        return rows

    def add_rows(self, dataset: Dataset) -> Dataset:
        """The dataset that was scored, with each example's row beside it, and a number for the rows it is among.

        A cache of another teacher that holds the same rows, in files of as many, reads them, too.

        Raises:
            CacheMismatchError: another dataset.
            ValueError: more rows, or fewer: cut the dataset down after this.
        """
        if len(dataset) != len(self.cache):
            raise ValueError(
                f"There are {len(self.cache):,} cached rows for {len(dataset):,} examples, and each has its own; pass "
                "the dataset that was scored, and select from what comes back."
            )
        numbers: list[int] = []
        for rows, stored in self.cache.pieces():
            if COLUMNS in stored:
                read = fingerprint_of_rows(dataset.select(rows), columns_named(stored, dataset))
                require_same(f"in {self.cache.folder}", stored, read)
            numbers += [number_of_rows(stored)] * len(rows)
        return dataset.add_column(ROW_COLUMN, list(range(len(dataset)))).add_column(CACHE_COLUMN, numbers)


def cache_logits(
    folder: Path,
    teacher: nn.Module,
    tokenizer: Any,
    dataset: Dataset,
    *,
    weights: str | None = None,
    k: int | None = None,
    temperature: float | None = None,
    sampled: bool = False,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    collate: Collator | None = None,
    batch_size: int = 64,
    rows_per_file: int = 1024,
    part: Part | None = None,
    progress: bool = False,
) -> CachedTeacher:
    """Score a dataset into `folder`, as far as it is not there yet.

    Args:
        folder: the cache; a run that was interrupted, or a dataset that grew at its end, resumes where it was.
        teacher: a classifier or a causal language model.
        tokenizer, dataset, collate: see `score`.
        weights: digest of the files that the teacher's weights come from, if they are not to be hashed themselves.
        k: keep this many logits of each row, and what stands for the rest at `temperature`; None keeps all.
        sampled: draw the k (see `kdcourse.sampled`), so that a forward KL and its gradient are right on average; else
            they are the largest.
        seed: of the draw, which is the same wherever a run was interrupted, and however rows are batched.
        dtype: of the logits on disk: torch.float16, torch.bfloat16 or torch.float32. None takes the one in which the
            teacher answers, so that not a bit is lost.
        rows_per_file: how much work an interruption can lose. Files of a language model hold fewer rows where those
            would be more than `FILE_BYTES`, but never less than a batch.
        part: (i, n) scores the i-th of n parts alone, counted from 0, into a folder beside this one, so that n
            processes can work at once; `kdcourse.parts.merge_parts` puts them together. What comes back knows this
            part's rows.

    Raises:
        CacheMismatchError: the folder belongs to another teacher, tokenizer, dataset or setting, or is damaged; it says
            which.
        MismatchError: see `require_storable`.
        OSError: the folder cannot be read or written; what is there stays.
    """
    require_storable(teacher)
    keep = _Keep(k, temperature, sampled, seed, dtype)
    settings = {
        "settings": str(keep),
        "collate": "the Trainer's" if collate is None else getattr(collate, "__qualname__", type(collate).__qualname__),
    }
    if names := label_names(teacher):
        settings[LABEL_NAMES] = json.dumps(names)
    depends_on = fingerprint(teacher, tokenizer, weights=weights) | settings
    columns = columns_read(dataset, teacher)
    before = 0
    if part is not None:
        rows_of_this = rows_of_part(part, len(dataset))
        depends_on |= {PART: part_in_words(part, len(dataset))}
        folder, before, dataset = folder_of_part(folder, part), rows_of_this.start, dataset.select(rows_of_this)
    with locked(folder):
        cache = LogitsCache(folder, depends_on)
        for rows, stored in cache.pieces():
            if rows.stop > len(dataset):
                raise CacheMismatchError(
                    f"{folder} holds {len(cache):,} rows and the dataset {len(dataset):,}; a cache grows with its "
                    "dataset, so take another folder for a smaller one."
                )
            require_same(f"in {folder}", stored, fingerprint_of_rows(dataset.select(rows), columns))
        while (start := len(cache)) < len(dataset):
            piece = dataset.select(range(start, min(start + rows_per_file, len(dataset))))
            piece = piece.select(range(_rows_at_once(piece, teacher, columns, k, batch_size)))
            scored = _score_rows(
                teacher, tokenizer, piece, collate, batch_size, progress, partial(keep, first_row=before + start)
            )
            cache.append(scored, about=fingerprint_of_rows(piece, columns))
    return CachedTeacher(cache)


def _rows_at_once(piece: Dataset, teacher: nn.Module, columns: Sequence[str], k: int | None, batch_size: int) -> int:
    """How many of its first rows fit into one file.

    Halves, and float32 whatever is stored: so that teachers of nearly one width, whose caches are read together, have
    files of the same rows.
    """
    rows, ids = len(piece), _ids_among(columns)
    if registered_task(teacher) != "language model" or ids is None:
        return rows
    of_token = 4 * (vocabulary_of(teacher) or 0) if k is None else 8 * k  # an id takes as much as a logit
    lengths = [len(row) for row in values_of(piece, ids)]
    while rows > batch_size and sum(lengths[:rows]) * of_token > FILE_BYTES:
        rows = max(rows // 2, batch_size)
    return rows


def _ids_among(columns: Sequence[str]) -> str | None:
    return next((column for column in columns if column.removeprefix(TEACHER_PREFIX) == "input_ids"), None)


@dataclass(frozen=True)
class _Keep:
    """What a cache keeps of a row's logits, and, as a text, what it says of that.

    Raises:
        ValueError: settings that do not belong together, or a dtype that is none of the three.
    """

    k: int | None
    temperature: float | None
    sampled: bool
    seed: int
    dtype: torch.dtype | None

    def __post_init__(self) -> None:
        if (self.k is None) != (self.temperature is None):
            raise ValueError("k and temperature belong together: what the rest weighs depends on the temperature.")
        if self.temperature is not None:
            require_temperature(self.temperature)
        if self.sampled and self.k is None:
            raise ValueError("sampled=True draws k classes of each row; say how many, k=50, and for which temperature.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but it is a whole number, 0 or more.")
        if self.dtype not in (None, torch.float32, *SHORT):
            raise ValueError(f"dtype is {self.dtype}, but logits are stored in float16, bfloat16 or float32.")

    def __call__(self, logits: Tensor, row: int, first_row: int) -> Logits:
        """Of the logits of one row, counted from `first_row`."""
        own = logits.dtype if logits.dtype in SHORT else torch.float32
        return narrowed(self._cut(logits.float(), first_row + row), self.dtype or own)

    def _cut(self, logits: Tensor, row: int) -> Logits:
        if self.k is None or self.temperature is None:
            return logits
        if self.sampled:
            return sample_k(logits, self.k, self.temperature, seed=(self.seed, row))
        return top_k(logits, self.k, self.temperature)

    def __str__(self) -> str:
        """float32 and the teacher's own precision give the same numbers back, and are one setting."""
        precision = f" in {self.dtype}".replace("torch.", "") if self.dtype in SHORT else ""
        if self.temperature is None:
            return f"all logits{precision}"
        if self.sampled:
            return f"{self.k} sampled at temperature {float(self.temperature)} with seed {self.seed}{precision}"
        return f"top {self.k} at temperature {float(self.temperature)}{precision}"


def score(
    model: nn.Module,
    tokenizer: Any,
    dataset: Dataset,
    *,
    collate: Collator | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Tensor:
    """A classifier's logits (N, C) for every row of a dataset, in its order, in float32 on the CPU.

    Args:
        model: it reads the columns that begin with `teacher_`, where there are such: of a student beside a teacher with
            another tokenizer, leave them out, or ask `trainer.predict`.
        tokenizer: what pads uneven rows, a tokenizer or a feature extractor; an image processor, or None, for rows that
            are even.
        dataset: tokenized, or processed to what the model's forward names, such as `pixel_values`; its format and
            transform are honoured, and a transform has to make the same of a row each time.
        collate: how a list of rows becomes a batch, if not as the Trainer does it: padded, or else stacked.

    Raises:
        MismatchError: see `require_storable`.
        ValueError: the rows have nothing that the model reads, cannot be stacked, or are none.
    """
    require_storable(model)
    if not len(dataset):
        raise ValueError("There are no rows to score.")
    return torch.stack(_score_rows(model, tokenizer, dataset, collate, batch_size, progress)).float()


def require_storable(teacher: nn.Module) -> None:
    """A teacher whose answers are the same whenever a row is read, one for each row or for each of its tokens.

    Raises:
        MismatchError: those of a masked language model or an encoder-decoder are not.
    """
    if (task := registered_task(teacher)) in IN_THE_LOOP:
        raise MismatchError(
            f"The teacher ({type(unwrapped(teacher)).__name__}) is {with_article(task)}: {IN_THE_LOOP[task]}. Leave it "
            "in the loop, teacher=model."
        )


def require_in_the_loop(task: Task | None, teacher: Any) -> None:
    """The task of a student, and where its teacher's answers come from, if not from a model.

    Raises:
        MismatchError: they were computed before, and the task is not one for that.
    """
    if task in IN_THE_LOOP and (teacher is None or isinstance(teacher, (CachedTeacher, ColumnTeacher))):
        source = "there is no teacher model" if teacher is None else f"the teacher is a {type(teacher).__name__}"
        raise MismatchError(
            f"The student is {with_article(task)}, and {source}: {IN_THE_LOOP[task]}. Leave the teacher in the loop, "
            "teacher=model."
        )


@torch.inference_mode()
def _score_rows(
    model: nn.Module,
    tokenizer: Any,
    dataset: Dataset,
    collate: Collator | None,
    batch_size: int,
    progress: bool,
    keep: Callable[[Tensor, int], Logits] | None = None,
) -> list[Any]:
    """One tensor per row: (C,) of a classifier, (tokens, V) of a language model; `keep` reduces it and its row at once.

    Rows are batched by length, so that little padding is computed; the model is in eval mode while it scores.
    """
    columns = columns_read(dataset, model)
    collate = collate or _default_collate(tokenizer, model)
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    order = _by_length(dataset, columns)
    scored: list[Any] = [None] * len(order)
    with in_eval_mode(model):
        for start in tqdm(range(0, len(order), batch_size), desc="teacher", disable=not progress):
            batch = order[start : start + batch_size]
            rows = [
                {column.removeprefix(TEACHER_PREFIX): row[column] for column in columns}
                for row in dataset.__getitems__(batch)
            ]
            inputs = {name: value.to(device) for name, value in collate(rows).items()}
            logits = ask(model, inputs).cpu()
            masks = _masks(inputs, logits)
            for index, row, mask in zip(batch, logits, masks, strict=True):
                row = row.clone() if mask is None else row[mask]  # noqa: PLW2901  (a view would keep the whole batch)
                scored[index] = keep(row, index) if keep else row
    return scored


def _default_collate(tokenizer: Any, model: nn.Module) -> Collator:
    """As the Trainer chooses it, with padding on the right."""
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, SequenceFeatureExtractor

    if isinstance(tokenizer, PreTrainedTokenizerBase | SequenceFeatureExtractor):
        # Padding on the left would move the positions that a GPT-2 counts, and with them its answers: what is stored of
        # a row would depend on the rows that it was scored with.
        pads = padding_by_position if registered_task(model) == "language model" else padding_on_the_right
        return DataCollatorWithPadding(pads(cast("PreTrainedTokenizerBase", tokenizer)))
    return _stacked


def _stacked(rows: Rows) -> dict[str, Any]:
    from transformers import default_data_collator

    try:
        return default_data_collator(rows)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"The rows are uneven ({error}) and nothing pads them; pass the tokenizer or the feature extractor that "
            "does, or a collate of your own."
        ) from error


def _by_length(dataset: Dataset, columns: Sequence[str]) -> list[int]:
    """The rows, those with fewest tokens first; as they are, if they have none."""
    ids = _ids_among(columns)
    if ids is None:
        return list(range(len(dataset)))
    lengths = [len(row) for row in values_of(dataset, ids)]
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def _masks(inputs: Batch, logits: Tensor) -> Iterable[Tensor | None]:
    """Which of a row's logits are a token's and not padding's, (B, T); none for each row of a classifier.

    Raises:
        ValueError: there is not one answer for each token.
    """
    if logits.ndim == ROWS_AND_CLASSES:
        return [None] * len(logits)
    mask = inputs.get("attention_mask")
    if mask is None and "input_ids" in inputs:
        mask = torch.ones_like(inputs["input_ids"])
    if mask is None or mask.shape != logits.shape[:-1]:
        tokens = "no tokens" if mask is None else f"tokens of shape {tuple(mask.shape)}"
        raise ValueError(
            f"The teacher's logits have shape {tuple(logits.shape)} for {tokens}, but one answer for each example or "
            "each token is what can be stored; leave this teacher in the loop."
        )
    return mask.bool().cpu()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Each of its modules gets back the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def add_logits(dataset: Dataset, logits: Tensor) -> Dataset:
    """The dataset with one row of teacher logits beside each example."""
    if len(logits) != len(dataset):
        raise ValueError(f"There are {len(logits):,} rows of logits for {len(dataset):,} examples; each needs its own.")
    return dataset.add_column(LOGITS_COLUMN, logits.tolist())


def add_top_k(dataset: Dataset, ids: Sequence[Any], log_probs: Sequence[Any]) -> Dataset:
    """The dataset with somebody else's top k beside each token: of an API, or of an inference server.

    `LanguageModelCollator` makes a batch of it, and a trainer without a teacher learns from that, at temperature 1.

    Args:
        dataset: with `input_ids`, and perhaps `labels`.
        ids: for each row and each of its tokens, the token ids that were likeliest in its place; none, or None, where
            nothing was said: for the first token, and for a prompt without labels.
        log_probs: their log-probabilities given the tokens before, in nats, at temperature 1.

    Raises:
        MismatchError, ValueError: see `kdcourse.served.require_served`.
    """
    if not len(dataset) == len(ids) == len(log_probs):
        raise MismatchError(
            f"There are ids for {len(ids):,} rows and log_probs for {len(log_probs):,}, and the dataset has "
            f"{len(dataset):,}; each row needs its own."
        )
    for number, (row, of_row, theirs) in enumerate(zip(dataset, ids, log_probs, strict=True)):
        require_served(f"Row {number}", of_row, theirs, row["input_ids"], row.get("labels"))

    def listed(column: Sequence[Any]) -> list[Any]:
        return [[None if entry is None else np.asarray(entry).tolist() for entry in of_row] for of_row in column]

    return dataset.add_column(TOPK_IDS_COLUMN, listed(ids)).add_column(TOPK_LOG_PROBS_COLUMN, listed(log_probs))


def _lengths_of_packed(inputs: Batch) -> Tensor:
    """Of the texts in one row, each of which begins where the positions do."""
    positions = inputs["position_ids"][0]
    return torch.cat([(positions == 0).nonzero()[:, 0], positions.new_tensor([len(positions)])]).diff()


def _require_lengths(cached: list[int], given: list[int]) -> None:
    if cached != given:
        raise ValueError(
            f"The cache holds {cached} tokens for sequences of {given}; train on the rows as they were scored."
        )
