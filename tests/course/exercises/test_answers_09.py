"""Repairs of 09.loop and texts for 09.witness that no catalogue knows."""

import re

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

LOOP, WITNESS = find_exercise("09.loop"), find_exercise("09.witness")


def text_by_text(student, teacher, prompts, end, divergence):
    """No mask at all: each text is cut behind its end."""
    student.eval()
    texts = student.generate(prompts)
    student.train()
    asked, told = student(texts).logits.log_softmax(-1), None
    with torch.inference_mode():
        told = teacher(input_ids=texts).logits.log_softmax(-1)
    first, pieces = prompts.shape[1], []
    for row, text in enumerate(texts.tolist()):
        written = text[first:]
        count = written.index(end) + 1 if end in written else len(written)
        places = slice(first - 1, first - 1 + count)
        pieces.append(divergence(asked[row, places], told[row, places].clone()))
    return torch.cat(pieces).mean()


def by_labels(student, teacher, prompts, end, divergence):
    """As a collator would have it: labels of -100, and a shift."""
    with torch.no_grad():
        texts = student.eval().generate(prompts, do_sample=True)
        answers = teacher(texts).logits
    student.train()
    labels = texts.clone()
    labels[:, : prompts.shape[1]] = -100
    ended = (labels == end).long().cumsum(1)
    labels[(ended > 1) | ((ended == 1) & (labels != end))] = -100
    supervised = labels[:, 1:] != -100
    log_p = student(texts).logits[:, :-1].log_softmax(-1)
    each = divergence(log_p, answers[:, :-1].log_softmax(-1))
    return (each * supervised).sum() / supervised.sum()


@pytest.mark.parametrize("answer", [text_by_text, by_labels])
def test_a_repair_in_another_style_passes(answer):
    """An exercise that asks for our lines."""
    found = diagnose(LOOP, answer)
    assert found.passed, found


def changed(before=lambda *given: given, after=lambda loss, *given: loss):
    """A right repair, with something done before or after it."""
    return lambda *given: after(by_labels(*before(*given)), *given)


def teacher_left_in_train_mode(loss, student, teacher, *others):
    teacher.train()
    return loss


def text_of_one_token_more(student, teacher, prompts, end, divergence):
    texts = torch.cat([student.eval().generate(prompts), torch.full((len(prompts), 1), end)], dim=1)
    student.train()
    return (student(texts).logits - teacher(texts).logits.detach()).square().mean()


def handed_out(*given):
    return LOOP.broken(*given)


def writes_twice(student, teacher, prompts, end, divergence):
    student.eval().generate(prompts)
    return by_labels(student, teacher, prompts, end, divergence)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (handed_out, "not attempted", "not attempted yet; 2 of 10"),
        (changed(after=lambda loss, *_: loss.item()), "error", "a tensor with one number"),
        (changed(after=lambda loss, *_: loss.detach()), "different", "positions none learn"),
        (changed(after=lambda loss, *_: 2 * loss), "different", "the mean by reverse KL"),
        (changed(after=lambda loss, *_: loss / 2 + loss.detach() / 2), "different", "the gradient is off by 50%"),
        (changed(after=teacher_left_in_train_mode), "different", "it is in train mode"),
        (text_of_one_token_more, "different", "the student is asked about another text"),
        (writes_twice, "different", "it writes 2 times"),
        (lambda student, teacher: None, "error", "TypeError"),
    ],
)
def test_half_a_repair_is_told_what_is_left(answer, kind, words):
    """A repair that passes although a run would go wrong, or fails without a word on what is left."""
    found = diagnose(LOOP, answer)
    assert re.fullmatch(kind, found.kind), found
    assert re.search(words, repr(found)), repr(found)


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (([[1, 9, 0, 7, 7], [5, 6, 1, 3, 1]], 2), "passed", "9 of 9"),
        ((torch.tensor([[1, 9, 0, 7, 7], [5, 6, 1, 3, 1]]), 2), "passed", "9 of 9"),
        ((np.array([[1, 9, 0, 7, 7], [5, 6, 1, 3, 1]]), 2), "passed", "9 of 9"),
        (([[5, 9, 0, 7, 7], [5, 6, 1, 3, 1]], 2), "misconception", "No prompt of yours"),
        (([[1, 9, 8, 7, 7], [5, 6, 1, 3, 1]], 2), "misconception", "taken for padding"),
        (([[1, 9, 0, 1, 7], [5, 6, 1, 3, 1]], 2), "misconception|different", "without an end"),
        (([[1, 9, 0, 7, 7]], 0), "error", "one whole number, from 1 on"),
        (([[1, 9, 0, 7, 7]], [2]), "error", "one whole number, from 1 on"),
        (([[1, 9, 0, 7, 7]], 5), "error", "leaves room"),
        (([[1.5, 9, 0]], 1), "error", "token ids"),
        (([[-1, 9, 0]], 1), "error", "0 or more"),
        (([1, 9, 0], 1), "error", "a table"),
        (([[1, 9], [0]], 1), "error", "do not fit"),
    ],
)
def test_texts_are_judged_by_what_they_show(texts, kind, words):
    """Texts that are refused for their type; some that show nothing and pass."""
    found = diagnose(WITNESS, lambda: texts)
    assert re.fullmatch(kind, found.kind), found
    assert re.search(words, repr(found)), repr(found)


def test_no_suspect_is_right():
    """A wrong mask that is right in all texts that may be given, so that nobody can tell it apart."""
    generator = torch.Generator().manual_seed(0)
    alone = {each.name: 0 for each in WITNESS.suspects}
    for _ in range(100):
        texts = torch.randint(0, 4, (3, 6), generator=generator)
        right = [each.function(texts, 2) for each in WITNESS.right]
        assert right[0] == right[1]
        for each in WITNESS.suspects:
            alone[each.name] += each.function(texts, 2) != right[0]
    assert min(alone.values()) > 10
