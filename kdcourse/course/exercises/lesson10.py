"""The exercises of lesson 10: a test for how pieces of a step are put together, and a decision by a cost sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.mutants import KillTheMutants

# ---------------------------------------------------------------------------------------------------------------------
# 10.reduce

Piece = tuple[Tensor, Tensor, Tensor, Tensor]
"""(hard, labelled, soft, taught) of a process or a micro-batch: a number and whether it counts, for each position."""

Reduce = Callable[[Sequence[Piece], float], Tensor]
"""`reduce(pieces, alpha)`, the loss of the whole step."""


def _sums(values: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    """What counts, added up over all pieces."""
    return torch.stack([each[where].sum() for each, where in zip(values, counts, strict=True)]).sum()


def _count(counts: Sequence[Tensor]) -> Tensor:
    return torch.stack([where.sum() for where in counts]).sum().clamp(min=1)


def _reduce(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """Two sums, two counts, and one division for each."""
    hard, labelled, soft, taught = zip(*pieces, strict=True)
    return alpha * _sums(hard, labelled) / _count(labelled) + (1 - alpha) * _sums(soft, taught) / _count(taught)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """0 where nothing counts."""
    return values[where].sum() / where.sum().clamp(min=1)


def _mix(hard: Tensor, soft: Tensor, alpha: float) -> Tensor:
    return alpha * hard + (1 - alpha) * soft


def _in_one_row(pieces: Sequence[Piece], alpha: float) -> Tensor:
    hard, labelled, soft, taught = (torch.cat(each) for each in zip(*pieces, strict=True))
    return _mix(_mean(hard, labelled), _mean(soft, taught), alpha)


def _by_shares(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """As a training adds it up: each piece is divided by the counts of the step."""
    labelled, taught = (sum(int(piece[place].sum()) for piece in pieces) for place in (1, 3))
    shares = [
        alpha * hard[has_label].sum() / max(labelled, 1) + (1 - alpha) * soft[is_taught].sum() / max(taught, 1)
        for hard, has_label, soft, is_taught in pieces
    ]
    return torch.stack(shares).sum()


def _averaged_by_processes(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """As DDP does: shares times the number of processes, and then their mean."""
    return torch.stack([len(pieces) * _share(piece, pieces, alpha) for piece in pieces]).mean()


def _share(piece: Piece, pieces: Sequence[Piece], alpha: float) -> Tensor:
    hard, labelled, soft, taught = piece
    counts = [_count([each[place] for each in pieces]) for place in (1, 3)]
    return _mix(hard[labelled].sum() / counts[0], soft[taught].sum() / counts[1], alpha)


def _in_64_bits(pieces: Sequence[Piece], alpha: float) -> Tensor:
    return _reduce([(h.double(), labelled, s.double(), taught) for h, labelled, s, taught in pieces], alpha)


def _means(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """The mean of each piece."""
    return torch.stack([_mix(_mean(h, labelled), _mean(s, taught), alpha) for h, labelled, s, taught in pieces])


def _weighted_by_rows(pieces: Sequence[Piece], alpha: float) -> Tensor:
    lengths = torch.tensor([float(len(piece[0])) for piece in pieces])
    return (_means(pieces, alpha) * lengths).sum() / lengths.sum()


def _with_counts(count: Callable[[Piece], tuple[Tensor, Tensor]]) -> Reduce:
    """Right sums, divided by the sums of other counts."""

    def reduce(pieces: Sequence[Piece], alpha: float) -> Tensor:
        hard, labelled, soft, taught = zip(*pieces, strict=True)
        first, second = zip(*map(count, pieces), strict=True)
        return _mix(_sums(hard, labelled) / _count(first), _sums(soft, taught) / _count(second), alpha)

    return reduce


def _everything(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """Padding, too, in sum and count."""
    return _reduce([(h, torch.ones_like(labelled), s, torch.ones_like(t)) for h, labelled, s, t in pieces], alpha)


def _first_count_for_all(pieces: Sequence[Piece], alpha: float) -> Tensor:
    hard, labelled, soft, taught = zip(*pieces, strict=True)
    counts = [len(pieces) * where[0].sum().clamp(min=1) for where in (labelled, taught)]
    return _mix(_sums(hard, labelled) / counts[0], _sums(soft, taught) / counts[1], alpha)


def _labelled_alone(pieces: Sequence[Piece], alpha: float) -> Tensor:
    return _reduce([(hard, labelled, soft, labelled) for hard, labelled, soft, _ in pieces], alpha)


def _without_pieces_of_no_label(pieces: Sequence[Piece], alpha: float) -> Tensor:
    return _reduce([piece for piece in pieces if piece[1].any()] or pieces, alpha)


def _means_over_pieces_with_labels(pieces: Sequence[Piece], alpha: float) -> Tensor:
    """Each piece's mean weighs as many labels or taught positions as it has; the mean of no labels is NaN."""
    hard = torch.stack([h[where].mean() * where.sum() for h, where, _, _ in pieces]).sum()
    soft = torch.stack([s[where].mean() * where.sum() for _, _, s, where in pieces]).sum()
    return _mix(hard / _count([piece[1] for piece in pieces]), soft / _count([piece[3] for piece in pieces]), alpha)


