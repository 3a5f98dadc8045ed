"""The exercises of lesson 06: the labels of a language model, the mean over its tokens, and what tests such a mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.edges import IN_FLOAT64, NO_LABELS, ONE_ROW
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.witnesses import FindTheWitness

# ---------------------------------------------------------------------------------------------------------------------
# 06.labels


def _random_texts(generator: Generator) -> Inputs:
    """Three texts that end in the token 0, which also pads, on the left and on the right."""
    ids, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    prompts = []
    for row, length in enumerate(torch.randint(4, 8, (3,), generator=generator).tolist()):
        start = (9 - length) * (row % 2)
        ids[row, start : start + length - 1] = torch.randint(1, 50, (length - 1,), generator=generator)
        mask[row, start : start + length] = 1
        prompts.append(int(torch.randint(1, 3, (), generator=generator)))
    return ids, mask, prompts


def _in_prompt(mask: Tensor, prompts: list[int]) -> Tensor:
    """The first real tokens of each row, and the padding before them."""
    return mask.cumsum(-1) <= torch.tensor(prompts).unsqueeze(-1)


def _labels(ids: Tensor, mask: Tensor, prompts: list[int]) -> Tensor:
    return ids.masked_fill((mask == 0) | _in_prompt(mask, prompts), IGNORED_LABEL)


def _first_columns(ids: Tensor, prompts: list[int]) -> Tensor:
    return torch.arange(ids.shape[-1]) < torch.tensor(prompts).unsqueeze(-1)


def _labels_prompt_from_column_0(ids: Tensor, mask: Tensor, prompts: list[int]) -> Tensor:
    return ids.masked_fill((mask == 0) | _first_columns(ids, prompts), IGNORED_LABEL)


def _labels_zero_instead_of_ignored(ids: Tensor, mask: Tensor, prompts: list[int]) -> Tensor:
    return ids.masked_fill((mask == 0) | _in_prompt(mask, prompts), 0)


LABELS = Exercise(
    id="06.labels",
    title="Labels for a causal language model",
    difficulty=2,
    minutes=7,
    examples=[
        (torch.tensor([[11, 12, 13, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0]]), [1]),
        (torch.tensor([[0, 0, 21, 22, 23, 0]]), torch.tensor([[0, 0, 1, 1, 1, 1]]), [2]),
        (
            torch.tensor([[11, 12, 13, 0, 0], [31, 32, 33, 34, 0]]),
            torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
            [0, 3],
        ),
    ],
    random_inputs=_random_texts,
    reference=_labels,
    edges=[
        Edge("for a single text", lambda ids, mask, prompts: (ids[:1], mask[:1], prompts[:1])),
        Edge("where nothing is padded", lambda ids, mask, prompts: (ids, torch.ones_like(mask), prompts)),
        Edge("without prompts", lambda ids, mask, prompts: (ids, mask, [0] * len(prompts))),
        Edge("for texts that are all prompt", lambda ids, mask, prompts: (ids, mask, mask.sum(-1).tolist())),
    ],
    misconceptions=[
        Misconception(
            "masked-by-pad-id",
            lambda ids, mask, prompts: _labels(ids, mask, prompts).masked_fill(ids == 0, IGNORED_LABEL),
            "Every 0 is −100, the end of each text too: 0 labelled ends where ours has one per row. The student never "
            "learns to stop. Go by attention_mask.",
            "section 5, What the labels mark",
        ),
        Misconception(
            "shifted-already",
            lambda ids, mask, prompts: F.pad(_labels(ids, mask, prompts)[:, 1:], (0, 1), value=IGNORED_LABEL),
            "Your labels are one place too far left. The loss shifts again, and the student learns the token after "
            "next: after 5 6 7 it says 9.",
            "section 6, Who shifts?",
        ),
        Misconception(
            "prompt-labelled",
            lambda ids, mask, prompts: ids.masked_fill(mask == 0, IGNORED_LABEL),
            "Your prompts have labels: 4 in the first row instead of 3. The student learns to write the question.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "padding-labelled",
            lambda ids, mask, prompts: ids.masked_fill(_first_columns(ids, prompts), IGNORED_LABEL),
            "Your padding has labels: 1 of 4 in the first row. After the end there is nothing to write, and padding's "
            "share of the mean grows with the longest text of the batch.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "right-padding-labelled",
            lambda ids, mask, prompts: ids.masked_fill(_in_prompt(mask, prompts), IGNORED_LABEL),
            "Your prompt is right, on either side, but padding on the right has labels: 4 in the first example instead "
            "of 3. The cumulative sum does not move there; ask attention_mask as well.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "prompt-from-column-0",
            _labels_prompt_from_column_0,
            "You count the prompt from column 0. With 2 columns of padding on the left you mask padding twice, and the "
            "whole prompt of 2 tokens keeps its labels.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "zero-instead-of-ignored",
            _labels_zero_instead_of_ignored,
            "You put 0 where −100 belongs. 0 is a token, here the end of text: in the first row 2 places that should "
            "teach nothing teach the student to stop.",
            "section 6, Which positions teach",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.token_mean


def _random_divergences(generator: Generator) -> Inputs:
    divergences = torch.rand(3, 6, generator=generator) + 0.1
    labels = torch.randint(0, 50, (3, 6), generator=generator)
    for row, labelled in enumerate((6, 3, 4)):
        labels[row, labelled:] = IGNORED_LABEL
    return divergences, labels


def _one_label(divergences: Tensor, labels: Tensor) -> Inputs:
    labels = torch.full_like(labels, IGNORED_LABEL)
    labels[0, 2] = 7
    return divergences, labels


def _only_what_teaches(divergences: Tensor, labels: Tensor) -> Inputs:
    """NaN at each position that nobody asks about."""
    unneeded = torch.ones_like(labels, dtype=torch.bool)
    unneeded[:, :-1] = ~_teaching(labels)
    return divergences.masked_fill(unneeded, math.nan), labels


def _mean(divergences: Tensor, counted: Tensor) -> Tensor:
    """0 where nothing counts."""
    return divergences[counted].sum() / counted.sum().clamp(min=1)


def _teaching(labels: Tensor) -> Tensor:
    """Whether the token after each position, but for the last, has a label."""
    return labels[:, 1:] != IGNORED_LABEL


def _token_mean(divergences: Tensor, labels: Tensor) -> Tensor:
    return _mean(divergences[:, :-1], _teaching(labels))


def _token_mean_of_means(divergences: Tensor, labels: Tensor) -> Tensor:
    sums = divergences[:, :-1].where(_teaching(labels), 0).sum(-1)
    return (sums / _teaching(labels).sum(-1).clamp(min=1)).mean()


def _token_mean_counted_before_the_shift(divergences: Tensor, labels: Tensor) -> Tensor:
    return divergences[:, :-1][_teaching(labels)].sum() / (labels != IGNORED_LABEL).sum().clamp(min=1)


TOKEN_MEAN = Exercise(
    id="06.token_mean",
    title="The mean over the tokens that teach",
    difficulty=2,
    minutes=8,
    examples=[
        (
            torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]]),
            torch.tensor([[7, 7, 7, -100], [-100, -100, 7, 7]]),
        ),
        (torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([[7, 7, 7, 7]])),
        (torch.tensor([[1.0, 9.0, 9.0], [3.0, 5.0, 9.0]]), torch.tensor([[7, 7, -100], [7, 7, 7]])),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[-100, -100]])),
    ],
    random_inputs=_random_divergences,
    reference=_token_mean,
    gradient=True,
    edges=[
        NO_LABELS,
        ONE_ROW,
        IN_FLOAT64,
        Edge("where one token alone has a label", _one_label),
        Edge("where divergences that nobody needs are NaN", _only_what_teaches),
        Edge("where every token has a label", lambda divergences, labels: (divergences, labels.clamp(min=0))),
        Edge("for texts of two tokens", lambda divergences, labels: (divergences[:, :2], labels[:, :2].clamp(min=0))),
        Edge("for texts of one token", lambda divergences, labels: (divergences[:, :1], labels[:, :1])),
    ],
    misconceptions=[
        Misconception(
            "mask-not-shifted",
            lambda divergences, labels: _mean(divergences, labels != IGNORED_LABEL),
            "Your mask is the label of the token that is read, not of the one that is predicted: off by one, 39.8 in "
            "the first example where ours is 24.75. The position before the first label is lost, and the last token's "
            "own position, which predicts nothing, counts.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "no-mask",
            lambda divergences, labels: divergences[:, :-1].mean(),
            "You average over all positions, prompt and padding too: 19.83 in the first example where ours is 24.75. "
            "Longer padding, another loss for the same texts.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "divided-by-texts",
            lambda divergences, labels: divergences[:, :-1][_teaching(labels)].sum() / len(labels),
            "You divide by the number of texts, as batchmean does: with 3 tokens in the one text of the second example "
            "yours is 3 times ours. It grows with the length.",
            "section 4, A language model answers at every token",
        ),
        Misconception(
            "divided-by-positions",
            lambda divergences, labels: (divergences[:, :-1] * _teaching(labels)).mean(),
            "You set the others to 0 and average over all positions: 16.5 in the first example where ours is 24.75, "
            "because 2 of 6 positions are zeros. The loss shrinks with the padding.",
            "section 4, A language model answers at every token",
        ),
        Misconception(
            "mean-of-means",
            _token_mean_of_means,
            "You average each text first: a token of a text with 2 weighs twice as much as one of a text with 4. The "
            "same tokens in other batches then give another loss.",
            "section 4, A language model answers at every token",
        ),
        Misconception(
            "nan-for-nothing",
            lambda divergences, labels: divergences[:, :-1][_teaching(labels)].mean(),
            "Right, but for a batch in which nothing is supervised: the mean of no numbers is NaN, and one NaN in the "
            "gradient ends a run. Ours is 0.",
            "section 6, Nothing to learn from",
        ),
        Misconception(
            "counted-before-the-shift",
            _token_mean_counted_before_the_shift,
            "Your sum is ours and your count is not: the label at position 0 is never predicted. A text of 4 has "
            "3 predictions, so yours is 3/4 of ours.",
            "section 6, Which positions teach",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.witness

Means = Callable[[Tensor, Tensor], Tensor]
Table = Sequence[Sequence[float]]
"""Or what is as good as one: a tensor, an array."""


def _of_tables(mean: Means) -> Callable[[Table, Table], float]:
    """A mean of tensors, as a function of two tables."""
    return lambda divergences, labels: mean(_numbers(divergences), torch.as_tensor(labels)).item()


def _numbers(divergences: Table) -> Tensor:
    return torch.as_tensor(divergences, dtype=torch.float64)


def _token_by_token(divergences: Table, labels: Table) -> float:
    texts = zip(_numbers(divergences).tolist(), torch.as_tensor(labels).tolist(), strict=True)
    pairs = [pair for numbers, tokens in texts for pair in zip(numbers, tokens[1:], strict=False)]
    return fmean(number for number, token in pairs if token != IGNORED_LABEL)


def _mean_of_what_is_left(divergences: Tensor, labels: Tensor) -> Tensor:
    return torch.where(_teaching(labels), divergences[:, :-1], torch.nan).nanmean()


def _mean_by_a_product(divergences: Tensor, labels: Tensor) -> Tensor:
    mask = _teaching(labels).to(divergences)
    return (divergences[:, :-1] * mask).sum() / mask.sum()


def _mean_by_a_roll(divergences: Tensor, labels: Tensor) -> Tensor:
    return _mean(divergences, labels.roll(-1, dims=1) != IGNORED_LABEL)


def _rule_of_tables(divergences: Table, labels: Table) -> str:
    numbers, tokens = _numbers(divergences), torch.as_tensor(labels)
    if numbers.ndim != 2 or numbers.shape != tokens.shape or numbers.shape[1] < 2:  # noqa: PLR2004
        return "two tables (B, L) of one shape are asked for, with at least 2 positions."
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        return "labels are token ids, which are whole numbers."
    if bool(((tokens < 0) & (tokens != IGNORED_LABEL)).any()):
        return f"a label is a token id from 0 on, or {IGNORED_LABEL} for none."
    taught = numbers[:, :-1][_teaching(tokens)]
    if not len(taught):
        return "no position teaches, and then there is no mean."
    if not bool((taught.isfinite() & (taught >= 0)).all()):
        return "where a position teaches, its divergence is a number from 0 on."
    return ""


NUMBERS = [[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, math.nan, math.nan]]
"""What a model computes on padding may be no number."""

WITNESS = FindTheWitness(
    id="06.witness",
    title="One batch that tells ten means apart",
    difficulty=2,
    minutes=5,
    right=[
        Suspect("select, add, divide", _of_tables(_token_mean)),
        Suspect("token by token", _token_by_token),
        Suspect("the mean of what is left", _of_tables(_mean_of_what_is_left)),
    ],
    suspects=[
        Suspect("the mask is not shifted", _of_tables(lambda d, y: _mean(d, y != IGNORED_LABEL))),
        Suspect("shifted the other way", _of_tables(lambda d, y: _mean(d[:, 1:], y[:, :-1] != IGNORED_LABEL))),
        Suspect("rolled: the first label stands at the last position", _of_tables(_mean_by_a_roll)),
        Suspect("prompt and padding count", _of_tables(lambda d, y: d[:, :-1].mean())),
        Suspect("a mean of each text first", _of_tables(_token_mean_of_means)),
        Suspect("divided by the texts", _of_tables(lambda d, y: d[:, :-1][_teaching(y)].sum() / len(y))),
        Suspect("divided by all positions", _of_tables(lambda d, y: d[:, :-1][_teaching(y)].sum() / y[:, 1:].numel())),
        Suspect("divided by all labels, those at position 0 too", _of_tables(_token_mean_counted_before_the_shift)),
        Suspect("labels above 0 count, and no others", _of_tables(lambda d, y: _mean(d[:, :-1], y[:, 1:] > 0))),
        Suspect("multiplied by a mask of 0 and 1", _of_tables(_mean_by_a_product)),
    ],
    illegal=_rule_of_tables,
    reference=lambda: (NUMBERS, [[5, 6, 7, 0], [8, 0, -100, -100]]),
    misconceptions=[
        Misconception(
            "all-labelled",
            lambda: ([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]], [[5, 6, 7, 8], [5, 6, 7, 8]]),
            "In your batch every token has a label, and then 5 of 10 are right: nothing is masked, and all texts have "
            "one length.",
            "section 4, A language model answers at every token",
        ),
        Misconception(
            "all-one",
            lambda: ([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], [[5, 6, 7, 0], [8, 0, -100, -100]]),
            "All your divergences are one number, and its mean over whatever positions is that number. Powers of 2 "
            "are good for a test: each sum of them says which were added.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "as-in-the-lesson",
            lambda: ([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]], [[-100, 6, 7, 0], [-100, 0, -100, -100]]),
            "An honest batch, like that of the lesson, and 3 of 10 pass it: each text begins with a prompt, so no "
            "label stands at position 0, where none is predicted; and all that the models computed on padding is a "
            "number.",
            "section 6, Nothing to learn from",
        ),
        Misconception(
            "equal-texts",
            lambda: (NUMBERS, [[5, 6, 0, -100], [8, 0, 9, -100]]),
            "In each of your texts as many tokens teach, or there is 1 text: then a mean of means is the mean.",
            "section 4, A language model answers at every token",
        ),
        Misconception(
            "only-numbers-on-padding",
            lambda: ([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]], [[5, 6, 7, 0], [8, 0, -100, -100]]),
            "9 of 10. Multiplied by 0, every number is gone. What is not gone, and may stand where nothing teaches?",
            "section 6, Nothing to learn from",
        ),
        Misconception(
            "nothing-at-position-0",
            lambda: (NUMBERS, [[-100, 6, 7, 0], [-100, 0, -100, -100]]),
            "No text of yours has a label at position 0. A text without a prompt has one, and nobody predicts it: "
            "whoever counts before the shift, or rolls instead of shifting, is found by that label alone.",
            "section 6, Which positions teach",
        ),
        Misconception(
            "no-end",
            lambda: (NUMBERS, [[5, 6, 7, 9], [8, 9, -100, -100]]),
            "None of your labels that are predicted is 0. It is a token like the others, here the end of a text, and "
            "whoever masks with `labels > 0` never teaches a student to stop.",
            "section 5, What the labels mark",
        ),
    ],
)


EXERCISES = [LABELS, TOKEN_MEAN, WITNESS]
