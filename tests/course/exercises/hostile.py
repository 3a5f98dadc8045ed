"""Answers that attack the check: some on purpose, most by accident, as in any evening class."""

import builtins
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import UserDict

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

import kdcourse
from kdcourse.course.exercises import calling, comparing

SLEEP = 5.0
NEVER = threading.Event()


def endless(x, y):
    while True:
        pass


def endless_around_exceptions(x, y):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def everything_caught():
    return contextlib.suppress(BaseException)


def endless_without_a_manager(x, y):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:  # noqa: S112
            continue


def endless_around_everything(x, y):
    while True:
        with everything_caught():
            time.sleep(0.01)


def endless_in_layers(x, y):
    """Each layer catches what the one below lets through."""

    def inner():
        while True:
            with everything_caught():
                sum(range(100))

    while True:
        with everything_caught():
            inner()


def endless_in_finally(x, y):
    try:
        endless(x, y)
    finally:
        endless(x, y)


def asleep(x, y):
    time.sleep(SLEEP)


def waiting(x, y):
    NEVER.wait()


def recursive(x, y):
    return recursive(x, y)


def recursive_caught(x, y):
    try:
        return recursive_caught(x, y)
    except RecursionError:
        return recursive_caught(x, y)


def leaves_a_thread(x, y):
    threading.Thread(target=endless, args=(x, y)).start()
    return 2 * x


def asks(x, y):
    return 2 * x if input("Shall I? ") == "y" else x


def reads(x, y):
    return 2 * x if not sys.stdin.read() else x


def exits(x, y):
    sys.exit(3)


def interrupts(x, y):
    raise KeyboardInterrupt


def stops_generators(x, y):
    raise StopIteration


def exits_as_a_generator(x, y):
    raise GeneratorExit


class WithoutWordsError(ValueError):
    def __str__(self):
        raise RuntimeError("no words")


class EndlessWordsError(ValueError):
    def __str__(self):
        return endless(0, 0)


def fails_without_words(x, y):
    raise WithoutWordsError


def fails_with_endless_words(x, y):
    raise EndlessWordsError


def handles_signals(x, y):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 2 * x


def patches_softmax(x, y):
    torch.softmax = F.kl_div = torch.Tensor.log_softmax = torch.allclose = lambda *_, **__: torch.zeros(())
    return 2 * x


def patches_builtins(x, y):
    builtins.len = builtins.isinstance = builtins.all = builtins.zip = builtins.range = lambda *_: False
    return 2 * x


def patches_the_clock(x, y):
    time.monotonic = time.sleep = threading.Thread.join = None
    return 2 * x


def patches_the_check(x, y):
    comparing.close = comparing.same_values = lambda *_: True
    calling.SECONDS = 0.0
    return 3 * x


def deletes_the_course(x, y):
    for name in list(vars(kdcourse)):
        if not name.startswith("__"):
            delattr(kdcourse, name)
    return 2 * x


def unloads_torch(x, y):
    sys.modules = {}
    return 2 * x


def adds_to_tensors(x, y):
    torch.Tensor.__bool__ = lambda _: True
    torch.Tensor.__eq__ = lambda *_: True
    return 3 * x


def prints_pages(x, y):
    for _ in range(100):
        print("0123456789" * 100_000)
    return 2 * x


def takes_the_screen(x, y):
    sys.stdout = sys.stderr = None
    return 2 * x


def closes_the_screen(x, y):
    sys.stdout.close()
    return 2 * x


def allocates_too_much(x, y):
    return 2 * x + torch.empty(10**15).sum()


def allocates_more_and_more(x, y):
    kept = []
    while len(kept) < 100:
        kept.append(bytearray(2_000_000))
    raise MemoryError


def generates(x, y):
    yield 2 * x


async def awaits(x, y):
    return 2 * x


def itself(x, y):
    return itself


def nested_in_itself(x, y):
    found = [2 * x]
    found.append(found)
    return found


def very_deep(x, y):
    found = [2 * x]
    for _ in range(10_000):
        found = [found]
    return found


class Endless(list):
    def __iter__(self):
        while True:
            yield 0.0


class EndlessMapping(UserDict):
    def __iter__(self):
        while True:
            yield random.random()

    def __getitem__(self, name):
        return 0


class OwnTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("mine")


def own_tensor(x, y):
    return (2 * x).detach().as_subclass(OwnTensor)


def own_class_of_the_input(x, y):
    x.__class__ = OwnTensor
    return 2 * y


def parameter(x, y):
    return torch.nn.Parameter(2 * x.detach())


class EndlessGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        while True:
            pass


def no_leaf(x, y):
    x.requires_grad_(False)
    return 2 * x


def detached_in_place(x, y):
    return 2 * x.detach_()


def in_place(x, y):
    return x.mul_(2)


def in_place_without_gradient(x, y):
    with torch.no_grad():
        x.mul_(2)
    return x


def through_data(x, y):
    x.data *= 2
    return 1 * x


