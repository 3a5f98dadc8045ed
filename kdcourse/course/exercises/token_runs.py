"""Short distillations of language models whose fault is known: their logs are what exercise 08.curve asks about.

Each seed draws a language in which the next token depends on the last one alone, texts of it, a teacher that nearly
knows it, and a student that begins knowing nothing: a table of logits, token by next token. All that its losses need of
the texts is how often one token follows another, so a run takes a tenth of a second. It is kept.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

FAULTS = (
    "healthy",
    "labels not shifted",
    "padding counted",
    "another tokenizer",
    "T squared missing",
    "summed over tokens",
    "too few texts",
)

ALPHA, TEMPERATURE, VOCABULARY, LONGEST = 0.8, 2.0, 30, 16
STEPS, EVERY, RATE, LARGEST_NORM = 80, 10, 30.0, 0.15
TEXTS, FEW_TEXTS = 400, 16
END = 0
"""The token that ends a text, and pads."""
ENDS = 2.4
"""Its logit after any other, with which about a third of a batch is padding."""

Log = list[dict[str, float]]
"""What a Trainer keeps in `log_history`: a dictionary every 10 steps."""


class Texts(NamedTuple):
    """Token ids (N, T), and whether each has a label; behind the end is padding, which has none."""

    ids: Tensor
    has_label: Tensor


def play(fault: str, seed: int) -> Log:
    """The log of a new run with this fault: "step", "loss", "hard_loss", "soft_loss", "eval_loss".

    The first three, in nats per token, are those that the loop computes of its own texts, mistake included; "eval_loss"
    is the hard loss of other texts, computed as it should be. alpha is 0.8, T is 2, and there are 30 token ids.

    Raises:
        ValueError: there is no such fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"There is no fault {fault!r}; there are {', '.join(map(repr, FAULTS))}.")
    return [dict(line) for line in _played(fault, seed)]


def mystery(number: int) -> Log:
    """The log of a run whose fault the number draws, and nobody says which."""
    generator = Generator().manual_seed(8000 + number)
    return play(FAULTS[int(torch.randint(len(FAULTS), (), generator=generator))], 8000 + number)


@cache
def _played(fault: str, seed: int) -> Log:
    generator = Generator().manual_seed(seed)
    language = 2 * torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    language[:, END] = ENDS
    teacher = language + 0.7 * torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    own = _write(language, FEW_TEXTS if fault == "too few texts" else TEXTS, generator)
    new = _follow(_write(language, TEXTS, generator))
    if fault == "another tokenizer":  # the same tokens under other numbers
        numbers = torch.randperm(VOCABULARY, generator=generator)
        teacher = teacher[numbers][:, numbers]
    with_padding = fault == "padding counted"
    follows = _follow(own, with_padding=with_padding)
    learned = _follow(own, with_padding=with_padding, shift=0) if fault == "labels not shifted" else follows
    weights = torch.zeros(VOCABULARY, VOCABULARY, requires_grad=True)
    log: Log = []
    for step in range(STEPS + 1):
        hard = _hard(weights, learned)
        soft = _factor(fault, own) * _soft(weights, teacher, follows)
        loss = ALPHA * hard + (1 - ALPHA) * soft
        if step % EVERY == 0:
            losses = {"loss": loss, "hard_loss": hard, "soft_loss": soft, "eval_loss": _hard(weights, new)}
            log.append({"step": step} | {name: value.item() for name, value in losses.items()})
        (gradient,) = torch.autograd.grad(loss, weights)
        clipped = gradient * (LARGEST_NORM / gradient.norm()).clamp(max=1)
        weights = (weights - RATE * clipped).detach().requires_grad_()
    return log


def _write(language: Tensor, count: int, generator: Generator) -> Texts:
    """Texts of the language, each until its end or for `LONGEST` tokens."""
    probabilities = language.softmax(-1)
    last, is_written = torch.randint(1, VOCABULARY, (count,), generator=generator), torch.ones(count, dtype=torch.bool)
    ids, has_label = [], []
    for _ in range(LONGEST):
        ids.append(torch.where(is_written, last, END))
        has_label.append(is_written)
        is_written = is_written & (last != END)
        last = torch.multinomial(probabilities[last], 1, generator=generator).squeeze(1)
    return Texts(torch.stack(ids, dim=1), torch.stack(has_label, dim=1))


def _follow(texts: Texts, *, with_padding: bool = False, shift: int = 1) -> Tensor:
    """How often a token id (column) is the label where another (row) was read last, (V, V)."""
    counted = texts.has_label[:, 1:] | with_padding
    read, labels = texts.ids[:, :-1], texts.ids[:, shift : LONGEST - 1 + shift]
    pairs = torch.bincount((read * VOCABULARY + labels)[counted], minlength=VOCABULARY**2)
    return pairs.view(VOCABULARY, VOCABULARY).float()


def _hard(weights: Tensor, follows: Tensor) -> Tensor:
    return -(follows * weights.log_softmax(-1)).sum() / follows.sum()


def _soft(weights: Tensor, teacher: Tensor, follows: Tensor) -> Tensor:
    """KL(teacher ‖ student) at T, a mean over tokens; without T²."""
    log_p, log_q = (logits.div(TEMPERATURE).log_softmax(-1) for logits in (weights, teacher))
    divergences = (log_q.exp() * (log_q - log_p)).sum(-1)
    return (follows.sum(-1) * divergences).sum() / follows.sum()


def _factor(fault: str, own: Texts) -> float:
    """What the soft term is multiplied by: T², if nothing is wrong."""
    if fault == "T squared missing":
        return 1.0
    tokens_of_a_text = own.has_label[:, 1:].sum().item() / len(own.ids)
    return TEMPERATURE**2 * (tokens_of_a_text if fault == "summed over tokens" else 1.0)
