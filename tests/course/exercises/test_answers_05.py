"""Repairs of 05.trainer that no catalogue knows: in another style, half done, and mutants of the reference."""

import os
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F  # noqa: N812
from course.exercises.domains import Draw
from course.exercises.mutants import mutants
from transformers import BatchEncoding

from kdcourse import distillation_loss, forward_kl
from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

TRAINER = find_exercise("05.trainer")
DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
EVERY = 1 if DEEP else 40
IGNORED = -100


# ---------------------------------------------------------------------------------------------------------------------
# Right in another style


def by_the_package(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    """A copy of the batch loses its labels; the package counts what it is not told."""
    features = dict(inputs)
    labels = features.pop("labels")
    outputs = model(**features)
    with torch.no_grad():
        targets = self.teacher(**features).logits
    mix = {"alpha": self.args.alpha, "temperature": self.args.temperature, "num_items": num_items_in_batch}
    loss = distillation_loss(outputs.logits, targets, labels, **mix).total
    return (loss, outputs) if return_outputs else loss


def in_one_sum(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    """Row by row, with a copy of the batch and a teacher in inference mode."""
    features = dict(inputs)
    labels = features.pop("labels")
    outputs = model(**features)
    with torch.inference_mode():
        targets = self.teacher(**features).logits
    known = labels.ne(-100)
    labelled, taught = (
        num_items_in_batch if num_items_in_batch is not None else (known.sum().clamp(min=1), known.numel())
    )
    hard = F.cross_entropy(outputs.logits, labels, reduction="none", ignore_index=-100)
    log_p, log_q = ((each / self.args.temperature).log_softmax(-1) for each in (outputs.logits, targets.clone()))
    soft = self.args.temperature**2 * forward_kl(log_p, log_q)
    loss = (self.args.alpha * hard / labelled + (1 - self.args.alpha) * soft / taught).sum()
    return (loss, outputs) if return_outputs else loss


def in_columns(trainer, student, batch, return_outputs=False, num_items_in_batch=None, **more):
    """Other names, positional arguments, a frozen teacher, and rows chosen by hand."""
    trainer.teacher.requires_grad_(False)
    asked, target = batch["labels"], trainer.teacher(batch["input_ids"], batch["attention_mask"])["logits"]
    outputs = student(batch["input_ids"], attention_mask=batch["attention_mask"])
    alpha, tau = trainer.args.alpha, trainer.args.temperature
    rows = (asked >= 0).nonzero()[:, 0]
    counts = num_items_in_batch or (len(rows) or 1, len(asked))
    log_p, q = (outputs["logits"] / tau).log_softmax(-1), (target / tau).softmax(-1)
    hard = -outputs[0].log_softmax(-1)[rows, asked[rows]].sum()
    soft = (q * ((target / tau).log_softmax(-1) - log_p)).sum() * tau * tau
    loss = alpha / counts[0] * hard + (1 - alpha) / counts[1] * soft
    if return_outputs:
        return loss, outputs
    return loss


def in_two_questions(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    """The labelled rows are asked about apart."""
    known = inputs["labels"] != IGNORED
    features = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    outputs = model(**features)
    labelled = {name: column[known] for name, column in features.items()}
    hard = F.cross_entropy(model(**labelled).logits, inputs["labels"][known], reduction="sum")
    with torch.no_grad():
        target = self.teacher(**features).logits
    counts = (max(int(known.sum()), 1), len(known)) if num_items_in_batch is None else num_items_in_batch
    log_p, log_q = ((each / self.args.temperature).log_softmax(-1) for each in (outputs.logits, target))
    soft = self.args.temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    loss = self.args.alpha * hard / counts[0] + (1 - self.args.alpha) * soft * len(target) / counts[1]
    return (loss, {"logits": outputs.logits}) if return_outputs else loss


@pytest.mark.parametrize("answer", [in_one_sum, in_columns, in_two_questions])
def test_a_repair_in_another_style_passes(answer):
    """An exercise that asks for our lines."""
    found = diagnose(TRAINER, answer)
    assert found.passed, found


# ---------------------------------------------------------------------------------------------------------------------
# Half done


def repaired(**changes):
    """The reference, with something done to its arguments or to what comes back."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        given = changes.get("before", lambda *given: given)(self, model, inputs, return_outputs, num_items_in_batch)
        value = changes.get("instead", TRAINER.reference)(*given)
        return changes.get("after", lambda value, *_: value)(value, self, model)

    return compute_loss


def gives_logits(value, *_):
    return (value[0], value[1].logits) if isinstance(value, tuple) else value


def with_loss(change):
    """With another loss, and the same outputs."""
    return lambda value, *_: (change(value[0]), value[1]) if isinstance(value, tuple) else change(value)


def trains_the_teacher(value, self, model):
    self.teacher.train()
    return value


def in_eval_mode(value, self, model):
    model.eval()
    return value


def only_in_one_batch(self, model, inputs, return_outputs, num_items):
    """Counts that are those of the piece."""
    return self, model, inputs, return_outputs, None


def counted_here(self, model, inputs, return_outputs, num_items):
    """By hand, and 0 where there is no label."""
    here = int((inputs["labels"] != IGNORED).sum()), len(inputs["labels"])
    return self, model, inputs, return_outputs, torch.tensor(num_items or here)


def labels_filled(self, model, inputs, return_outputs, num_items):
    inputs["labels"].clamp_(min=0)
    return self, model, inputs, return_outputs, num_items


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_the_package, "borrowed", "your answer calls kdcourse.loss.distillation_loss"),
        (repaired(instead=TRAINER.broken), "not attempted", "not attempted yet; 4 of 13 properties hold"),
        (repaired(after=lambda value, *_: None), "error", "a `return` is missing"),
        (repaired(after=lambda value, *_: "loss"), "error", "gives back str"),
        (repaired(after=gives_logits), "different", "has not the student's logits"),
        (repaired(after=lambda value, *_: (value, None)), "different", "nobody asks for outputs, and 2 things"),
        (repaired(after=trains_the_teacher), "different", "modes are as they were: +the teacher is in train mode"),
        (repaired(after=in_eval_mode), "different", "modes are as they were: +the student is in eval mode"),
        (repaired(before=labels_filled), "different", "'labels' holds other numbers"),
        (repaired(before=only_in_one_batch), "misconception", "You return the means of this piece"),
        (repaired(before=counted_here), "misconception", "counts itself: +in a batch without labels the loss is nan"),
        (repaired(after=with_loss(lambda loss: loss * torch.nan)), "different", "the gradient is no number"),
        (repaired(after=with_loss(lambda loss: loss + 1)), "different", "value of the step: +it adds up to"),
        (
            repaired(after=with_loss(lambda loss: 2 * loss)),
            "different",
            "labels weigh 0.60 instead of 0.3; the teacher weighs 1.40",
        ),
        (repaired(after=with_loss(torch.Tensor.item)), "error", "gives back float"),
        (repaired(after=with_loss(lambda loss: loss / 0)), "different", "the gradient is no number"),
        (lambda self, model, inputs: model(**inputs).loss, "error", "TypeError"),
    ],
)
def test_half_a_repair_is_told_what_is_left(answer, kind, words):
    """A repair that passes although a run would go wrong, or fails without a word on what is left."""
    found = diagnose(TRAINER, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


# ---------------------------------------------------------------------------------------------------------------------
# The whole domain


class Model(torch.nn.Module):
    """Answers by a table, and says what it was asked."""

    def __init__(self, draw, size):
        super().__init__()
        self.table = torch.nn.Parameter(draw.logits((50, 4), torch.float32, (size,)))
        self.names = set()

    def forward(self, input_ids, attention_mask, **others):
        self.names |= set(others)
        mask = attention_mask[..., None]
        logits = (self.table[input_ids] * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=logits, loss=logits.sum())


def step(draw):
    """Trainer, batch and counts: one that is legal."""
    size, count, width = draw.one_of(1.0, 3.0, 30.0), draw.integer(1, 5), draw.integer(1, 6)
    mask = torch.ones(count, width, dtype=torch.long)
    for row in range(count):
        mask[row, draw.integer(1, width) :] = 0
    ids = torch.randint(0, 50, (count, width), generator=draw.generator)
    labels = draw.labels((count,), 4)
    alpha, temperature = draw.two()
    trainer = SimpleNamespace(
        args=SimpleNamespace(alpha=alpha, temperature=temperature), model=None, teacher=Model(draw, size)
    )
    labelled = int((labels != IGNORED).sum())
    counts = (max(labelled, 1) + draw.integer(0, 5), count + draw.integer(0, 9))
    items = draw.one_of(counts, None)
    kind = draw.one_of(dict, BatchEncoding)
    return trainer, Model(draw, size), kind({"input_ids": ids, "attention_mask": mask, "labels": labels}), items


def independently(trainer, model, batch, items):
    """In NumPy, row by row."""

    def logits(of):
        table = of.table.detach().double().numpy()
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        return np.stack([np.mean([table[i] for i, real in zip(*row, strict=True) if real], axis=0) for row in rows])

    alpha, temperature = trainer.args.alpha, trainer.args.temperature
    log_p, log_q = (scipy.special.log_softmax(logits(each) / temperature, -1) for each in (model, trainer.teacher))
    soft = temperature**2 * (np.exp(log_q) * (log_q - log_p)).sum()
    known = [row for row, label in enumerate(batch["labels"].tolist()) if label != IGNORED]
    at_one = scipy.special.log_softmax(logits(model), -1)
    hard = -sum(at_one[row, batch["labels"][row]] for row in known)
    labelled, taught = items or (max(len(known), 1), len(log_p))
    return alpha * hard / labelled + (1 - alpha) * soft / taught


def done(compute_loss, seed):
    """Everything that can be seen of one call; an error is one, too."""
    trainer, model, batch, items = step(Draw(seed))
    try:
        loss, outputs = compute_loss(trainer, model, batch, True, items)
        alone = compute_loss(trainer, model, batch, num_items_in_batch=items)
        alone.backward()  # outputs are asked for where nobody learns
        gradient = torch.zeros_like(model.table) if model.table.grad is None else model.table.grad
        seen = [gradient, loss.detach(), alone.detach(), outputs.logits.detach()]
        return seen, [trainer.teacher.table.grad is None, sorted(trainer.teacher.names), sorted(batch)]
    except Exception as error:
        return [], [type(error).__name__]


def alike(first, second):
    pairs = zip(first[0], second[0], strict=False)
    return first[1] == second[1] and all(
        a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3, equal_nan=True)
        for a, b in pairs
    )


def test_the_reference_is_the_objective():
    """A reference that is wrong, so that every right repair is refused."""
    for seed in range(60):
        trainer, model, batch, items = step(Draw(seed))
        found = TRAINER.reference(trainer, model, batch, num_items_in_batch=items).item()
        assert found == pytest.approx(independently(trainer, model, batch, items), rel=1e-3, abs=1e-4)


def holds(compute_loss):
    """Whether all properties do; an answer that stops has none."""
    try:
        return not any(each.broken(compute_loss) for each in TRAINER.properties)
    except Exception:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("answer", [TRAINER.reference, in_one_sum], ids=lambda answer: answer.__name__)
def test_no_mutant_that_differs_passes(answer):
    """A repair that the properties pass, and that does something else in a batch that nobody thought of."""
    expected, passed, tried = [done(answer, seed) for seed in range(40)], [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mutants are told by PyTorch what is wrong with them
        for mutant in list(mutants(answer))[::EVERY]:
            tried += 1
            if not holds(mutant.function):
                continue
            if not all(alike(done(mutant.function, seed), right) for seed, right in enumerate(expected)):
                passed.append(mutant.words)
    assert tried > (200 if DEEP else 5)
    assert not passed