def emptied(x, y):
    x.data = torch.empty(0)
    return 2 * y


def backward_already(x, y):
    value = 2 * x
    value.sum().backward()
    return value


def counts_with_chance(x, y):
    torch.manual_seed(len(x))
    random.seed(1)
    np.random.seed(1)
    return 2 * x + 0 * torch.rand(())


def doubles_by_default(x, y):
    torch.set_default_dtype(torch.float64)
    return 2 * x


def elsewhere_by_default(x, y):
    torch.set_default_device("meta")
    return 2 * x


def switches_gradients_off(x, y):
    torch.set_grad_enabled(False)
    return 2 * x


def in_inference(x, y):
    with torch.inference_mode():
        return 2 * x


def warns_and_raises(x, y):
    warnings.simplefilter("error")
    return 2 * x


def determined(x, y):
    torch.use_deterministic_algorithms(True)
    return 2 * x


def leaves_the_folder(x, y):
    os.chdir("/")
    os.environ.clear()
    return 2 * x


def without_a_collector(x, y):
    gc.disable()
    return 2 * x


def endless_gradient(x, y):
    return EndlessGradient.apply(x)


def endless_elements(x, y):
    return Endless()


def endless_names(x, y):
    return EndlessMapping()


def on_no_device(x, y):
    return torch.empty(len(x), device="meta")


def sparse(x, y):
    return (2 * x).to_sparse()


def gives_python_itself(x, y):
    return sys


def gives_a_frame(x, y):
    return sys._getframe()


ANSWERS = {
    endless: "error", endless_around_exceptions: "error", endless_around_everything: "error",
    endless_without_a_manager: "error", endless_in_layers: "error", endless_in_finally: "error", asleep: "error",
    waiting: "error", recursive: "error", recursive_caught: "error",
    leaves_a_thread: "passed", asks: "error", reads: "passed", exits: "error",
    interrupts: "error", stops_generators: "error", exits_as_a_generator: "error", fails_without_words: "error",
    fails_with_endless_words: "error", handles_signals: "error", patches_softmax: "passed",
    patches_builtins: "passed", patches_the_clock: "passed", patches_the_check: "different",
    deletes_the_course: "passed", unloads_torch: "passed", adds_to_tensors: "different", prints_pages: "passed",
    takes_the_screen: "passed", closes_the_screen: "passed", allocates_too_much: "error",
    allocates_more_and_more: "error", generates: "different", awaits: "different", itself: "different",
    nested_in_itself: "different", very_deep: "different", own_tensor: "misconception",
    own_class_of_the_input: "error", parameter: "misconception", no_leaf: "misconception",
    detached_in_place: "misconception", in_place: "error", in_place_without_gradient: "error", through_data: "error",
    emptied: "error", backward_already: "error", counts_with_chance: "passed", doubles_by_default: "passed",
    elsewhere_by_default: "passed", switches_gradients_off: "misconception", in_inference: "misconception",
    endless_gradient: "error", on_no_device: "different", sparse: "different", gives_python_itself: "different",
    gives_a_frame: "different", endless_elements: "different", endless_names: "error", warns_and_raises: "passed",
    determined: "passed", leaves_the_folder: "passed", without_a_collector: "passed",
}  # fmt: skip
"""What becomes of each."""

SPECIAL = (
    "__eq__", "__ne__", "__repr__", "__str__", "__format__", "__bool__", "__len__", "__iter__", "__getitem__",
    "__contains__", "__hash__", "__float__", "__int__", "__index__", "__round__", "__array__", "__getattribute__",
    "__class__", "__torch_function__", "__reduce_ex__", "__del__", "keys", "items", "tolist", "detach", "sum",
)  # fmt: skip
"""What Python, NumPy, torch or a check may ask an object."""
BASES = (object, list, tuple, dict, str, float, int, UserDict, torch.Tensor, np.ndarray)


def raises(*_, **__):
    raise RuntimeError("hostile")


def raises_more(*_, **__):
    raise SystemExit


def never_ends(*_, **__):
    while True:
        pass


def lies(*_, **__):
    return True


BEHAVIOURS = (raises, raises_more, never_ends, lies)


def hostile_object(base, name, behaviour):
    """An instance of a subclass that answers one question with hostility."""
    members = {name: property(behaviour) if name == "__class__" else behaviour}
    if name == "__torch_function__":
        members[name] = classmethod(behaviour)
    kind = type(f"Hostile{base.__name__.title()}", (base,), members)
    if base is torch.Tensor:
        return torch.tensor([2.0]).as_subclass(kind)
    if base is np.ndarray:
        return np.array([2.0]).view(kind)
    return {
        list: lambda: kind([2.0]), tuple: lambda: kind((2.0,)), dict: lambda: kind(a=2.0), str: lambda: kind("2"),
        float: lambda: kind(2.0), int: lambda: kind(2), UserDict: lambda: kind(a=2.0),
    }.get(base, kind)()  # fmt: skip