def _divided_by_pieces_too(pieces: Sequence[Piece], alpha: float) -> Tensor:
    return _reduce(pieces, alpha) / len(pieces)


def _undivided(pieces: Sequence[Piece], alpha: float) -> Tensor:
    hard, labelled, soft, taught = zip(*pieces, strict=True)
    return _mix(_sums(hard, labelled), _sums(soft, taught), alpha)


RIGHT_REDUCTIONS = [
    Suspect("two sums and two counts", _reduce),
    Suspect("all pieces in one row", _in_one_row),
    Suspect("shares of the step, added up", _by_shares),
    Suspect("shares times the processes, averaged", _averaged_by_processes),
    Suspect("in 64 bits", _in_64_bits),
]
REDUCTION_MUTANTS = [
    Suspect("the mean of the pieces' means", lambda pieces, alpha: _means(pieces, alpha).mean()),
    Suspect("the pieces' means, added up", lambda pieces, alpha: _means(pieces, alpha).sum()),
    Suspect("means, weighted by rows with their padding", _weighted_by_rows),
    Suspect("sums, never divided", _undivided),
    Suspect("divided by the pieces once more", _divided_by_pieces_too),
    Suspect("the first piece's counts for all", _first_count_for_all),
    Suspect("both terms by the labels", _with_counts(lambda piece: (piece[1], piece[1]))),
    Suspect("both terms by the taught positions", _with_counts(lambda piece: (piece[3], piece[3]))),
    Suspect("the two counts exchanged", _with_counts(lambda piece: (piece[3], piece[1]))),
    Suspect("padding in the teacher's count", _with_counts(lambda piece: (piece[1], torch.ones_like(piece[3])))),
    Suspect("padding in sums and counts", _everything),
    Suspect("what has no label is not taught", _labelled_alone),
    Suspect("a piece without labels is left out", _without_pieces_of_no_label),
    Suspect("NaN for a piece without labels", _means_over_pieces_with_labels),
    Suspect("the last piece alone", lambda pieces, alpha: _reduce(pieces[-1:], alpha)),
    Suspect("alpha on the teacher", lambda pieces, alpha: _reduce(pieces, 1 - alpha)),
]

CLOSE = 1e-4


def _piece(hard: list[float], labelled: list[int], soft: list[float], taught: list[int]) -> Piece:
    return torch.tensor(hard), torch.tensor(labelled).bool(), torch.tensor(soft), torch.tensor(taught).bool()


UNEVEN = [
    _piece([1.0, 2.0, 99.0], [1, 0, 0], [4.0, 8.0, 99.0], [1, 1, 0]),
    _piece([16.0, 32.0, 64.0, 128.0], [1, 1, 1, 0], [1.0, 2.0, 4.0, 8.0], [1, 1, 1, 1]),
    _piece([99.0, 99.0], [0, 0], [256.0, 99.0], [1, 0]),
]
"""Powers of two, so that each sum says what was added; 99 where nothing counts."""


def _by_hand(pieces: Sequence[Piece], alpha: float) -> float:
    """In plain Python, position by position."""
    hard = [
        value for piece in pieces for value, counts in zip(piece[0].tolist(), piece[1].tolist(), strict=True) if counts
    ]
    soft = [
        value for piece in pieces for value, counts in zip(piece[2].tolist(), piece[3].tolist(), strict=True) if counts
    ]
    return alpha * sum(hard) / max(len(hard), 1) + (1 - alpha) * sum(soft) / max(len(soft), 1)


def _is_right(reduce: Reduce, pieces: Sequence[Piece], alpha: float) -> bool:
    return math.isclose(float(reduce(pieces, alpha)), _by_hand(pieces, alpha), rel_tol=CLOSE)


def _test_reduction(reduce: Reduce) -> bool:
    return _is_right(reduce, UNEVEN, 0.25)


