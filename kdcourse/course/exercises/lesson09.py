"""The exercises of lesson 09: a step on the student's own text, and which of its tokens are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kdcourse.course.exercises.exercise import Function, Misconception
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.repairs import Property, RepairARun
from kdcourse.course.exercises.kinds.witnesses import FindTheWitness
from kdcourse.divergence import Divergence, forward_kl, reverse_kl

# ---------------------------------------------------------------------------------------------------------------------
# 09.loop

END, WORDS = 1, 12
PROMPTS = ((4, 5), (6, END), (7, 8))
"""One of them holds an end, as a conversation does after each turn."""
ANSWERS = ((5, 6, END, END, END), (9, END, END, END, END), (3, 4, 5, 6, 7))
"""What is written after each: one that ends in the middle, one at once, one never. Behind its end stands padding."""
PLACES = ((1, 4), (1, 3), (1, 6))
"""From where to where the logits speak of what is judged."""
CLOSE = 1e-4
ROLES = ("student", "teacher")


class Speaker(nn.Module):
    """Answers by the last token alone, with dropout, as far as a step asks; it notes how it is asked."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        table = 2 * torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed))
        self.table, self.dropout = nn.Embedding.from_pretrained(table, freeze=False), nn.Dropout(0.5)
        self.wrote_in: list[bool] = []
        self.asked: list[tuple[Tensor, Tensor, bool]] = []
        """The texts, the logits, and whether dropout was on."""

    def generate(self, input_ids: Tensor, *others: Any, **settings: Any) -> Tensor:
        """Prompts and answers, padded with END."""
        self.wrote_in.append(self.training)
        rows = [PROMPTS.index(tuple(prompt)) for prompt in input_ids.tolist()]
        return torch.cat([input_ids, torch.tensor([ANSWERS[row] for row in rows])], dim=1)

    def forward(self, input_ids: Tensor, *others: Any, **settings: Any) -> Any:
        logits = self.dropout(self.table(input_ids))
        self.asked.append((input_ids, logits, self.training))
        if logits.requires_grad:
            logits.retain_grad()
        return SimpleNamespace(logits=logits)


@dataclass
class Step:
    """What was seen of one call."""

    student: Speaker
    teacher: Speaker
    value: Tensor
    given: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """What the divergence was given."""

    @property
    def learned(self) -> Tensor:
        """The gradient by the student's logits (B, T, V), 0 where none arrived."""
        (_, logits, _), *_ = self.student.asked
        if self.value.requires_grad and logits.grad is None:
            self.value.backward()
        return torch.zeros_like(logits) if logits.grad is None else logits.grad


def step(loss: Function, rows: Sequence[int] = (0, 1, 2), divergence: Divergence = reverse_kl) -> Step:
    """One call, on some of the prompts."""
    student, teacher = Speaker(0).train(), Speaker(1).eval()
    given: list[tuple[Tensor, Tensor]] = []

    def noted(first: Tensor, second: Tensor) -> Tensor:
        given.append((first, second))
        return divergence(first, second)

    prompts = torch.tensor([PROMPTS[row] for row in rows])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value = loss(student, teacher, prompts, END, noted)
    if not isinstance(value, Tensor) or value.ndim:
        raise TypeError("a loss is asked for, a tensor with one number")
    return Step(student, teacher, value, given)


def _writing(loss: Function) -> str:
    wrote_in = step(loss).student.wrote_in
    if len(wrote_in) != 1:
        return f"it writes {len(wrote_in)} times"
    return "dropout is on while it writes" if wrote_in[0] else ""


def _learning(loss: Function) -> str:
    student = step(loss).student
    if not student.asked:
        return "it is asked about no text"
    if not student.asked[0][2]:
        return "dropout is off while it learns"
    return "" if student.training else "it is left in eval mode"


def _teacher(loss: Function) -> str:
    seen = step(loss)
    asked = seen.teacher.asked
    if not asked or seen.teacher.wrote_in:
        return f"it is asked {len(asked)} times, and writes {len(seen.teacher.wrote_in)} times"
    if asked[0][1].requires_grad:
        return "its answers carry a graph"
    return "it is in train mode" if asked[0][2] or seen.teacher.training else ""


def _same_text(loss: Function) -> str:
    seen = step(loss)
    written = Speaker(0).generate(torch.tensor(PROMPTS))
    for who, model in (("the student", seen.student), ("the teacher", seen.teacher)):
        if not model.asked or not torch.equal(model.asked[0][0], written):
            return f"{who} is asked about another text"
    return ""


