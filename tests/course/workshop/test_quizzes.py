"""Each answer of the two quizzes, computed once more, and held by what the course says it is held by."""

import html
import math
import re

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

from kdcourse import distillation_loss, forward_kl, reverse_kl
from kdcourse.course.expectations import find_expectations
from kdcourse.course.lessons import course_lessons
from kdcourse.course.workshop.pages import sheets_page
from kdcourse.course.workshop.quizzes import all_quizzes

QUESTIONS = [each for questions in all_quizzes().values() for each in questions]
LOGITS = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)


def nearest(choices, number):
    return min(choices, key=lambda choice: abs(float(choice) - number))


def shift(choices):
    assert torch.allclose((LOGITS + 5).softmax(-1), LOGITS.softmax(-1))
    return "nothing"


def surprise(choices):
    return nearest(choices, -math.log(0.1))


def sides(choices):
    teacher, student = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64).log()
    ways = forward_kl(student, teacher), reverse_kl(student, teacher)
    assert abs(ways[0] - ways[1]) > 1e-3
    backwards = teacher.flip(-1)
    assert torch.isclose(forward_kl(backwards, teacher), reverse_kl(backwards, teacher))
    return "only if they agree, or by chance"


def gradient(choices):
    logits = LOGITS.clone().requires_grad_()
    F.cross_entropy(logits[None], torch.tensor([1])).backward()
    p, y = LOGITS.softmax(-1), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = {"p − y": p - y, "y − p": y - p, "−y / p": -y / p}
    (right,) = [name for name in choices if torch.allclose(found[name], logits.grad)]
    return right


def soften(choices):
    p = (LOGITS / 4).softmax(-1)
    return nearest(choices, (p[0] / p[1]).item())


def call(choices):
    s, t = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = s.softmax(-1).numpy(), t.softmax(-1).numpy()
    expected = (q * np.log(q / p)).sum(-1).mean()
    found = {choice: eval(choice, {"F": F, "s": s, "t": t}).item() for choice in choices}  # noqa: S307  (our own)
    (right,) = [choice for choice, value in found.items() if abs(value - expected) < 1e-9]
    return right


def shrinks(choices):
    def norm(temperature):
        student = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
        teacher = torch.tensor([[3.0, 0.0, -3.0]], dtype=torch.float64)
        loss = distillation_loss(student, teacher, None, alpha=0.0, temperature=temperature)
        (loss.total / temperature**2).backward()
        return student.grad.norm().item()

    return nearest(choices, norm(16.0) / norm(64.0))


def hidden(choices):
    """The alpha whose gradient has the same direction."""
    s, t = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])

    def direction(hard, soft):
        student = s.clone().requires_grad_()
        parts = distillation_loss(student, t, labels, alpha=0.5, temperature=4.0)
        (hard * parts.hard + soft * parts.soft).backward()
        return student.grad.flatten()

    without = direction(0.5, 0.5 / 16)
    alike = {each: F.cosine_similarity(without, direction(float(each), 1 - float(each)), dim=0) for each in choices}
    assert max(alike.values()) > 0.9999
    return max(alike, key=alike.get)


def inference(choices):
    """A free student that follows the soft term at T = 4 to its end."""
    teacher = torch.tensor([[6.0, 2.0, 0.0]], dtype=torch.float64)
    student = torch.zeros_like(teacher, requires_grad=True)
    optimizer = torch.optim.LBFGS([student], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = distillation_loss(student, teacher, None, alpha=0.0, temperature=4.0).total
        loss.backward()
        return loss

    optimizer.step(closure)
    own = teacher.softmax(-1)
    at = {"1": 1.0, "4": 4.0, "1/4": 0.25}
    return min(choices, key=lambda each: ((student.detach() / at[each]).softmax(-1) - own).abs().max().item())


def interval(choices):
    gains = np.array([4.0, 5.0, 3.0])
    low, high = scipy.stats.t.interval(0.95, 2, gains.mean(), scipy.stats.sem(gains))
    return f"{low:.1f} to {high:.1f}"


ANSWERS = {
    each.__name__: each
    for each in (shift, surprise, sides, gradient, soften, call, shrinks, hidden, inference, interval)
}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: each.id)
def test_the_answer_is_what_comes_out(question):
    """A quiz that teaches a mistake."""
    assert ANSWERS[question.id](question.choices) == question.answer
    assert len(set(question.choices)) == len(question.choices) == 3


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: each.id)
def test_the_course_holds_the_answer(question):
    """A reference to a claim, a prediction or a cell that was renamed."""
    (lesson,) = [each for each in course_lessons() if each.number == question.lesson]
    held = find_expectations(question.lesson)
    assert sum(map(bool, (question.claim, question.prediction, question.cell))) == 1
    assert not question.claim or question.claim in held.claims
    assert not question.prediction or question.prediction in held.predictions
    assert not question.cell or question.cell in {cell["id"] for cell in lesson.cells}


def test_there_are_five_before_and_five_after():
    """A quiz of ten minutes that has twenty questions; an answer that is always the same letter."""
    assert {name: len(questions) for name, questions in all_quizzes().items()} == {"entry": 5, "exit": 5}
    assert all(len({each.letter for each in questions}) > 1 for questions in all_quizzes().values())


def test_the_sheets_ask_everything_and_answer_nothing():
    """A sheet on which a question is missing, or the right letter is marked."""
    page = html.unescape(re.sub(r"</?(?:strong|code)>", "", sheets_page()))
    before, after = page.split("<section>")[1:]
    for text, questions in ((before, all_quizzes()["entry"]), (after, all_quizzes()["exit"])):
        for each in questions:
            assert each.question in text
            assert each.why not in page
            assert [f"☐ {letter}: {choice}<" in text for letter, choice in zip("ABC", each.choices, strict=True)] == [
                True
            ] * 3