EQUAL = [
    _piece([1.0, 2.0, 99.0], [1, 0, 0], [4.0, 8.0, 99.0], [1, 1, 0]),
    _piece([16.0, 32.0, 99.0], [1, 0, 0], [64.0, 128.0, 99.0], [1, 1, 0]),
]
FULL = [
    _piece([1.0, 2.0], [1, 1], [4.0, 8.0], [1, 1]),
    _piece([16.0, 32.0, 64.0, 128.0], [1, 1, 1, 1], [1.0, 2.0, 4.0, 8.0], [1, 1, 1, 1]),
]
UNPADDED = [
    _piece([1.0, 2.0], [1, 0], [4.0, 8.0], [1, 1]),
    _piece([16.0, 32.0, 64.0, 128.0], [1, 1, 1, 0], [1.0, 2.0, 4.0, 8.0], [1, 1, 1, 1]),
    _piece([99.0], [0], [256.0], [1]),
]


def _test_invariant(reduce: Reduce) -> bool:
    """The same positions in one piece and in three; nobody has asked whether that number is right."""
    together = [tuple(torch.cat(each) for each in zip(*UNEVEN, strict=True))]
    return math.isclose(float(reduce(UNEVEN, 0.25)), float(reduce(together, 0.25)), rel_tol=CLOSE)  # type: ignore[arg-type]