def _order(loss: Function) -> str:
    seen = step(loss)
    if not seen.given:
        return "it is not called"
    for place, (given, model) in enumerate(zip(seen.given[0], (seen.student, seen.teacher), strict=True)):
        said = model.asked[0][1].log_softmax(-1).reshape(-1, WORDS)
        distance = torch.cdist(given.detach().reshape(-1, WORDS), said.detach()).min(dim=-1).values
        if distance.max() > CLOSE:
            return f"in place {place + 1} it is not given the log-probabilities of the {ROLES[place]}"
    return ""


def _judged(row: int) -> Callable[[Function], str]:
    """Where one text's logits have a gradient."""

    def broken(loss: Function) -> str:
        first, behind = PLACES[row]
        found = step(loss, rows=(row,)).learned[0].abs().sum(-1).nonzero().flatten().tolist()
        asked = list(range(first, behind))
        return "" if found == asked else f"positions {_range(found)} learn instead of {_range(asked)}"

    return broken


def _range(places: Sequence[int]) -> str:
    return ", ".join(map(str, places)) or "none"


def _mean(divergence: Divergence) -> Callable[[Function], str]:
    """The value, and the gradient, of three texts of uneven lengths."""

    def broken(loss: Function) -> str:
        seen = step(loss, divergence=divergence)
        logits = seen.student.asked[0][1].detach().double().requires_grad_()
        each = divergence(logits.log_softmax(-1), seen.teacher.asked[0][1].detach().double().log_softmax(-1))
        asked = torch.cat([each[row, first:behind] for row, (first, behind) in enumerate(PLACES)]).mean()
        if abs(seen.value.item() - asked.item()) > CLOSE * asked.item():
            return f"it is {seen.value.item():.4f} where {asked.item():.4f} is asked for"
        asked.backward()
        off = (seen.learned - logits.grad).norm() / logits.grad.norm()  # type: ignore[union-attr, operator]
        return "" if off < CLOSE else f"the gradient is off by {off:.0%}"

    return broken


def _as_in_scripts(student: Any, teacher: Any, prompts: Tensor, end: int, divergence: Divergence) -> Tensor:
    """As it is often written."""
    texts = student.generate(prompts)
    log_p = student(texts).logits.log_softmax(-1)
    log_q = teacher(texts).logits.log_softmax(-1)
    return divergence(log_q, log_p)[texts != end].mean()


def _taught(texts: Tensor, prompt: int, end: int) -> Tensor:
    """Of what stands behind the prompts: each token up to the first end, with that."""
    is_end = (texts[:, prompt:] == end).int()
    return is_end.cumsum(dim=1) - is_end == 0


def _loss(
    student: Any,
    teacher: Any,
    prompts: Tensor,
    end: int,
    divergence: Divergence,
    *,
    taught: Callable[[Tensor, int, int], Tensor] = _taught,
    first: int = -1,
    mean: Callable[[Tensor, Tensor], Tensor] = lambda each, where: each[where].mean(),
) -> Tensor:
    """The step; what is beside it can be wrong."""
    length = prompts.shape[1]
    student.eval()
    with torch.no_grad():
        texts = student.generate(prompts)
    student.train()
    start = length + first
    place = slice(start, start + texts.shape[1] - length)
    log_p = student(texts).logits[:, place].log_softmax(-1)
    with torch.no_grad():
        log_q = teacher(texts).logits[:, place].log_softmax(-1)
    each = divergence(log_p, log_q)
    return mean(each, taught(texts, length, end)[:, : each.shape[1]])


def _with(**wrong: Any) -> Function:
    """The step, with something wrong."""
    return lambda *given: _loss(*given, **wrong)


def _loss_in_train_mode(student: Any, *given: Any) -> Tensor:
    """Whatever is asked of it, it stays in train mode."""
    student.eval = lambda: student
    return _loss(student, *given)


def _loss_in_eval_mode(student: Any, *given: Any) -> Tensor:
    nn.Module.train(student, False)
    student.train = lambda *_: student
    return _loss(student, *given)


def _loss_teacher_in_the_graph(student: Any, teacher: Any, *given: Any) -> Tensor:
    def asked(texts: Tensor) -> Any:
        with torch.enable_grad():
            return teacher(texts)

    return _loss(student, asked, *given)


def _loss_teacher_writes(student: Any, teacher: Any, *given: Any) -> Tensor:
    class Writer:
        eval, train = student.eval, student.train

        def generate(self, prompts: Tensor) -> Tensor:
            return teacher.generate(prompts)

        def __call__(self, texts: Tensor) -> Any:
            return student(texts)

    return _loss(Writer(), teacher, *given)


def _loss_prompts_judged(student: Any, teacher: Any, prompts: Tensor, end: int, divergence: Divergence) -> Tensor:
    def taught(texts: Tensor, prompt: int, end: int) -> Tensor:
        asked = torch.ones_like(texts[:, 1:prompt], dtype=torch.bool)
        return torch.cat([asked, _taught(texts, prompt, end)], dim=1)

    return _whole(student, teacher, prompts, end, divergence, taught)


