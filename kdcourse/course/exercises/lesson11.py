"""The exercises of lesson 11: a class that was never seen, put right by one number, and two teachers as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from kdcourse.course.exercises.edges import FAR, WIDE, ending
from kdcourse.course.exercises.exercise import Edge, Exercise, Function, Inputs, Misconception
from kdcourse.course.exercises.logits import float64, one_hot, softened

# ---------------------------------------------------------------------------------------------------------------------
# 11.bias

SAID = float64([[3.0, 0.0, 1.0], [2.0, 0.5, 0.0], [0.0, 3.0, 0.5], [0.5, 2.5, 1.5], [2.0, 0.0, -0.5], [0.0, 2.0, 0.2]])
MEANT = torch.tensor([0, 0, 1, 2, 2, 1])
"""Class 2 has not been seen: of its two pictures one is 1 short of being right, the other 2.5."""


def _random_bias(generator: Generator) -> Inputs:
    logits = 2 * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    missing = int(torch.randint(5, (), generator=generator))
    labels = (logits + 2 * torch.randn(40, 5, generator=generator, dtype=torch.float64)).argmax(-1)
    logits[:, missing] -= 3
    return logits, labels, missing, [-2.0, 0.0, 1.0, 2.5, 4.0, 8.0]


def _added(logits: Tensor, missing: int, shift: float) -> Tensor:
    return logits + shift * one_hot(torch.tensor(missing), logits)


def _errors(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(-1) != labels).sum())


def _correct(logits: Tensor, labels: Tensor, missing: int, shifts: Sequence[float]) -> float:
    return min(shifts, key=lambda shift: _errors(_added(logits, missing, shift), labels))


def _with(change: Function) -> Function:
    """The choice, where `change(logits, missing, shift)` is something else than adding."""

    def answer(logits: Tensor, labels: Tensor, missing: int, shifts: Sequence[float]) -> float:
        return min(shifts, key=lambda shift: _errors(change(logits, missing, shift), labels))

    return answer


def _correct_of_some(logits: Tensor, labels: Tensor, missing: int, shifts: Sequence[float], rows: Tensor) -> float:
    return _correct(logits[rows], labels[rows], missing, shifts)


def _correct_last(logits: Tensor, labels: Tensor, missing: int, shifts: Sequence[float]) -> float:
    return _correct(logits, labels, missing, list(reversed(shifts)))


def _multiplied(logits: Tensor, missing: int, shift: float) -> Tensor:
    chosen = one_hot(torch.tensor(missing), logits)
    return logits * (1 - chosen) + shift * logits * chosen


BIAS = Exercise(
    id="11.bias",
    title="One number for a class that was never seen",
    difficulty=2,
    minutes=7,
    examples=[
        (SAID, MEANT, 2, [0.0, 1.5, 3.0]),
        (SAID, MEANT, 2, [4.0, 1.5, 0.0, -1.5, -3.0]),
        (SAID, MEANT, 2, [-3.0, 0.5, 1.2, 0.0]),
        (SAID, MEANT, 0, [-1.0, 0.0, 1.0]),
    ],
    random_inputs=_random_bias,
    reference=_correct,
    edges=[
        Edge("for a single shift", lambda logits, labels, missing, shifts: (logits, labels, missing, shifts[2:3])),
        Edge(
            "where no picture is of the class",
            lambda logits, labels, missing, shifts: (
                logits,
                torch.where(labels == missing, (missing + 1) % 5, labels),
                missing,
                shifts,
            ),
        ),
        Edge(
            "where every picture is of the class",
            lambda logits, labels, missing, shifts: (
                logits,
                torch.full_like(labels, missing),
                missing,
                shifts,
            ),
        ),
        Edge(
            "where the largest shift comes first",
            lambda logits, labels, missing, shifts: (
                logits,
                labels,
                missing,
                shifts[::-1],
            ),
        ),
        Edge(
            "for a single picture",
            lambda logits, labels, missing, shifts: (
                logits[:1],
                labels[:1],
                missing,
                shifts,
            ),
        ),
        Edge(
            "for tensors of float32",
            lambda logits, labels, missing, shifts: (
                logits.float(),
                labels,
                missing,
                shifts,
            ),
        ),
    ],
    misconceptions=[
        Misconception(
            "of-the-class-alone",
            lambda logits, labels, missing, shifts: _correct_of_some(
                logits, labels, missing, shifts, labels == missing
            ),
            "You count errors among the pictures of the class alone, so the largest shift wins: 3.0 where ours is 1.5, "
            "for the first input. What it costs the other classes has to count.",
            "section 4, One number",
        ),
        Misconception(
            "of-the-others-alone",
            lambda logits, labels, missing, shifts: _correct_of_some(
                logits, labels, missing, shifts, labels != missing
            ),
            "You count errors among the other classes alone, and there no correction is best: 0.0 where ours is 1.5, "
            "for the first input.",
            "section 4, One number",
        ),
        Misconception(
            "wrong-sign",
            _with(lambda logits, missing, shift: _added(logits, missing, -shift)),
            "You subtract: -1.5 where ours is 1.5, for the second input. A class that was never seen is said too "
            "seldom, and its logit has to rise.",
            "section 4, One number",
        ),
        Misconception(
            "multiplied",
            _with(_multiplied),
            "You multiply the logit by the shift. A bias is added; what is multiplied stays 0 where a logit is 0, and "
            "falls where it is negative.",
            "section 4, One number",
        ),
        Misconception(
            "added-to-probabilities",
            _with(lambda logits, missing, shift: _added(logits.softmax(-1), missing, shift)),
            "You add the shift to a probability, which goes from 0 to 1, so any shift above 1 wins everywhere. A bias "
            "is part of the logit.",
            "section 4, One number",
        ),
        Misconception(
            "added-to-all",
            _with(lambda logits, missing, shift: logits + shift),
            "You add the shift to all classes, which changes 0 answers: a softmax sees differences alone.",
            "lesson 02, section 4",
        ),
        Misconception(
            "last-of-equals",
            _correct_last,
            "Right, but of shifts that are equally good you take the last of them, and the first was asked for: 1.0 "
            "where ours is -1.0, for the last input.",
            "exercise 11.bias, the task",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 11.mix

TWO = float64([[[6.0, 4.0, 0.0], [0.0, 1.0, 0.0]], [[-4.0, 4.0, 6.0], [2.0, 0.0, 0.0]]])


def _random_mix(generator: Generator) -> Inputs:
    logits = 3 * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return logits, 1.5 + 4 * torch.rand(1, generator=generator).item()


def _mix(logits: Tensor, temperature: float) -> Tensor:
    return softened(logits, temperature).mean(0)


def _sized(size: float, logits: Tensor, temperature: float) -> Inputs:
    return logits * (size / logits.abs().max()), temperature


MIX = Exercise(
    id="11.mix",
    title="Two teachers, one answer",
    difficulty=1,
    minutes=4,
    examples=[(TWO, 2.0), (TWO, 1.0), (TWO[:1], 2.0)],
    random_inputs=_random_mix,
    reference=_mix,
    edges=[
        ending("at T = 1", 1.0),
        ending("at T = 0.5", 0.5),
        ending("at T = 20, an integer", 20),
        Edge("for one teacher", lambda logits, temperature: (logits[:1], temperature)),
        Edge("for a single row", lambda logits, temperature: (logits[:, :1], temperature)),
        Edge("for a single class", lambda logits, temperature: (logits[..., :1], temperature)),
        Edge("where all logits are equal", lambda logits, temperature: (torch.zeros_like(logits), temperature)),
        Edge("for logits from −30 to 30", lambda *inputs: _sized(WIDE, *inputs)),
        Edge("for logits from −600 to 600", lambda *inputs: _sized(FAR, *inputs)),
        Edge("for tensors of float32", lambda logits, temperature: (logits.float(), temperature)),
    ],
    misconceptions=[
        Misconception(
            "mean-of-logits",
            lambda logits, temperature: softened(logits.mean(0), temperature),
            "You mix logits: the second class gets 0.55 where ours is 0.26, for the first row at T = 2. That is a "
            "geometric mean, in which each teacher can rule out a class.",
            "section 8, Two means",
        ),
        Misconception(
            "temperature-forgotten",
            lambda logits, temperature: logits.softmax(-1).mean(0),
            "Yours is the same at T = 2 and at T = 1: the temperature was not used.",
            "lesson 03, section 1",
        ),
        Misconception(
            "softened-after",
            lambda logits, temperature: (logits.softmax(-1).mean(0).log() / temperature).softmax(-1),
            "You mix at T = 1 and soften what comes out. Each teacher is softened, and then they are mixed; at T = 1 "
            "both are the same.",
            "section 8, Two means",
        ),
        Misconception(
            "softmax-of-probabilities",
            lambda logits, temperature: softened(logits, temperature).mean(0).softmax(-1),
            "You take a softmax of the mean, which is a distribution already: no class of yours has more than e times "
            "the probability of another.",
            "section 8, Two means",
        ),
        Misconception(
            "summed",
            lambda logits, temperature: softened(logits, temperature).sum(0),
            "Your rows add up to 2 for two teachers: that is a sum, and a mean was asked for.",
            "section 8, Two means",
        ),
        Misconception(
            "over-rows",
            lambda logits, temperature: softened(logits, temperature).mean(1),
            "You average over the rows, dimension 1, and get one distribution per teacher. Teachers are dimension 0.",
            "exercise 11.mix, the task",
        ),
        Misconception(
            "multiplied-out",
            lambda logits, temperature: softened(logits, temperature).prod(0),
            "Your rows add up to less than 1: that is a product of the teachers, and a mean was asked for.",
            "section 8, Two means",
        ),
    ],
)

EXERCISES = [BIAS, MIX]
