"""Loops that no catalogue knows: right in another style, which pass, and nearly right, which are told what breaks."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from kdcourse import distillation_loss
from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

LOOP = find_exercise("03.loop")


def the_loss(student, teacher, labels, alpha, temperature):
    return distillation_loss(student, teacher, labels, alpha=alpha, temperature=temperature).total


def loop(loss=the_loss, prepare=lambda student, teacher: (student.train(), teacher.eval()), rate=0.01, **changes):
    """The loop that most people write, with one thing changed."""

    def distill(student, teacher, images, labels, *, alpha, temperature, steps, seed):
        prepare(student, teacher)
        optimizer = changes.get("optimizer", torch.optim.Adam)(student.parameters(), lr=rate)
        generator = torch.Generator().manual_seed(changes.get("seed", seed))
        for _ in range(steps + changes.get("more", 0)):
            rows = torch.randint(len(images), (changes.get("rows", 64),), generator=generator)
            with torch.no_grad():
                teacher_logits = teacher(images[rows])
            optimizer.zero_grad()
            loss(student(images[rows]), teacher_logits, labels[rows], alpha, temperature).backward()
            if changes.get("step", True):
                optimizer.step()

    return distill


def epochs_of_a_loader(student, teacher, images, labels, *, alpha, temperature, steps, seed):
    """The teacher is asked once; two `backward()` in each step; gradients are made zero at its end."""
    torch.manual_seed(seed)
    student.train(), teacher.eval()
    said = teacher(images).detach()
    loader = DataLoader(TensorDataset(images, said, labels), 64, shuffle=True, drop_last=True)
    optimizer, done = torch.optim.AdamW(student.parameters(), lr=0.01), 0
    while done < steps:
        for batch, teacher_logits, batch_labels in loader:
            if done == steps:
                break
            logits, done = student(batch), done + 1
            (alpha * F.cross_entropy(logits, batch_labels)).backward(retain_graph=True)
            log_probs, targets = ((each / temperature).log_softmax(-1) for each in (logits, teacher_logits))
            soft = F.kl_div(log_probs, targets, reduction="batchmean", log_target=True)
            ((1 - alpha) * temperature**2 * soft).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    return student


def permuted(student, teacher, images, labels, alpha, temperature, steps, seed):
    """Batches without replacement, positional names, and no call of the teacher where it has no say."""
    student.train(), teacher.eval()
    optimizer = torch.optim.NAdam(student.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randperm(len(images), generator=generator)[:64]
        logits = student(images[rows])
        loss = alpha * F.cross_entropy(logits, labels[rows])
        if alpha < 1:
            with torch.inference_mode():
                teacher_logits = teacher(images[rows]).clone()
            loss = loss + the_loss(logits, teacher_logits, labels[rows], 0.0, temperature) * (1 - alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def a_copy_of_the_student(student, *given, **settings):
    loop()(copy.deepcopy(student), *given, **settings)


def answers_of_other_rows(student, teacher, images, labels, **settings):
    """The teacher was asked once, in another order."""
    said = teacher.eval()(images.flip(0)).detach()
    rows_of = {tuple(image.tolist()): said[row] for row, image in enumerate(images)}
    ask = torch.nn.Module()
    ask.forward = lambda asked: torch.stack([rows_of[tuple(image.tolist())] for image in asked])
    loop()(student, ask, images, labels, **settings)


def reversed_kl(student, teacher, labels, alpha, temperature):
    log_probs, targets = ((each / temperature).log_softmax(-1) for each in (student, teacher))
    soft = temperature**2 * F.kl_div(targets, log_probs, reduction="batchmean", log_target=True)
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft


def written_with(soft):
    """An objective as people write it, whose soft term alone may be wrong."""

    def kd_loss(student, teacher, labels, alpha, temperature):
        distillation = soft(student / temperature, teacher / temperature, teacher) * temperature**2
        return alpha * F.cross_entropy(student, labels) + (1 - alpha) * distillation

    return kd_loss


@pytest.mark.parametrize(
    ("soft", "name"),
    [
        (lambda s, t, _: -(t.softmax(1) * s.log_softmax(1)).sum(1).mean(), "cross-entropy-instead"),
        (lambda s, t, _: F.kl_div(s.log_softmax(1), t.log_softmax(1), log_target=True), "mean-over-classes"),
        (lambda s, t, _: F.kl_div(s.log_softmax(1), t.softmax(1), reduction="sum"), "sum-over-rows"),
        (lambda s, t, _: F.kl_div(s.softmax(1), t.softmax(1), reduction="batchmean"), "softmax-on-both-sides"),
        (lambda s, t, _: F.kl_div(t.log_softmax(1), s.softmax(1), reduction="batchmean"), "roles-exchanged"),
        (lambda s, _, t: F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean"), "teacher-not-softened"),
    ],
)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_what_goes_wrong_with_kl_div_is_known(soft, name):
    """The commonest mistakes of all, called different from all that we know."""
    assert diagnose(find_exercise("03.objective"), written_with(soft)).misconception == name


@pytest.mark.slow
@pytest.mark.parametrize("answer", [loop(), epochs_of_a_loader, permuted])
def test_a_loop_in_another_style_passes(answer):
    """An exercise that asks for our lines."""
    found = diagnose(LOOP, answer)
    assert found.passed, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (loop(step=False), "different", "the student is trained: +its weights are as they were"),
        (a_copy_of_the_student, "different", "the student is trained: +its weights are as they were"),
        (loop(more=1), "different", "asked for 3 steps, the student learns from 4 batches"),
        (loop(seed=0), "different", "two seeds give one and the same student"),
        (loop(rows=256), "different", "batches of 64 rows: +a batch has 256 rows; 64 are asked for"),
        (loop(rate=0.05), "different", "rate of 0.01: +the first step changes a weight by up to 0.0500"),
        (loop(rate=0.02), "different", "14 of 15 properties hold"),
        (loop(rate=0.0001), "different", "the 3s are back: +it calls 0%"),
        (answers_of_other_rows, "different", "alpha = 0, T = 1: +no weights of the two terms"),
        (
            loop(lambda s, t, y, alpha, tau: the_loss(s, t, y, alpha, tau) + 0.1 * s.square().mean()),
            "different", "the 3s are back: +it calls",
        ),
        (loop(reversed_kl), "different", "alpha = 0, T = 1: +no weights of the two terms"),
        (loop(lambda s, t, y, alpha, tau: the_loss(s, t, y, alpha, 4.0)), "different", "alpha = 0, T = 1: +no weights"),
        (loop(lambda s, t, y, alpha, tau: 64 * the_loss(s, t, y, alpha, tau)), "different", "the labels weigh 64.00"),
        (loop(lambda s, t, y, *_: F.cross_entropy(s, y)), "different", "labels weigh 1.00 and the teacher 0.00"),
        (
            loop(prepare=lambda student, teacher: None),
            "different", "(?s)the student learns in train mode.*the teacher answers in eval mode",
        ),
        (loop(lambda s, t, y, alpha, tau: s.sum() / zero()), "error", "line: loss.student.images"),
        (lambda student, teacher, images, labels, alpha, temperature: None, "error", "TypeError"),
        (lambda *given, **settings: None, "different", "no gradient reaches the student"),
    ],
)  # fmt: skip
def test_a_loop_that_is_nearly_right_is_told_what_is_broken(answer, kind, words):
    """A loop that passes although it does something else, or fails without a word that helps."""
    found = diagnose(LOOP, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


def zero():
    raise ZeroDivisionError
