"""The exercises of lesson 06: the labels, the positions and the columns of a language model's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.edges import IN_FLOAT64, LOG_SPACE, NO_LABELS, ONE_CLASS, ONE_ROW
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import kl_per_row

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


def _mean(divergences: Tensor, counted: Tensor) -> Tensor:
    """0 where nothing counts."""
    return divergences[counted].sum() / counted.sum().clamp(min=1)


def _teaching(labels: Tensor) -> Tensor:
    """Whether the token after each position, but for the last, has a label."""
    return labels[:, 1:] != IGNORED_LABEL


def _token_mean(divergences: Tensor, labels: Tensor) -> Tensor:
    return _mean(divergences[:, :-1], _teaching(labels))


def _token_mean_of_means(divergences: Tensor, labels: Tensor) -> Tensor:
    sums = (divergences[:, :-1] * _teaching(labels)).sum(-1)
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
# 06.shared_vocabulary


def _random_vocabularies(generator: Generator) -> Inputs:
    return torch.randn(4, 8, generator=generator), torch.randn(4, 11, generator=generator), 6


def _shared_vocabulary(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    return kl_per_row(student[:, :tokens], teacher[:, :tokens]).mean()


def _shared_vocabulary_padded_with_zeros(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    width = max(student.shape[-1], teacher.shape[-1])
    student, teacher = (F.pad(logits, (0, width - logits.shape[-1])) for logits in (student, teacher))
    return kl_per_row(student, teacher).mean()


def _shared_vocabulary_narrower_width(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    return _shared_vocabulary(student, teacher, min(student.shape[-1], teacher.shape[-1]))


def _shared_vocabulary_sliced_after_softmax(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    student_log_probs, teacher_probs = student.log_softmax(-1)[:, :tokens], teacher.softmax(-1)[:, :tokens]
    return F.kl_div(student_log_probs, teacher_probs, reduction="batchmean")


SHARED_VOCABULARY = Exercise(
    id="06.shared_vocabulary",
    title="Two widths, one tokenizer",
    difficulty=2,
    minutes=5,
    examples=[
        (torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[1.0, 0.0, 2.0, 2.0]]), 2),
        (torch.tensor([[0.0, 1.0, -1.0]]), torch.tensor([[0.0, 1.0, -4.0, 2.0, 1.0]]), 2),
    ],
    random_inputs=_random_vocabularies,
    reference=_shared_vocabulary,
    gradient=True,
    edges=[
        *(edge for edge in LOG_SPACE if edge is not ONE_CLASS),
        Edge("where the student is as wide as its tokenizer", lambda s, t, tokens: (s[:, :tokens], t, tokens)),
        Edge("where the student is the wider one", lambda s, t, tokens: (t, s, tokens)),
        Edge("for a tokenizer with one token", lambda s, t, tokens: (s, t, 1)),
    ],
    misconceptions=[
        Misconception(
            "padded-with-zeros",
            _shared_vocabulary_padded_with_zeros,
            "You pad the narrower logits with 0. A logit of 0 is not a probability of 0: two models that agree in all "
            "real tokens then differ, in section 7 by 0.009 to 4.3 nats, depending on a constant in their logits.",
            "section 7, Every id must mean the same",
        ),
        Misconception(
            "narrower-width",
            _shared_vocabulary_narrower_width,
            "You cut at the narrower model. Its own padding, from id `tokens` on, stays: 0.25 instead of 0.46 in the "
            "first example. Those ids mean nothing.",
            "section 7, Every id must mean the same",
        ),
        Misconception(
            "sliced-after-softmax",
            _shared_vocabulary_sliced_after_softmax,
            "You slice probabilities: they no longer sum to 1, so your number is not a divergence. In the second "
            "example it is −0.33 where ours is 0. Slice logits, then take the softmax.",
            "section 7, Every id must mean the same",
        ),
        Misconception(
            "divided-by-tokens",
            lambda student, teacher, tokens: _shared_vocabulary(student, teacher, tokens) / tokens,
            "Yours is ours divided by the vocabulary, 2 times too small in the first example: a mean over the entries "
            "of each row, where a divergence is their sum.",
            "lesson 02",
        ),
    ],
)


EXERCISES = [LABELS, TOKEN_MEAN, SHARED_VOCABULARY]
