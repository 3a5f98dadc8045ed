"""The exercises of lesson 08: what a language model's log tells, and a test for whoever computes a perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises import token_runs
from kdcourse.course.exercises.exercise import Misconception
from kdcourse.course.exercises.kinds.faults import NameTheFault, taking
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.mutants import KillTheMutants

# ---------------------------------------------------------------------------------------------------------------------
# 08.perplexity

Batches = Sequence[tuple[Tensor, Tensor]]
"""Logits (B, T, V) and labels (B, T), which are aligned with the tokens; -100 where there is none."""
Perplexity = Callable[[Batches], float]


def _losses(batch: tuple[Tensor, Tensor]) -> Tensor:
    """Nats of each position, (B, T - 1); NaN where nothing is predicted."""
    logits, labels = batch
    targets = labels[:, 1:]
    losses = -logits[:, :-1].log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return losses.masked_fill(targets == IGNORED_LABEL, math.nan)


def _of_tokens(batches: Batches) -> list[float]:
    """Nats of each token that is predicted."""
    return [loss for batch in batches for loss in _losses(batch).flatten().tolist() if not math.isnan(loss)]


def _means_of_texts(batches: Batches) -> list[float]:
    return [loss for batch in batches for loss in _losses(batch).nanmean(dim=-1).tolist()]


def _means_of_batches(batches: Batches) -> list[float]:
    return [_losses(batch).nanmean().item() for batch in batches]


def _perplexity(batches: Batches) -> float:
    """exp of the mean loss over all tokens that are predicted."""
    return math.exp(fmean(_of_tokens(batches)))


def _perplexity_by_sums(batches: Batches) -> float:
    summed, count = 0.0, 0
    for logits, labels in batches:
        targets = labels[:, 1:].flatten()
        summed += F.cross_entropy(logits[:, :-1].flatten(0, 1), targets, reduction="sum").item()
        count += int((targets != IGNORED_LABEL).sum())
    return math.exp(summed / count)


def _perplexity_by_product(batches: Batches) -> float:
    """The geometric mean of 1 / p."""
    probabilities = [math.exp(-loss) for loss in _of_tokens(batches)]
    return math.prod(probabilities) ** (-1 / len(probabilities))


def _divided_by(batches: Batches, count: Callable[[Tensor], int]) -> float:
    """As it should be, but for what the sum is divided by."""
    return math.exp(math.fsum(_of_tokens(batches)) / sum(count(labels) for _, labels in batches))


def _by_places(batches: Batches, logits_from: int, labels_from: int) -> float:
    """Logits and labels are put beside each other from these places on."""

    def paired() -> Iterator[tuple[Tensor, Tensor]]:
        for logits, labels in batches:
            wide = labels.shape[1] - max(logits_from, labels_from)
            yield logits[:, logits_from : logits_from + wide], labels[:, labels_from : labels_from + wide]

    pairs = [(logits.flatten(0, 1), labels.flatten()) for logits, labels in paired()]
    summed = sum(F.cross_entropy(logits, labels, reduction="sum").item() for logits, labels in pairs)
    return math.exp(summed / sum(int((labels != IGNORED_LABEL).sum()) for _, labels in pairs))


def _padding_as_a_token(batches: Batches) -> float:
    return _perplexity([(logits, labels.clamp(min=0)) for logits, labels in batches])


PERPLEXITIES = [
    Suspect("the mean over all tokens", _perplexity),
    Suspect("sum and count by batch", _perplexity_by_sums),
    Suspect("the geometric mean of 1/p", _perplexity_by_product),
]
WRONG_PERPLEXITIES = [
    Suspect("mean of the batches' means", lambda b: math.exp(fmean(_means_of_batches(b)))),
    Suspect("mean of the batches' perplexities", lambda b: fmean(map(math.exp, _means_of_batches(b)))),
    Suspect("mean of the texts' means", lambda b: math.exp(fmean(_means_of_texts(b)))),
    Suspect("mean of the texts' perplexities", lambda b: fmean(map(math.exp, _means_of_texts(b)))),
    Suspect("the mean of 1/p", lambda b: fmean(map(math.exp, _of_tokens(b)))),
    Suspect("padding is a token", _padding_as_a_token),
    Suspect("divided by all positions", lambda b: _divided_by(b, lambda labels: labels[:, 1:].numel())),
    Suspect(
        "divided by all labels, the first ones too",
        lambda b: _divided_by(b, lambda labels: int((labels != IGNORED_LABEL).sum())),
    ),
    Suspect("no shift", lambda b: _by_places(b, 0, 0)),
    Suspect("shifted the other way", lambda b: _by_places(b, 1, 0)),
    Suspect("shifted twice", lambda b: _by_places(b, 0, 2)),
    Suspect("2 to the power of nats", lambda b: 2 ** fmean(_of_tokens(b))),
    Suspect("e to the power of bits", lambda b: math.exp(fmean(_of_tokens(b)) / math.log(2))),
    Suspect("the last batch is left out", lambda b: _perplexity(b[:-1]) if _of_tokens(b[:-1]) else math.nan),
]  # fmt: skip

PLACES = torch.arange(60.0).view(3, 5, 4)
LOGITS = 2 * torch.sin(1 + 1.7 * PLACES)
"""Of three texts of five tokens, over four ids; no two alike."""
UNEVEN = [
    (LOGITS[:2], torch.tensor([[3, 0, 1, 2, 1], [2, 3, 0, IGNORED_LABEL, IGNORED_LABEL]])),
    (LOGITS[2:, :3], torch.tensor([[0, 1, 3]])),
]
"""Texts of 5, 3 and 3 tokens, in two batches."""


def _by_hand(batches: Batches) -> float:
    losses = []
    for logits, labels in batches:
        for text, tokens in zip(logits.double(), labels.tolist(), strict=True):
            for scores, token in zip(text, tokens[1:], strict=False):
                if token != IGNORED_LABEL:
                    losses.append((scores.logsumexp(0) - scores[token]).item())
    return math.exp(sum(losses) / len(losses))


def _agree_on(batches: Batches, perplexity: Perplexity) -> bool:
    return math.isclose(perplexity(batches), _by_hand(batches), rel_tol=1e-4)


def _test(perplexity: Perplexity) -> bool:
    return _agree_on(UNEVEN, perplexity)


def _test_uniform(perplexity: Perplexity) -> bool:
    return math.isclose(perplexity([(torch.zeros_like(s), labels) for s, labels in UNEVEN]), 4, rel_tol=1e-4)


def _test_above_one(perplexity: Perplexity) -> bool:
    return perplexity(UNEVEN) >= 1


def _test_one_batch(perplexity: Perplexity) -> bool:
    return _agree_on(UNEVEN[:1], perplexity)


def _test_no_padding(perplexity: Perplexity) -> bool:
    labels = torch.tensor([[3, 0, 1, 2, 1], [2, 3, 0, 1, 0]])
    return _agree_on([(LOGITS[:2], labels), (LOGITS[2:, :3], torch.tensor([[0, 1, 3]]))], perplexity)


def _test_equal_batches(perplexity: Perplexity) -> bool:
    """Four tokens are predicted in each batch, three and one in its two texts."""
    labels = torch.tensor([[3, 0, 1, 2, IGNORED_LABEL], [2, 3, IGNORED_LABEL, IGNORED_LABEL, IGNORED_LABEL]])
    return _agree_on([(LOGITS[:2], labels), (LOGITS[:2].flip(0), labels)], perplexity)


def _test_to_the_last_bit(perplexity: Perplexity) -> bool:
    return perplexity(UNEVEN) == _perplexity(UNEVEN)


PERPLEXITY = KillTheMutants(
    id="08.perplexity",
    title="A test for a perplexity",
    difficulty=2,
    minutes=8,
    right=PERPLEXITIES,
    mutants=WRONG_PERPLEXITIES,
    reference=_test,
    misconceptions=[
        Misconception(
            "above-one",
            _test_above_one,
            "You ask for a number that is at least 1, and 13 of 14 wrong perplexities give one on an ordinary batch. "
            "Compute one value by hand.",
            "section 1",
        ),
        Misconception(
            "uniform-model",
            _test_uniform,
            "You test a model to which all ids are alike, and then each token has the same loss: 10 of 14 mistakes are "
            "about which tokens are counted and how they are averaged, and all averages of 1 number are that number.",
            "section 1",
        ),
        Misconception(
            "one-batch",
            _test_one_batch,
            "You give 1 batch, and then the mean of the batches' means is the mean. Give a second one with another "
            "number of tokens.",
            "section 1",
        ),
        Misconception(
            "no-padding",
            _test_no_padding,
            "All your tokens have a label: whoever counts padding as token 0, or divides by all positions, is right "
            "then. Let 1 text be shorter than the other.",
            "section 1, and section 5 of lesson 06",
        ),
        Misconception(
            "equal-batches",
            _test_equal_batches,
            "Your batches predict equally many tokens, so 1 mistake is left: the mean of the batches' means is the "
            "mean over tokens. The last batch of a data set is hardly ever as large as the others.",
            "section 1",
        ),
        Misconception(
            "to-the-last-bit",
            _test_to_the_last_bit,
            "You refuse right perplexities: two ways to add the same 8 losses differ in the last digit. Compare with "
            "math.isclose, or with pytest.approx.",
            "section 1",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 08.curve

KNOWS_NOTHING = math.log(token_runs.VOCABULARY)
"""The loss of a student to which all ids are alike."""


def _name_fault(log: token_runs.Log) -> str:
    first, last = log[0], log[-1]
    if first["soft_loss"] > token_runs.TEMPERATURE**2 * KNOWS_NOTHING:
        return "summed over tokens"
    if first["soft_loss"] < 1:
        return "T squared missing"
    if last["eval_loss"] > KNOWS_NOTHING:
        return "labels not shifted"
    if last["eval_loss"] > 1.01 * min(line["eval_loss"] for line in log):
        return "too few texts"
    if last["hard_loss"] < 0.8 * last["eval_loss"]:
        return "padding counted"
    return "another tokenizer" if last["soft_loss"] > 0.6 * first["soft_loss"] else "healthy"


def _name_fault_by_the_total(log: token_runs.Log) -> str:
    return "healthy" if log[-1]["loss"] < log[0]["loss"] else "another tokenizer"


CURVE = NameTheFault(
    id="08.curve",
    title="What a log tells",
    difficulty=2,
    minutes=10,
    faults=token_runs.FAULTS,
    run=token_runs.play,
    seeds=range(100, 108),
    material=token_runs,
    reference=_name_fault,
    misconceptions=[
        Misconception(
            "total-alone",
            _name_fault_by_the_total,
            "You look at the total, and it falls in each of these 7 kinds of run. Look at its two terms, where they "
            "begin, and at the texts that nobody has learned from.",
            "section 4",
        ),
        Misconception(
            "too-good-is-good",
            taking(_name_fault, "labels not shifted", "healthy"),
            "You call a hard loss of 0.2 nats healthy. No text is as certain as that: the token to be predicted stands "
            "in the input, and the student copies it. What new texts cost says so: more than ln 30 = 3.40.",
            "section 6 of lesson 06",
        ),
        Misconception(
            "padding-is-good",
            taking(_name_fault, "padding counted", "healthy"),
            "You call it healthy, since the loss on new texts falls as it should, to about 2 nats. But the hard loss "
            "is a third below it and more, from the first lines on: padding is counted, which anybody predicts.",
            "section 5 of lesson 06",
        ),
        Misconception(
            "padding-is-learned-by-heart",
            taking(_name_fault, "padding counted", "too few texts"),
            "A hard loss far below that of new texts can be 2 things. Learned by heart, new texts become worse again; "
            "where padding is counted, they do not.",
            "section 4, the curves",
        ),
        Misconception(
            "by-heart-is-padding",
            taking(_name_fault, "too few texts", "padding counted"),
            "A hard loss far below that of new texts can be 2 things. Here new texts were better once: the student "
            "learns its few texts by heart.",
            "section 4, the curves",
        ),
        Misconception(
            "stubborn-soft-loss",
            taking(_name_fault, "another tokenizer", "healthy"),
            "You call it healthy because everything falls. The soft loss keeps more than 0.6 of what it was: "
            "labels and teacher pull at different ids, and the student cannot please both.",
            "section 7 of lesson 06",
        ),
        Misconception(
            "start-not-looked-at",
            taking(_name_fault, "T squared missing", "healthy"),
            "You call it healthy because both terms fall. Look where the soft one starts: at a quarter of what it is "
            "in a sound run, which is 1/T² at T = 2.",
            "section 4 of lesson 03",
        ),
        Misconception(
            "sum-is-a-teacher-unlike",
            taking(_name_fault, "summed over tokens", "another tokenizer"),
            "You take a large soft loss for a teacher that is unlike the student. A student that knows nothing is at "
            "most ln 30 = 3.40 nats from any teacher, times T² = 4: what starts above 13.6 is no mean over tokens.",
            "section 4 of lesson 06",
        ),
    ],
)


EXERCISES = [PERPLEXITY, CURVE]
