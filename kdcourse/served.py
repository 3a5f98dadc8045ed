"""A top k that comes from elsewhere: log-probabilities of an API or an inference server.

They stand beside the token that they predict, as such servers give them: the first token of a text has none, and a
prompt may have none. The likeliest tokens with their log-probabilities are all that is known, and what is missing to a
sum of 1 is the weight of the rest.

That holds at temperature 1. At another T, the k would be exp(log p / T), and the rest Σ exp(log p / T) over the classes
that nobody named: of 100,000 classes that share a tenth of the probability, it is the tenth at T = 1, and at T = 2
anything from one large class's √.1 ≈ .3 to √(100,000 · .1) = 100. So T = 1 is the one temperature at which student and
teacher can be compared; among the k alone, any T would do, and would teach that nothing else is ever said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdcourse.checks import IGNORED_LABEL, MismatchError
from kdcourse.columns import TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN
from kdcourse.topk import TopK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SERVED = (TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN)

ROUNDING = 0.01
"""By how much probabilities of a server in 16 bits may add up to more than 1."""

LEAST_REST = 2.0**-24
"""What the classes that were not named have at least: log-probabilities in float32 cannot tell it from nothing."""

Entries = Sequence[Sequence[Any] | None]
"""For each token of a text, its k numbers, or nothing."""


def require_served(
    where: str,
    ids: Entries,
    log_probs: Entries,
    tokens: Sequence[int],
    labels: Sequence[int] | None = None,
    vocabulary: int | None = None,
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """A text's top k are what they are said to be: entries for its tokens, ids, and logarithms of probabilities.

    Args:
        where: what an error calls the text.
        labels: which tokens are to be learned, if not all.
        vocabulary: how many ids there are, if that is known.

    Returns:
        How many entries each token has, and the ids and the log-probabilities of all tokens behind each other.

    Raises:
        MismatchError: entries and tokens do not go together.
        ValueError: an id or a log-probability that is none.
    """
    counts = _counts(where, ids, log_probs, tokens)
    _require_shift(where, counts, tokens if labels is None else labels)
    all_ids, all_log_probs = _joined(TOPK_IDS_COLUMN, ids, "iu"), _joined(TOPK_LOG_PROBS_COLUMN, log_probs, "fiu")
    of_token = np.repeat(np.arange(len(counts)), counts)

    def refuse(wrong: np.ndarray, words: str) -> None:
        """`words` about the first entry that is wrong."""
        if wrong.any():
            entry = int(wrong.argmax())
            said = words.format(id=all_ids[entry], log_prob=all_log_probs[entry])
            raise ValueError(f"{where}, token {of_token[entry]}: {said}")

    legal = "from 0 on" if vocabulary is None else f"0 to {vocabulary - 1}"
    refuse(
        (all_ids < 0) | (all_ids >= (vocabulary or np.inf)),
        f"{{id}} is no token id, which are {legal}; leave it out, and its probability belongs to the rest.",
    )
    refuse(np.isnan(all_log_probs), "the log-probability of id {id} is not a number.")
    refuse(
        all_log_probs > ROUNDING,
        "the log-probability of id {id} is {log_prob}, but a probability is at most 1 and its logarithm at most 0; if "
        "these are probabilities, take their logarithms.",
    )
    total = np.bincount(of_token, np.exp(all_log_probs.astype(np.float64)), len(counts))
    if (total > 1 + ROUNDING).any():
        token = int(total.argmax())
        raise ValueError(
            f"{where}, token {token}: the probabilities of its {counts[token]} ids add up to {total[token]:.4g}, but "
            "those of all ids are 1 together; ask for natural logarithms at temperature 1."
        )
    order = np.lexsort((all_ids, of_token))
    again = (np.diff(all_ids[order]) == 0) & (np.diff(of_token[order]) == 0)
    is_again = np.zeros(len(order), dtype=bool)
    is_again[order[1:][again]] = True
    refuse(is_again, "id {id} is there twice, but each counts once.")
    return counts, all_ids, all_log_probs.astype(np.float32)


def _counts(where: str, ids: Entries, log_probs: Entries, tokens: Sequence[int]) -> list[int]:
    """How many entries each token has."""
    if not len(ids) == len(log_probs) == len(tokens):
        raise MismatchError(
            f"{where} has {len(tokens)} tokens, {len(ids)} lists in {TOPK_IDS_COLUMN} and {len(log_probs)} in "
            f"{TOPK_LOG_PROBS_COLUMN}, but there is one list for each token, and an empty one where nothing was said."
        )
    counts, others = ([0 if entry is None else len(entry) for entry in column] for column in (ids, log_probs))
    for token, (one, other) in enumerate(zip(counts, others, strict=True)):
        if one != other:
            raise MismatchError(
                f"{where}, token {token}: there are {one} ids and {other} log-probabilities, but each id has its own."
            )
    return counts


def _require_shift(where: str, counts: list[int], labels: Sequence[int]) -> None:
    """Entries stand beside the token that they predict."""
    rule = (
        "entries stand beside the token that they predict; if yours stand beside the one before it, as a model's "
        "logits do, put an empty list in front and leave out the last."
    )
    if counts and counts[0]:
        raise MismatchError(f"{where} has {counts[0]} ids for its first token, which nothing predicts: {rule}")
    for token, (count, label) in enumerate(zip(counts, labels, strict=True)):
        if token and label != IGNORED_LABEL and not count:
            raise MismatchError(
                f"{where}, token {token}: it has a label, and nothing was said in its place. Give it the label "
                f"{IGNORED_LABEL}, if it is not to be learned. Else, {rule}"
            )


def _joined(column: str, entries: Entries, kinds: str) -> np.ndarray:
    """All numbers of a text behind each other.

    Raises:
        ValueError: they are of another kind (of NumPy's: i, u and f) than the column's.
    """
    said = [np.asarray(entry) for entry in entries if entry is not None and len(entry)]
    for entry in said:
        if entry.dtype.kind not in kinds:
            shown = entry.tolist()[:3] if entry.ndim else f"{entry}, which is no list,"
            raise ValueError(
                f"{column} holds {shown} for a token, but ids are whole numbers and log-probabilities are numbers."
            )
    return np.concatenate([np.empty(0, np.int64 if kinds == "iu" else np.float32), *said])


def pad_served(
    served: Iterable[Mapping[str, Entries]],
    texts: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    length: int | None,
) -> dict[str, Tensor]:
    """A batch of the two columns, (B, length, k), where the logits that predict a token stand: one place before it.

    Ids are -1, and log-probabilities -inf, where there are fewer than k. Without a length, all texts are one row.

    Raises:
        MismatchError, ValueError: see `require_served`; or a text has no top k, and others have.
    """
    ids: list[Tensor] = [torch.zeros(1, dtype=torch.long)]  # so that there is one place at least
    log_probs: list[Tensor] = [torch.zeros(1)]
    for number, (answers, text) in enumerate(zip(served, texts, strict=True)):
        where, tokens = f"Row {number} of the batch", text["input_ids"]
        for name in SERVED:
            if name not in answers:
                raise MismatchError(f"{where} has no {name}, but a top k is both columns, of each row.")
        counts, *flat = require_served(
            where, answers[TOPK_IDS_COLUMN], answers[TOPK_LOG_PROBS_COLUMN], tokens, text["labels"], len(tokenizer)
        )
        padding = 0 if length is None else length - len(tokens)
        # One place to the left. The first token's own list is empty, so nothing is lost.
        sizes = counts[1:] + [0] * (padding + 1)
        for column, values in zip((ids, log_probs), flat, strict=True):
            column.extend(torch.from_numpy(values).split(sizes))

    def batch(column: list[Tensor], missing: float) -> Tensor:
        padded = pad_sequence(column, batch_first=True, padding_value=missing)[1:]
        return padded.view(-1, len(padded) if length is None else length, padded.shape[1])

    return {TOPK_IDS_COLUMN: batch(ids, -1), TOPK_LOG_PROBS_COLUMN: batch(log_probs, -math.inf)}


def served_top_k(ids: Tensor, log_probs: Tensor, width: int) -> TopK:
    """The top k (B, T, V) that such a batch (B, T, k) says; what is missing to a sum of 1 is the rest."""
    named = log_probs.double().exp().sum(dim=-1).clamp(max=1 - LEAST_REST)
    rest = torch.log1p(-named).masked_fill((ids >= 0).sum(dim=-1) == width, -math.inf)
    if ids.shape[-1] == width:  # one place more, and a rest is looked for
        ids, log_probs = F.pad(ids, (0, 1), value=-1), F.pad(log_probs, (0, 1), value=-math.inf)
    return TopK(log_probs, ids, rest.to(log_probs.dtype), 1.0, width)