REDUCE = KillTheMutants(
    id="10.reduce",
    title="A test for how a step is put together",
    difficulty=3,
    minutes=10,
    right=RIGHT_REDUCTIONS,
    mutants=REDUCTION_MUTANTS,
    reference=_test_reduction,
    misconceptions=[
        Misconception(
            "one-piece",
            lambda reduce: _is_right(reduce, UNEVEN[:1], 0.25),
            "Your step has 1 piece, and then a mean of means is the mean, and so is much else.",
            "section 1, The mean of two means",
        ),
        Misconception(
            "equal-pieces",
            lambda reduce: _is_right(reduce, EQUAL, 0.25),
            "Your 2 pieces have the same counts, as batches of classification without gaps have. Make them unequal.",
            "section 1, The mean of two means",
        ),
        Misconception(
            "all-count",
            lambda reduce: _is_right(reduce, FULL, 0.25),
            "100% of your positions have a label and a teacher, so padding and missing labels are never met.",
            "lesson 05, section 4",
        ),
        Misconception(
            "no-padding",
            lambda reduce: _is_right(reduce, UNPADDED, 0.25),
            "None of your positions is padding: each is taught, so that whoever counts all positions is right in 1 of "
            "the 2 terms. Put 99 where nothing counts.",
            "lesson 06, section 6",
        ),
        Misconception(
            "every-piece-has-labels",
            lambda reduce: _is_right(reduce, UNEVEN[:2], 0.25),
            "Each of your pieces has a label. A piece with 0 of them is where a mean is NaN, and where somebody skips "
            "it.",
            "lesson 06, Nothing to learn from",
        ),
        Misconception(
            "alpha-one-half",
            lambda reduce: _is_right(reduce, UNEVEN, 0.5),
            "At alpha = 0.5 nobody sees which term it weights. Take 0.25.",
            "lesson 04, the dictionary of conventions",
        ),
        Misconception(
            "labels-alone",
            lambda reduce: _is_right(reduce, UNEVEN, 1.0),
            "At alpha = 1 there are only labels, and 1 of the 2 terms is never looked at.",
            "lesson 05, section 4",
        ),
        Misconception(
            "teacher-alone",
            lambda reduce: _is_right(reduce, UNEVEN, 0.0),
            "At alpha = 0 there is only the teacher, and 1 of the 2 terms is never looked at.",
            "lesson 05, section 4",
        ),
        Misconception(
            "invariance-alone",
            _test_invariant,
            "You ask that 3 pieces give what 1 piece gives. That finds a mean of means, and lets pass whoever is wrong "
            "in the same way on both sides. Compute one value by hand as well.",
            "section 1, The mean of two means",
        ),
        Misconception(
            "finite-is-fine",
            lambda reduce: math.isfinite(float(reduce(UNEVEN, 0.25))),
            "You ask for a finite number, and 15 of the 16 give one.",
            "section 1, The mean of two means",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 10.budget

ASK, ALL, CUT = "ask", "all", "top-k"

SMALL_IDS = 65_536
"""Up to so many tokens, an id takes 2 bytes; above, 4."""


def _flops(teacher: float, student: float, tokens: int, epochs: int, answers: int) -> float:
    return tokens * (answers * teacher + epochs * 3 * student)


def _all_bytes(tokens: int, vocabulary: int) -> int:
    return tokens * vocabulary * 2


def _cut_bytes(tokens: int, vocabulary: int, k: int) -> int:
    return tokens * (k * (2 + (2 if vocabulary <= SMALL_IDS else 4)) + 4)


def _plan(
    teacher: float, student: float, tokens: int, epochs: int, vocabulary: int, k: int, disk: int
) -> tuple[str, float, int]:
    """Keep answers if they are needed twice: all of them if they fit, else the top k, else ask each time."""
    once = _flops(teacher, student, tokens, epochs, 1)
    if epochs > 1 and (size := _all_bytes(tokens, vocabulary)) <= disk:
        return ALL, once, size
    if epochs > 1 and (size := _cut_bytes(tokens, vocabulary, k)) <= disk:
        return CUT, once, size
    return ASK, _flops(teacher, student, tokens, epochs, epochs), 0


Setting = tuple[float, float, int, int, int, int, int]


def _fits(size: int, disk: int) -> bool:
    return size <= disk


def _decided(  # as the reference does, with one thing in another way
    setting: Setting,
    *,
    flops: Callable[..., float] = _flops,
    all_bytes: Callable[[int, int], int] = _all_bytes,
    cut_bytes: Callable[[int, int, int], int] = _cut_bytes,
    fits: Callable[[int, int], bool] = _fits,
    kept: tuple[str, ...] = (ALL, CUT),
    least: int = 2,
    answers: int | None = 1,
) -> tuple[str, float, int]:
    teacher, student, tokens, epochs, vocabulary, k, disk = setting
    sizes = {ALL: all_bytes(tokens, vocabulary), CUT: cut_bytes(tokens, vocabulary, k)}
    for way in kept if epochs >= least else ():
        if fits(sizes[way], disk):
            return way, flops(teacher, student, tokens, epochs, epochs if answers is None else answers), sizes[way]
    return ASK, flops(teacher, student, tokens, epochs, epochs), 0


def _of_cut(number: Callable[[int, int], int]) -> Callable[[int, int, int], int]:
    """Bytes of the cut, by bytes of a token."""
    return lambda tokens, vocabulary, k: tokens * number(vocabulary, k)


def _id_bytes(vocabulary: int) -> int:
    return 2 if vocabulary <= SMALL_IDS else 4


def _random_plan(generator: Generator) -> Inputs:
    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    tokens, vocabulary, k = draw(1000, 9000), (32_000, 128_256)[draw(0, 1)], draw(10, 99)
    disk = (tokens * k, tokens * vocabulary, 3 * tokens * vocabulary)[draw(0, 2)]
    return float(draw(10**6, 10**9)), float(draw(10**5, 10**6)), tokens, draw(1, 4), vocabulary, k, disk


def _on_disk(size: Callable[[int, int, int], int], more: int = 0) -> Callable[..., Inputs]:
    """The same plan for several epochs, on a disk of so many bytes."""

    def change(teacher: float, student: float, tokens: int, epochs: int, vocabulary: int, k: int, disk: int) -> Inputs:
        return teacher, student, tokens, epochs + 1, vocabulary, k, size(tokens, vocabulary, k) + more

    return change


def _with_vocabulary(vocabulary: int) -> Callable[..., Inputs]:
    def change(teacher: float, student: float, tokens: int, epochs: int, _: int, k: int, disk: int) -> Inputs:
        return teacher, student, tokens, epochs + 1, vocabulary, k, _cut_bytes(tokens, SMALL_IDS, k)

    return change


def _one_epoch(teacher: float, student: float, tokens: int, epochs: int, vocabulary: int, k: int, disk: int) -> Inputs:
    return teacher, student, tokens, 1, vocabulary, k, 4 * tokens * vocabulary


BUDGET = Exercise(
    id="10.budget",
    title="Decide from a cost sheet",
    difficulty=2,
    minutes=8,
    examples=[
        (100.0, 10.0, 1000, 3, 32_000, 50, 64_000_000),
        (100.0, 10.0, 1000, 3, 32_000, 50, 63_999_999),
        (100.0, 10.0, 1000, 3, 32_000, 50, 204_000),
        (100.0, 10.0, 1000, 3, 32_000, 50, 203_999),
        (100.0, 10.0, 1000, 2, 128_256, 50, 304_000),
        (100.0, 10.0, 1000, 2, 128_256, 50, 303_999),
        (100.0, 10.0, 1000, 1, 32_000, 50, 10**9),
    ],
    random_inputs=_random_plan,
    reference=_plan,
    edges=[
        Edge("where all answers fill the disk", _on_disk(lambda n, v, k: _all_bytes(n, v))),
        Edge("where all answers lack a byte", _on_disk(lambda n, v, k: _all_bytes(n, v), -1)),
        Edge("where the top k fill the disk", _on_disk(_cut_bytes)),
        Edge("where the top k lack a byte", _on_disk(_cut_bytes, -1)),
        Edge("for 65,536 tokens", _with_vocabulary(SMALL_IDS)),
        Edge("for 65,537 tokens", _with_vocabulary(SMALL_IDS + 1)),
        Edge("without a disk", _on_disk(lambda n, v, k: 0)),
        Edge("for one epoch", _one_epoch),
    ],
    misconceptions=[
        Misconception(
            "backward-is-forward",
            lambda *setting: _decided(setting, flops=lambda t, s, n, e, answers: n * (answers * t + e * 2 * s)),
            "You count 2 forward passes for a step of the student. A backward pass alone costs 2, since each product "
            "has two in its gradient, so a step costs 3.",
            "section 5, FLOPs",
        ),
        Misconception(
            "teacher-goes-back",
            lambda *setting: _decided(setting, flops=lambda t, s, n, e, answers: n * (answers * 3 * t + e * 3 * s)),
            "You count 3 passes for the teacher, too. It is not trained: 1 forward pass.",
            "section 5, FLOPs",
        ),
        Misconception(
            "student-once",
            lambda *setting: _decided(setting, flops=lambda t, s, n, e, answers: n * (answers * t + 3 * s)),
            "You count the student's training for 1 epoch. A cache spares it nothing: it reads each token in each "
            "epoch.",
            "section 5, FLOPs",
        ),
        Misconception(
            "epochs-for-a-cache",
            lambda *setting: _decided(setting, answers=None),
            "You pay the teacher in each epoch although its answers are kept: it answers 1 time.",
            "section 5, The sheet",
        ),
        Misconception(
            "asked-once",
            lambda *setting: _decided(setting, flops=lambda t, s, n, e, answers: n * (t + e * 3 * s)),
            "Without a cache you pay the teacher 1 time; it answers anew in each epoch.",
            "section 5, The sheet",
        ),
        Misconception(
            "cache-for-one-epoch",
            lambda *setting: _decided(setting, least=1),
            "For 1 epoch you keep answers that nobody reads again. Asking costs the same FLOPs, and no disk.",
            "section 5, The sheet",
        ),
        Misconception(
            "cut-first",
            lambda *setting: _decided(setting, kept=(CUT, ALL)),
            "You keep the top k although all answers fit: 0 FLOPs saved, and something lost.",
            "section 5, Bytes",
        ),
        Misconception(
            "never-cut",
            lambda *setting: _decided(setting, kept=(ALL,)),
            "You keep all answers or none: in the second example a disk 1 byte too small sends you back to asking 3 "
            "times.",
            "section 5, Bytes",
        ),
        Misconception(
            "rest-forgotten",
            lambda *setting: _decided(setting, cut_bytes=_of_cut(lambda v, k: k * (2 + _id_bytes(v)))),
            "Your top k lack the rest, 4 bytes a token: 200,000 bytes where ours are 204,000. Without it nobody knows "
            "what the other classes weigh together.",
            "section 5, Bytes",
        ),
        Misconception(
            "ids-forgotten",
            lambda *setting: _decided(setting, cut_bytes=_of_cut(lambda v, k: 2 * k + 4)),
            "Your top k are numbers without names: each needs the id of its token, 2 or 4 bytes more.",
            "section 5, Bytes",
        ),
        Misconception(
            "ids-in-two-bytes",
            lambda *setting: _decided(setting, cut_bytes=_of_cut(lambda v, k: 4 * k + 4)),
            "Your ids always take 2 bytes, which ends at 65,536 tokens; 128,256 need 4.",
            "section 5, Bytes",
        ),
        Misconception(
            "ids-in-four-bytes",
            lambda *setting: _decided(setting, cut_bytes=_of_cut(lambda v, k: 6 * k + 4)),
            "Your ids always take 4 bytes; for up to 65,536 tokens 2 will do.",
            "section 5, Bytes",
        ),
        Misconception(
            "in-32-bits",
            lambda *setting: _decided(
                setting,
                all_bytes=lambda n, v: 4 * n * v,
                cut_bytes=_of_cut(lambda v, k: k * (4 + _id_bytes(v)) + 4),
            ),
            "You keep 4 bytes for each number, and 2 were asked for.",
            "section 5, Bytes",
        ),
        Misconception(
            "less-than-the-disk",
            lambda *setting: _decided(setting, fits=lambda size, disk: size < disk),
            "You want a byte to be left over: what fills 100% of the disk fits.",
            "section 5, Bytes",
        ),
    ],
)


EXERCISES = [REDUCE, BUDGET]
