"""All that an exercise may be asked, drawn at random: far wider than the few inputs that the check itself has time for.

What is legal stands in the text of each exercise; each function below says it in code. Nothing is taken from the
declarations of the package, so that a corner that was forgotten there is met here.
"""

import math
from collections import UserDict

import torch
from transformers import BatchEncoding

IGNORED = -100


class Draw:
    """One random choice after the other, of a seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low, high):
        """From low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def one_of(self, *choices):
        return choices[self.integer(0, len(choices) - 1)]

    def uniform(self, low, high):
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def shape(self, dimensions=None):
        dimensions = dimensions or self.integer(1, 3)
        return (*(self.integer(1, 4) for _ in range(dimensions - 1)), self.integer(1, 7))

    def dtype(self):
        return self.one_of(torch.float32, torch.float64)

    def logits(self, shape, dtype, sizes=(0.0, 0.1, 1.0, 3.0, 30.0)):
        """Within a size of which nothing underflows in float32; a row may be moved by a constant."""
        logits = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        logits = logits / logits.abs().max() * self.one_of(*sizes)
        return (logits + self.one_of(0.0, 0.0, 5.0)).to(dtype)

    def pair(self, dimensions=2, far=False):
        """Logits of student and teacher, which may be equal."""
        shape, dtype = self.shape(dimensions), self.dtype()
        sizes = (0.0, 0.1, 1.0, 3.0, 30.0) + ((600.0,) if far else ())
        student, teacher = (self.logits(shape, dtype, sizes) for _ in range(2))
        return (teacher.clone() if self.integer(0, 9) == 0 else student), teacher

    def labels(self, shape, classes, missing=True):
        labels = torch.randint(0, classes, shape, generator=self.generator)
        share = self.one_of(0.0, 0.5, 1.0) if missing else 0.0
        return labels.masked_fill(torch.rand(shape, generator=self.generator) < share, IGNORED)

    def share(self):
        return self.one_of(0.0, 1.0, 0.5, self.uniform(0, 1))

    def temperature(self):
        return self.one_of(1.0, 0.5, 2.0, 20.0, 4, self.uniform(0.5, 8))

    def two(self):
        """alpha and a temperature."""
        return self.share(), self.temperature()

    def probabilities(self, classes):
        return (self.one_of(0.1, 1, 5) * torch.randn(classes, generator=self.generator)).softmax(-1).tolist()

    def scores(self, count):
        return [self.uniform(0.4, 0.9) for _ in range(count)]


def soft_label(draw):
    votes = [draw.one_of(0, draw.integer(0, 9)) for _ in range(9)]
    return ([*votes[:-1], votes[-1] + (sum(votes) == 0)],)


def one_sentence(draw):
    classes = draw.integer(1, 5)
    student, teacher = draw.probabilities(classes), draw.probabilities(classes)
    return student, draw.one_of(teacher, student), draw.one_of(IGNORED, draw.integer(0, classes - 1)), draw.share()


def forward_kl(draw):
    student, teacher = (logits.log_softmax(-1) for logits in draw.pair(draw.integer(1, 3)))
    if student.shape[-1] > 1 and draw.integer(0, 1):
        gone = torch.rand(teacher.shape, generator=draw.generator) < 0.5
        gone[..., 0] = False
        teacher = teacher.masked_fill(gone, -math.inf).log_softmax(-1)
    return student, teacher


def any_pair(draw):
    return draw.pair(draw.integer(1, 3))


def far_pair(draw):
    return draw.pair(2, far=True)


def soft_gradient(draw):
    return *draw.pair(), draw.temperature()


def objective(draw):
    student, teacher = draw.pair(far=True)
    return student, teacher, draw.labels(student.shape[:1], student.shape[-1], missing=False), *draw.two()


def semi(draw):
    student, teacher = draw.pair(far=True)
    return student, teacher, draw.labels(student.shape[:1], student.shape[-1]), draw.share()


def rows(draw):
    lengths = [draw.integer(1, 7) for _ in range(draw.integer(1, 4))]
    pad = draw.one_of(0, 102, 7)
    made = [
        {"input_ids": [draw.one_of(draw.integer(0, 999), pad) for _ in range(length)], "label": draw.integer(0, 3)}
        for length in lengths
    ]
    return [draw.one_of(dict, UserDict, BatchEncoding)(row) for row in made], pad