def _whole(
    student: Any, teacher: Any, prompts: Tensor, end: int, divergence: Divergence, taught: Callable[..., Tensor]
) -> Tensor:
    """Over all positions that speak of a token."""
    student.eval()
    texts = student.generate(prompts)
    student.train()
    log_p = student(texts).logits[:, :-1].log_softmax(-1)
    with torch.no_grad():
        log_q = teacher(texts).logits[:, :-1].log_softmax(-1)
    return divergence(log_p, log_q)[taught(texts, prompts.shape[1], end)].mean()


def _ended_by_a_prompt(texts: Tensor, prompt: int, end: int) -> Tensor:
    return _taught(texts, 0, end)[:, prompt:]


def _by_place_of_the_end(texts: Tensor, prompt: int, end: int) -> Tensor:
    """`argmax` finds place 0 where there is no end."""
    written = texts[:, prompt:]
    place = (written == end).int().argmax(dim=1, keepdim=True)
    return torch.arange(written.shape[1]) <= place


LOOP = RepairARun(
    id="09.loop",
    title="Repair an on-policy step",
    difficulty=2,
    minutes=7,
    broken=_as_in_scripts,
    reference=_loss,
    properties=[
        Property("the student writes in eval mode", _writing),
        Property("the student learns in train mode", _learning),
        Property("the teacher only judges", _teacher),
        Property("both read what the student wrote", _same_text),
        Property("the divergence gets the student first", _order),
        Property("a text that ends in the middle", _judged(0)),
        Property("a text whose prompt holds an end", _judged(1)),
        Property("a text that never ends", _judged(2)),
        Property("the mean by reverse KL", _mean(reverse_kl)),
        Property("the mean by forward KL", _mean(forward_kl)),
    ],
    misconceptions=[
        Misconception(
            "writes-with-dropout",
            _loss_in_train_mode,
            "1 thing is left: the student writes in train mode, with dropout. What it writes then is not what it will "
            "write for anybody.",
            "section 1, Who writes",
        ),
        Misconception(
            "left-in-eval-mode",
            _loss_in_eval_mode,
            "You turn dropout off to write, and 1 line is missing: the student learns in eval mode from then on.",
            "section 1, Who writes",
        ),
        Misconception(
            "teacher-in-the-graph",
            _loss_teacher_in_the_graph,
            "The teacher's answers carry a graph: memory for gradients that nobody uses. Ask it under "
            "`torch.no_grad()`; 9 of 10 are right.",
            "section 1, Who judges",
        ),
        Misconception(
            "teacher-writes",
            _loss_teacher_writes,
            "The teacher writes, 1 time in 1 step: that is a choice, too, but not the one that is asked for.",
            "section 1, Who writes",
        ),
        Misconception(
            "exchanged",
            lambda student, teacher, prompts, end, divergence: _loss(
                student, teacher, prompts, end, lambda first, second: divergence(second, first)
            ),
            "You hand the divergence the teacher first. Nothing stops; reverse KL is forward KL then, and the other "
            "way round. 7 of 10 are right.",
            "section 2, Two choices",
        ),
        Misconception(
            "prompts-judged",
            _loss_prompts_judged,
            "Your prompts are judged, too. The student has not written them: position 0 of each text teaches it "
            "somebody else's words.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "not-shifted",
            _with(first=0),
            "You judge one place too far right. Logits at a token speak of the next one, so the last token of the "
            "prompt, here position 1, judges the first that is written.",
            "lesson 06, Which positions teach",
        ),
        Misconception(
            "end-not-judged",
            _with(taught=lambda texts, prompt, end: texts[:, prompt:] != end),
            "Your ends are not judged, 0 of 2, so that the student never learns when to stop.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "padding-judged",
            _with(taught=lambda texts, prompt, end: torch.ones_like(texts[:, prompt:], dtype=torch.bool)),
            "What stands behind the first end is judged as well: 2 tokens of padding in the first text, which nobody "
            "wrote.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "ended-by-a-prompt",
            _with(taught=_ended_by_a_prompt),
            "An end in the prompt ends your text before it begins: in a conversation each turn has one, and there 0 "
            "tokens would be judged.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "no-end-no-text",
            _with(taught=_by_place_of_the_end),
            "You look for the place of the end, and where there is none, `argmax` says 0: of a text that never ends, 1 "
            "token is judged.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "mean-of-means",
            _with(mean=lambda each, where: ((each * where).sum(1) / where.sum(1)).mean()),
            "You average each text first, so a token in a text of 2 weighs more than one in a text of 5.",
            "lesson 06, Which positions teach",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 09.witness

Texts = Any


def _on_texts(taught: Callable[[Tensor, int, int], Tensor]) -> Function:
    """Which tokens are judged: 1 or 0 for each token of each text, those of the prompt included."""

    def function(texts: Texts, prompt: int) -> list[list[int]]:
        ids = torch.as_tensor(texts)
        judged = taught(ids, prompt, END)
        if judged.shape != ids.shape:
            judged = torch.cat([torch.zeros_like(ids[:, :prompt], dtype=torch.bool), judged], dim=1)
        return judged.int().tolist()

    return function


def _token_by_token(texts: Texts, prompt: int) -> list[list[int]]:
    judged = []
    for text in torch.as_tensor(texts).tolist():
        row, writes = [0] * prompt, True
        for token in text[prompt:]:
            row.append(int(writes))
            writes = writes and token != END
        judged.append(row)
    return judged


def _up_to_the_last_end(texts: Tensor, prompt: int, end: int) -> Tensor:
    is_end = texts[:, prompt:] == end
    behind = is_end.int().flip(1).cumsum(1).flip(1) > 0
    return behind | ~is_end.any(dim=1, keepdim=True)


def _up_to_the_first_end_of_all(texts: Tensor, prompt: int, end: int) -> Tensor:
    return _taught(texts, prompt, end).all(dim=0).expand(len(texts), -1)


def _without_the_end(texts: Tensor, prompt: int, end: int) -> Tensor:
    return (texts[:, prompt:] == end).cumsum(dim=1) == 0


def _prompts_too(texts: Tensor, prompt: int, end: int) -> Tensor:
    return torch.cat([torch.ones_like(texts[:, :prompt], dtype=torch.bool), _taught(texts, prompt, end)], dim=1)


def _rule(texts: Texts, prompt: int) -> str:
    ids = torch.as_tensor(texts)
    if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:  # noqa: PLR2004
        return "texts are a table (B, T) of token ids."
    if bool((ids < 0).any()):
        return "a token id is 0 or more."
    if isinstance(prompt, bool) or not isinstance(prompt, Integral) or not 1 <= prompt < ids.shape[1]:
        return "the number of prompt tokens is one whole number, from 1 on, that leaves room for a written token."
    return ""


WITNESS = FindTheWitness(
    id="09.witness",
    title="Texts that tell nine masks apart",
    difficulty=2,
    minutes=4,
    right=[Suspect("before it, no end", _on_texts(_taught)), Suspect("token by token", _token_by_token)],
    suspects=[
        Suspect("prompts are judged", _on_texts(_prompts_too)),
        Suspect("all that is written is judged", _on_texts(lambda x, p, e: torch.ones_like(x[:, p:]).bool())),
        Suspect("the end is not judged", _on_texts(_without_the_end)),
        Suspect("all but ends are judged", _on_texts(lambda x, p, e: x[:, p:] != e)),
        Suspect("up to the last end", _on_texts(_up_to_the_last_end)),
        Suspect("an end in the prompt ends the text", _on_texts(_ended_by_a_prompt)),
        Suspect("without an end, one token", _on_texts(_by_place_of_the_end)),
        Suspect("all texts end with the first that does", _on_texts(_up_to_the_first_end_of_all)),
        Suspect("the 0 is taken for padding", _on_texts(lambda x, p, e: _taught(x, p, e) & (x[:, p:] != 0))),
    ],
    illegal=_rule,
    reference=lambda: ([[4, END, 5, 0, 6], [4, 5, 6, END, END]], 2),
    misconceptions=[
        Misconception(
            "texts-that-all-end",
            lambda: ([[4, END, 5, 0, END, 0], [4, 5, 6, END, END, 7]], 2),
            "Each of your texts ends. 1 mask is right as long as they do: it takes the place of the end, and for a "
            "text that was cut off `argmax` says 0.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "no-end-in-a-prompt",
            lambda: ([[4, 6, 5, 0, 6], [4, 5, 6, END, END]], 2),
            "No prompt of yours holds an end. In a conversation each turn has 1, and whoever looks for the first end "
            "of the whole row then judges nothing.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "nothing-behind-the-end",
            lambda: ([[4, END, 5, 0, 6], [4, 5, 6, 7, END]], 2),
            "Your texts end with their last token at the earliest, so 3 masks that differ only behind the first end "
            "look right.",
            "section 1, Which tokens are judged",
        ),
        Misconception(
            "no-zero",
            lambda: ([[4, END, 5, 7, 6], [4, 5, 6, END, END]], 2),
            "8 of 9. Which id do people take for padding, that may be a word of the vocabulary?",
            "lesson 06, What the labels mark",
        ),
        Misconception(
            "one-text",
            lambda: ([[4, END, 6, 0, END, END, 7]], 2),
            "You hand over 1 text: what goes wrong between texts of two lengths, and where one never ends, cannot "
            "show.",
            "section 1, Which tokens are judged",
        ),
    ],
)

EXERCISES = [LOOP, WITNESS]
