"""Losses that cannot be diagnosed as they are, or only in part: each by what stands in the way."""

import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import nn

CALLS = []


def kl(student, teacher):
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


def hangs(student, teacher):
    while True:
        pass


def hangs_and_holds_on(student, teacher):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:  # noqa: S112
            continue


def sleeps(student, teacher):
    time.sleep(30)


def hangs_at_the_tenth_call(student, teacher):
    CALLS.append(1)
    return kl(student, teacher) if len(CALLS) < 10 else hangs(student, teacher)


class EndlessGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, value):
        return 1 * value

    @staticmethod
    def backward(context, gradient):
        while True:
            pass


class FailingGradient(EndlessGradient):
    @staticmethod
    def backward(context, gradient):
        raise NotImplementedError("no backward yet")


def hangs_backward(student, teacher):
    return EndlessGradient.apply(kl(student, teacher))


def fails_backward(student, teacher):
    return FailingGradient.apply(kl(student, teacher))


def hangs_without_a_name(a, b, c):
    return hangs(a, b)


class HangsWhenMade(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        hangs(0, 0)

    def forward(self, student, teacher):
        return kl(student, teacher)


class FailsWhenMade(HangsWhenMade):
    def __init__(self, temperature):
        raise FileNotFoundError("teacher.safetensors")


def prints(student, teacher):
    print("page\n" * 10_000)
    return kl(student, teacher)


def asks(student, teacher):
    return kl(student, teacher) * float(input("Which weight? "))


def exits(student, teacher):
    sys.exit("bye")


def raises_an_interrupt(student, teacher):
    raise KeyboardInterrupt


def raises_what_is_no_exception(student, teacher):
    raise BaseException("base")


class WithoutWordsError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def fails_without_words(student, teacher):
    raise WithoutWordsError


def wants_a_gpu(student, teacher):
    return kl(student.cuda(), teacher.cuda()) if not torch.cuda.is_available() else exits(student, teacher)


def is_nan(student, teacher):
    return kl(student, teacher) * float("nan")


def is_infinite(student, teacher):
    return kl(student, teacher) + float("inf")


def is_constant(student, teacher):
    return torch.ones(())


def counts_steps(student, teacher):
    CALLS.append(1)
    return kl(student, teacher) / len(CALLS)


def in_place_and_off(student, teacher):
    student.zero_()
    return kl(student, teacher)


def resizes(student, teacher):
    student.data = torch.zeros(1)
    return kl(teacher, teacher)


def on_meta(student, teacher):
    return kl(student, teacher).to("meta")


def is_sparse(student, teacher):
    return kl(student, teacher).reshape(1).to_sparse()


def is_complex(student, teacher):
    return kl(student, teacher).to(torch.complex64)


def is_empty(student, teacher):
    return student[:0].sum(-1)


def is_nothing(student, teacher):
    return None


def is_a_generator(student, teacher):
    yield kl(student, teacher)


async def is_awaited(student, teacher):
    return kl(student, teacher)


def is_itself(student, teacher):
    found = []
    found.append(found)
    return found


def is_unreduced(student, teacher):
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="none")


def of_halves(student, teacher):
    return kl(student, teacher).half()


def of_images(student, teacher):
    return F.mse_loss(student.permute(0, 3, 1, 2), teacher.permute(0, 3, 1, 2))


def switches(student, teacher):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    sys.stdout = None
    return kl(student, teacher)


NOT_DIAGNOSED = (
    "hangs", "hangs_and_holds_on", "sleeps", "hangs_at_the_tenth_call", "hangs_backward", "hangs_without_a_name",
    "HangsWhenMade", "FailsWhenMade", "asks", "exits", "raises_an_interrupt", "raises_what_is_no_exception",
    "fails_without_words", "wants_a_gpu", "on_meta", "is_sparse", "is_complex", "is_empty", "is_nothing",
    "is_a_generator", "is_awaited", "is_itself", "of_images",
)  # fmt: skip
"""Those of which nothing can be said but why."""
DIAGNOSED = {
    "fails_backward": ("gradient", "error"), "prints": ("prints", "yes"), "is_nan": ("direction", "nan"),
    "is_infinite": ("direction", "infinite"), "is_constant": ("direction", "none"),
    "counts_steps": ("direction", "changes"), "in_place_and_off": ("in_place", "yes"),
    "resizes": ("direction", "none"), "is_unreduced": ("divisor", "per_class"), "of_halves": ("sixteen_bits", "always"),
    "switches": ("gradient", "none"),
}  # fmt: skip
"""Those of which something can be said: to a question, an answer."""