def share(draw):
    logits = draw.logits(draw.shape(2), draw.dtype(), (0.0, 0.1, 1.0, 3.0, 30.0, 600.0))
    labels = draw.labels(logits.shape[:1], logits.shape[-1])
    return logits, labels, draw.integer(max(int((labels != IGNORED).sum()), 1), 20), draw.integer(1, 8)


def texts(draw):
    count, width = draw.integer(1, 4), draw.integer(2, 9)
    ids, mask = torch.zeros(count, width, dtype=torch.long), torch.zeros(count, width, dtype=torch.long)
    prompts = []
    for row in range(count):
        length = draw.integer(1, width)
        start = draw.one_of(0, width - length)
        ids[row, start : start + length - 1] = torch.randint(1, 50, (length - 1,), generator=draw.generator)
        mask[row, start : start + length] = 1
        prompts.append(draw.integer(0, length))
    return ids, mask, prompts


def divergences(draw):
    shape = (draw.integer(1, 4), draw.integer(1, 7))
    values = torch.rand(shape, generator=draw.generator, dtype=torch.float64) * draw.one_of(0.1, 1.0, 100.0)
    return values.to(draw.dtype()), draw.labels(shape, 50)


def interval(draw):
    count = draw.integer(2, 8)
    return draw.scores(count), draw.scores(count)


def plans(draw):
    tokens, k = draw.integer(1, 5000), draw.integer(1, 200)
    vocabulary = draw.one_of(1000, 32_000, 65_535, 65_536, 65_537, 128_256)
    number = 2 if vocabulary <= 65_536 else 4
    cut, whole = tokens * (k * (2 + number) + 4), tokens * vocabulary * 2
    disk = max(
        draw.one_of(0, cut, whole, draw.integer(0, 2 * cut), draw.integer(0, 2 * whole)) + draw.integer(-1, 1), 0
    )
    prices = (float(draw.integer(1, 10**9)) for _ in range(2))
    return *prices, tokens, draw.integer(1, 5), vocabulary, k, disk


def masked(draw):
    student, teacher = draw.pair(far=True)
    allowed = torch.rand(student.shape[-1:], generator=draw.generator) < draw.one_of(0.3, 0.7, 1.0)
    allowed[draw.integer(0, len(allowed) - 1)] = True
    return student, teacher, allowed


def columns(draw):
    from kdcourse.course.exercises import lesson13

    forwards = (lesson13._bert_forward, lesson13._distilbert_forward, lesson13._wrapped_forward)
    known = [*lesson13.COLUMNS, "label_ids", "kwargs", "token_type_ids_2"]
    order = torch.randperm(len(known), generator=draw.generator).tolist()
    names = [known[index] for index in order[: draw.integer(0, len(known))]]
    return names, draw.one_of(*forwards), draw.one_of([], ["labels"], ["start_positions", "text"])


def biases(draw):
    classes = draw.integer(2, 6)
    logits = 3 * torch.randn(draw.integer(1, 30), classes, generator=draw.generator, dtype=torch.float64)
    missing = draw.integer(0, classes - 1)
    labels = (logits + torch.randn(logits.shape, generator=draw.generator)).argmax(-1)
    logits[:, missing] -= draw.one_of(0.0, 2.0, 5.0)
    shifts = [draw.one_of(0.0, draw.uniform(-6, 6), float(draw.integer(-4, 8))) for _ in range(draw.integer(1, 6))]
    return logits.to(draw.dtype()), labels, missing, shifts


def teachers(draw):
    count, shape = draw.integer(1, 4), draw.shape(2)
    logits = draw.logits((count, *shape), draw.dtype(), (0.0, 0.1, 1.0, 3.0, 30.0, 600.0))
    return logits, draw.temperature()


DOMAINS = {
    "00.soft_label": soft_label, "00.one_sentence": one_sentence, "01.forward_kl": forward_kl, "01.gradient": any_pair,
    "02.kl_per_row": far_pair, "03.soft_gradient": soft_gradient,
    "03.objective": objective, "04.semi": semi, "05.collate": rows, "05.share": share,
    "06.labels": texts, "06.token_mean": divergences,
    "07.interval": interval, "10.budget": plans, "11.bias": biases, "11.mix": teachers,
    "13.masked_kl": masked, "13.kept": columns,
}  # fmt: skip


def inputs_from(exercise, count, first_seed=0):
    return [DOMAINS[exercise](Draw(seed)) for seed in range(first_seed, first_seed + count)]
