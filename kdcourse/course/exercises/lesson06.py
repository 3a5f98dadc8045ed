"""Lesson 06: what must match for a classifier, and for a language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.rows import kl_per_row

NAMES = ["negative", "neutral", "positive", "mixed"]


# ---------------------------------------------------------------------------------------------------------------------
# 06.align


def align(teacher_logits: Tensor, teacher_names: list[str], student_names: list[str]) -> Tensor:
    if sorted(teacher_names) != sorted(student_names):
        raise ValueError("The two models have other labels.")
    return teacher_logits[:, [teacher_names.index(name) for name in student_names]]


def align_inversely(teacher_logits: Tensor, teacher_names: list[str], student_names: list[str]) -> Tensor:
    if sorted(teacher_names) != sorted(student_names):
        raise ValueError("The two models have other labels.")
    return teacher_logits[:, [student_names.index(name) for name in teacher_names]]


def align_by_number(teacher_logits: Tensor, teacher_names: list[str], student_names: list[str]) -> Tensor:
    if len(teacher_names) != len(student_names):
        raise ValueError("The two models have another number of labels.")
    return teacher_logits


def align_by_alphabet(teacher_logits: Tensor, teacher_names: list[str], student_names: list[str]) -> Tensor:
    if sorted(teacher_names) != sorted(student_names):
        raise ValueError("The two models have other labels.")
    return teacher_logits[:, sorted(range(len(teacher_names)), key=teacher_names.__getitem__)]


def align_rows(teacher_logits: Tensor, teacher_names: list[str], student_names: list[str]) -> Tensor:
    if sorted(teacher_names) != sorted(student_names):
        raise ValueError("The two models have other labels.")
    return teacher_logits[[teacher_names.index(name) for name in student_names]]


def random_labels(generator: torch.Generator) -> Inputs:
    order = torch.randperm(len(NAMES), generator=generator).tolist()
    return torch.randn(5, len(NAMES), generator=generator), [NAMES[index] for index in order], NAMES


ALIGN = Exercise(
    id="06.align",
    title="Other people's class order",
    reference=align,
    examples=[
        (
            torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
            ["positive", "negative", "neutral"],
            ["negative", "neutral", "positive"],
        ),
        (
            torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
            ["negative", "neutral", "positive"],
            ["positive", "negative", "neutral"],
        ),
        (torch.tensor([[1.0, 2.0]]), ["negative", "positive"], ["negative", "positive"]),
        (torch.tensor([[1.0, 2.0]]), ["joy", "fear"], ["negative", "positive"]),
    ],
    random_inputs=random_labels,
    difficulty=1,
    minutes=4,
    hints=[
        "Column j of the result belongs to student_names[j]. At which index does the teacher keep that name?",
        "A list of column indices selects and reorders in one step: teacher_logits[:, order].",
        "order = [teacher_names.index(name) for name in student_names]; other names are a ValueError.",
    ],
    misconceptions=[
        Misconception(
            "inverse-order",
            align_inversely,
            "Your order is the inverse of ours: right for two classes, which it exchanges or leaves, and wrong in "
            "all 3 columns when three classes turn round. For each student label, look up the teacher's index.",
            "section 2, The same question",
        ),
        Misconception(
            "number-only",
            align_by_number,
            "You return the teacher's columns as they are. With equal numbers of labels no shape objects, and class 0 "
            "teaches class 0 whatever it means: a teacher that is right in 88% of cases becomes one of 12%.",
            "section 2, The same question",
        ),
        Misconception(
            "alphabetical",
            align_by_alphabet,
            "You sort the teacher's columns by name. It is right while the student's names happen to stand in "
            "alphabetical order, and wrong in the second example, where the student begins with 'positive'.",
            "section 2, The same question",
        ),
        Misconception(
            "rows-reordered",
            align_rows,
            "You reorder dimension 0, the sentences, and leave the classes where they are; the first column of the "
            "first example holds 4, 7, 1 instead of 2, 5, 8. Classes are the last dimension.",
            "section 2, The same question",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.sigmoid


def sigmoid_teacher(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    teacher_logits = torch.stack([torch.zeros_like(z), z], dim=-1)
    return temperature**2 * kl_per_row(student_logits / temperature, teacher_logits / temperature).mean()


def sigmoid_other_side(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    teacher_logits = torch.stack([z, torch.zeros_like(z)], dim=-1)
    return temperature**2 * kl_per_row(student_logits / temperature, teacher_logits / temperature).mean()


def sigmoid_symmetric(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    teacher_logits = torch.stack([-z, z], dim=-1)
    return temperature**2 * kl_per_row(student_logits / temperature, teacher_logits / temperature).mean()


def sigmoid_hard(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    positive = torch.sigmoid(z)
    teacher = torch.stack([1 - positive, positive], dim=-1)
    student = F.log_softmax(student_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean")


def sigmoid_of_probabilities(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    positive = torch.sigmoid(z)
    teacher = torch.stack([1 - positive, positive], dim=-1)
    return temperature**2 * kl_per_row(student_logits / temperature, teacher / temperature).mean()


def sigmoid_without_t_squared(student_logits: Tensor, z: Tensor, temperature: float) -> Tensor:
    return sigmoid_teacher(student_logits, z, temperature) / temperature**2


def random_sigmoid(generator: torch.Generator) -> Inputs:
    return 2 * torch.randn(4, 2, generator=generator), 2 * torch.randn(4, generator=generator), 2.0


SIGMOID = Exercise(
    id="06.sigmoid",
    title="A sigmoid teaches a softmax",
    reference=sigmoid_teacher,
    examples=[
        (torch.tensor([[0.0, 1.0]]), torch.tensor([2.0]), 1.0),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([2.0]), 4.0),
        (torch.tensor([[0.5, 0.0], [-1.0, 1.0]]), torch.tensor([-3.0, 1.0]), 2.0),
    ],
    random_inputs=random_sigmoid,
    difficulty=2,
    minutes=6,
    hints=[
        "sigmoid(z) = 1 / (1 + exp(−z)). Multiply by exp(z) above and below: which two-way softmax is that?",
        "It is the softmax of (0, z), so z/T softens it as it softens any logits.",
        "torch.stack([torch.zeros_like(z), z], dim=-1) is a teacher of shape (N, 2); then T² times the mean KL.",
    ],
    misconceptions=[
        Misconception(
            "positive-first",
            sigmoid_other_side,
            "You put z in column 0. A sigmoid speaks of the class 1, so that is (0, z): with z = 2 and student (0, 1) "
            "yours is 0.83 nats and ours 0.07.",
            "section 2, A sigmoid teacher",
        ),
        Misconception(
            "plus-minus-z",
            sigmoid_symmetric,
            "Your teacher is (−z, z), whose difference is 2z: every teacher twice as sure as it is, as if its "
            "temperature were T/2. At z = 2 it says 98% instead of 88%.",
            "section 2, A sigmoid teacher",
        ),
        Misconception(
            "teacher-not-softened",
            sigmoid_hard,
            "At T = 1 yours equals ours; at T = 4 it is 3.85 instead of 0.12: the teacher is not softened. T goes "
            "inside the sigmoid, as z/T.",
            "section 2, A sigmoid teacher",
        ),
        Misconception(
            "probabilities-as-logits",
            sigmoid_of_probabilities,
            "You treat (1 − p, p) as logits and take their softmax. Probabilities differ by at most 1, so your teacher "
            "never says more than 73%.",
            "section 2, A sigmoid teacher",
        ),
        Misconception(
            "t-squared-missing",
            sigmoid_without_t_squared,
            "Yours equals ours at T = 1, is a quarter of it at T = 2 and a sixteenth at T = 4: T² is missing.",
            "lesson 03",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.labels


def causal_labels(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    nth = attention_mask.cumsum(dim=1)
    in_prompt = nth <= torch.tensor(prompt_tokens).unsqueeze(1)
    return input_ids.masked_fill((attention_mask == 0) | in_prompt, IGNORED_LABEL)


def labels_by_pad_id(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    labels = causal_labels(input_ids, attention_mask, prompt_tokens)
    return labels.masked_fill(input_ids == 0, IGNORED_LABEL)


def labels_shifted(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    return F.pad(causal_labels(input_ids, attention_mask, prompt_tokens)[:, 1:], (0, 1), value=IGNORED_LABEL)


def labels_with_prompt(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    return input_ids.masked_fill(attention_mask == 0, IGNORED_LABEL)


def labels_with_padding(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    columns = torch.arange(input_ids.shape[1])
    return input_ids.masked_fill(columns < torch.tensor(prompt_tokens).unsqueeze(1), IGNORED_LABEL)


def labels_with_right_padding(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    in_prompt = attention_mask.cumsum(dim=1) <= torch.tensor(prompt_tokens).unsqueeze(1)
    return input_ids.masked_fill(in_prompt, IGNORED_LABEL)


def labels_from_the_left(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    columns = torch.arange(input_ids.shape[1])
    in_prompt = columns < torch.tensor(prompt_tokens).unsqueeze(1)
    return input_ids.masked_fill((attention_mask == 0) | in_prompt, IGNORED_LABEL)


def labels_zeroed(input_ids: Tensor, attention_mask: Tensor, prompt_tokens: list[int]) -> Tensor:
    labels = causal_labels(input_ids, attention_mask, prompt_tokens)
    return labels.masked_fill(labels == IGNORED_LABEL, 0)


def random_tokens(generator: torch.Generator) -> Inputs:
    """Three texts that end in the token 0, which also pads, on the left and on the right."""
    ids, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    prompts = []
    for row, length in enumerate(torch.randint(4, 8, (3,), generator=generator).tolist()):
        start = (9 - length) * (row % 2)
        ids[row, start : start + length - 1] = torch.randint(1, 50, (length - 1,), generator=generator)
        mask[row, start : start + length] = 1
        prompts.append(int(torch.randint(1, 3, (), generator=generator)))
    return ids, mask, prompts


LABELS = Exercise(
    id="06.labels",
    title="Labels for a causal language model",
    reference=causal_labels,
    examples=[
        (torch.tensor([[11, 12, 13, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0]]), [1]),
        (torch.tensor([[0, 0, 21, 22, 23, 0]]), torch.tensor([[0, 0, 1, 1, 1, 1]]), [2]),
        (
            torch.tensor([[11, 12, 13, 0, 0], [31, 32, 33, 34, 0]]),
            torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
            [0, 3],
        ),
    ],
    random_inputs=random_tokens,
    difficulty=2,
    minutes=7,
    hints=[
        "Labels are a copy of input_ids, in the same places; −100 goes where nothing is to be learned. No shift.",
        "Padding is where attention_mask is 0. Never ask whether an id is the pad id: a text may end in it.",
        "With padding on the left, the prompt does not begin in column 0: attention_mask.cumsum(1) numbers the real "
        "tokens 1, 2, 3 … in each row.",
    ],
    misconceptions=[
        Misconception(
            "masked-by-pad-id",
            labels_by_pad_id,
            "Every 0 is −100, the end of each text too: 0 labelled ends where ours has one per row. The student never "
            "learns to stop. Go by attention_mask.",
            "section 6, Break it",
        ),
        Misconception(
            "shifted-already",
            labels_shifted,
            "Your labels stand one place too far left. The loss shifts again, and the student learns the token after "
            "next: after 5 6 7 it says 9.",
            "section 5, Who shifts?",
        ),
        Misconception(
            "prompt-labelled",
            labels_with_prompt,
            "Your prompts have labels: 4 in the first row instead of 3. The student learns to write the question.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "padding-labelled",
            labels_with_padding,
            "Your padding has labels: 1 of 4 in the first row. After the end there is nothing to write, and padding's "
            "share of the mean grows with the longest text of the batch.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "right-padding-labelled",
            labels_with_right_padding,
            "Your prompt is right, on either side, but padding on the right has labels: 4 in the first example instead "
            "of 3. The cumulative sum stands still there; ask attention_mask as well.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "prompt-from-column-0",
            labels_from_the_left,
            "You count the prompt from column 0. With 2 columns of padding on the left you mask padding twice, and the "
            "whole prompt of 2 tokens keeps its labels.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "zero-instead-of-ignored",
            labels_zeroed,
            "You put 0 where −100 belongs. 0 is a token, here the end of text: in the first row 2 places that should "
            "teach nothing teach the student to stop.",
            "section 5, Which positions teach",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.token_mean


def token_mean(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels[:, 1:] != IGNORED_LABEL
    return divergences[:, :-1][supervised].sum() / supervised.sum().clamp(min=1)


def mean_of_all(divergences: Tensor, labels: Tensor) -> Tensor:
    return divergences[:, :-1].mean()


def mean_unshifted(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels != IGNORED_LABEL
    return divergences[supervised].sum() / supervised.sum().clamp(min=1)


def mean_per_text(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels[:, 1:] != IGNORED_LABEL
    return divergences[:, :-1][supervised].sum() / labels.shape[0]


def mean_over_positions(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels[:, 1:] != IGNORED_LABEL
    return (divergences[:, :-1] * supervised).mean()


def mean_of_means(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels[:, 1:] != IGNORED_LABEL
    sums = (divergences[:, :-1] * supervised).sum(dim=1)
    return (sums / supervised.sum(dim=1).clamp(min=1)).mean()


def mean_of_nothing(divergences: Tensor, labels: Tensor) -> Tensor:
    return divergences[:, :-1][labels[:, 1:] != IGNORED_LABEL].mean()


def mean_counted_before_the_shift(divergences: Tensor, labels: Tensor) -> Tensor:
    supervised = labels[:, 1:] != IGNORED_LABEL
    return divergences[:, :-1][supervised].sum() / (labels != IGNORED_LABEL).sum().clamp(min=1)


def random_divergences(generator: torch.Generator) -> Inputs:
    divergences = torch.rand(3, 6, generator=generator) + 0.1
    labels = torch.randint(0, 50, (3, 6), generator=generator)
    for row, labelled in enumerate((6, 3, 4)):
        labels[row, labelled:] = IGNORED_LABEL
    return divergences, labels


TOKEN_MEAN = Exercise(
    id="06.token_mean",
    title="The mean over the tokens that teach",
    reference=token_mean,
    examples=[
        (
            torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]]),
            torch.tensor([[7, 7, 7, -100], [-100, -100, 7, 7]]),
        ),
        (torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([[7, 7, 7, 7]])),
        (torch.tensor([[1.0, 9.0, 9.0], [3.0, 5.0, 9.0]]), torch.tensor([[7, 7, -100], [7, 7, 7]])),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[-100, -100]])),
    ],
    random_inputs=random_divergences,
    difficulty=2,
    minutes=8,
    hints=[
        "divergences[:, i] was computed from the logits at i, so it is about the token at i + 1. Whose label decides?",
        "divergences[:, :-1] goes with labels[:, 1:]. A boolean mask selects.",
        "Divide the sum by the number selected, and by 1 if that is 0: 0 / 0 is NaN, and .mean() of nothing too.",
    ],
    misconceptions=[
        Misconception(
            "mask-not-shifted",
            mean_unshifted,
            "Your mask is the label of the token that is read, not of the one that is predicted: off by one, 39.8 in "
            "the first example where ours is 24.75. The position before the first label is lost, and the last token's "
            "own position, which predicts nothing, counts.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "no-mask",
            mean_of_all,
            "You average over all positions, prompt and padding too: 19.83 in the first example where ours is 24.75. "
            "Longer padding, another loss for the same texts.",
            "section 5, Which positions teach",
        ),
        Misconception(
            "divided-by-texts",
            mean_per_text,
            "You divide by the number of texts, as batchmean does: with 3 tokens in the one text of the second example "
            "yours is 3 times ours. It grows with the length.",
            "section 4, Break it",
        ),
        Misconception(
            "divided-by-positions",
            mean_over_positions,
            "You set the others to 0 and average over all positions: 16.5 in the first example where ours is 24.75, "
            "because 2 of 6 positions are zeros. The loss shrinks with the padding.",
            "section 4, Break it",
        ),
        Misconception(
            "mean-of-means",
            mean_of_means,
            "You average each text first: a token of a text with 2 weighs twice as much as one of a text with 4. The "
            "same tokens in other batches then give another loss.",
            "section 4, Break it",
        ),
        Misconception(
            "nan-for-nothing",
            mean_of_nothing,
            "Right, but for a batch in which nothing is supervised: the mean of no numbers is NaN, and one NaN in the "
            "gradient ends a run. Ours is 0.",
            "section 6, Nothing to learn from",
        ),
        Misconception(
            "counted-before-the-shift",
            mean_counted_before_the_shift,
            "Your sum is ours and your count is not: the label at position 0 is never predicted. A text of 4 has "
            "3 predictions, so yours is 3/4 of ours.",
            "section 6, Count after the shift",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 06.shared_vocabulary


def shared_kl(student_logits: Tensor, teacher_logits: Tensor, tokens: int) -> Tensor:
    return kl_per_row(student_logits[:, :tokens], teacher_logits[:, :tokens]).mean()


def kl_padded_with_zeros(student_logits: Tensor, teacher_logits: Tensor, tokens: int) -> Tensor:
    width = max(student_logits.shape[1], teacher_logits.shape[1])
    student, teacher = (F.pad(logits, (0, width - logits.shape[1])) for logits in (student_logits, teacher_logits))
    return kl_per_row(student, teacher).mean()


def kl_of_common_width(student_logits: Tensor, teacher_logits: Tensor, tokens: int) -> Tensor:
    width = min(student_logits.shape[1], teacher_logits.shape[1])
    return kl_per_row(student_logits[:, :width], teacher_logits[:, :width]).mean()


def kl_sliced_after_softmax(student_logits: Tensor, teacher_logits: Tensor, tokens: int) -> Tensor:
    student = student_logits.log_softmax(dim=-1)[:, :tokens]
    teacher = teacher_logits.softmax(dim=-1)[:, :tokens]
    return F.kl_div(student, teacher, reduction="batchmean")


def kl_per_entry(student_logits: Tensor, teacher_logits: Tensor, tokens: int) -> Tensor:
    return shared_kl(student_logits, teacher_logits, tokens) / tokens


def random_vocabularies(generator: torch.Generator) -> Inputs:
    return torch.randn(4, 8, generator=generator), torch.randn(4, 11, generator=generator), 6


SHARED = Exercise(
    id="06.shared_vocabulary",
    title="Two widths, one tokenizer",
    reference=shared_kl,
    examples=[
        (torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[1.0, 0.0, 2.0, 2.0]]), 2),
        (torch.tensor([[0.0, 1.0, -1.0]]), torch.tensor([[0.0, 1.0, -4.0, 2.0, 1.0]]), 2),
    ],
    random_inputs=random_vocabularies,
    difficulty=2,
    minutes=5,
    hints=[
        "Which ids mean something? Those that the tokenizer has: 0 to tokens − 1. Both models are wider than that.",
        "Slice logits, and let the softmax come after it: then what is left sums to 1.",
        "forward_kl of the log_softmax of both [:, :tokens], averaged over rows.",
    ],
    misconceptions=[
        Misconception(
            "padded-with-zeros",
            kl_padded_with_zeros,
            "You pad the narrower logits with 0. A logit of 0 is not a probability of 0: two models that agree in all "
            "real tokens then differ, in section 7 by 0.009 to 4.3 nats, depending on a constant in their logits.",
            "section 7, Padded widths",
        ),
        Misconception(
            "narrower-width",
            kl_of_common_width,
            "You cut at the narrower model. Its own padding, from id `tokens` on, stays: 0.25 instead of 0.46 in the "
            "first example. Those ids mean nothing.",
            "section 7, Padded widths",
        ),
        Misconception(
            "sliced-after-softmax",
            kl_sliced_after_softmax,
            "You slice probabilities: they no longer sum to 1, so your number is not a divergence. In the second "
            "example it is −0.33 where ours is 0. Slice logits, then take the softmax.",
            "section 7, Padded widths",
        ),
        Misconception(
            "divided-by-tokens",
            kl_per_entry,
            "Yours is ours divided by the vocabulary, 2 times too small in the first example: a mean over the entries "
            "of each row, where a divergence is their sum.",
            "lesson 02",
        ),
    ],
)

EXERCISES = [ALIGN, SIGMOID, TOKEN_MEAN, LABELS, SHARED]
