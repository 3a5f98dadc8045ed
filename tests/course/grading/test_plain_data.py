"""Values and calls between two processes: what arrives is what was sent, gradients too, and nothing is run."""

import io
import json
import os
import threading
from collections import UserDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import Exercise, all_exercises
from kdcourse.course.exercises.diagnosis import edges_of, inputs_of
from kdcourse.course.exercises.kinds.faults import NameTheFault
from kdcourse.course.grading.peer import ANSWER, GoneError, Peer, proxy, signature_of
from kdcourse.course.grading.plain import MessageError, pack, receive, send, unpack

VALUES = [
    None, True, 3, 2**60, -1.5, "text", [1, [2.0, ()]], (1, {"a": (2,)}), {1, 2}, frozenset({"x"}), ..., 1 + 2j,
    torch.float64, {("a", 1): [None]}, UserDict(a=[1]),
]  # fmt: skip
TENSORS = [
    torch.arange(6).reshape(2, 3), torch.zeros(0, 4), torch.tensor(1.5), torch.ones(1).expand(5), torch.eye(3).T,
    torch.tensor([1, 2], dtype=torch.bfloat16), torch.tensor([True]), torch.randn(2, 3)[:, ::2], torch.tensor(1j),
]  # fmt: skip


def across(value):
    stream = io.BytesIO()
    tree, tensors = pack(value)
    send(stream, {"value": tree}, tensors)
    stream.seek(0)
    words, tensors = receive(stream)
    return unpack(words["value"], tensors)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_arrives_as_it_was(value):
    """A tuple that becomes a list, and a right answer that is different."""
    assert across(value) == value
    assert type(across(value)) is type(value)


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda each: f"{each.dtype}-{tuple(each.shape)}")
def test_a_tensor_arrives_as_it_was(tensor):
    """Strides, zero elements, and types that NumPy does not know."""
    arrived = across([tensor])[0]
    assert arrived.dtype == tensor.dtype
    assert torch.equal(arrived, tensor)


def test_what_is_no_plain_data_arrives_as_words():
    """An object that takes code along, or a NaN that JSON does not know."""
    assert "object" in across(object())
    assert str(across(float("nan"))) == "nan"
    assert "bits" in across(10**5000)
    assert "sparse" in across(torch.eye(2).to_sparse())


def test_a_record_arrives_with_its_fields():
    """An exercise whose function is given an object, of which nothing is left."""
    arrived = across(Look(torch.tensor([1, -100]), 0.5))
    assert (arrived.labels.tolist(), arrived.accuracy) == ([1, -100], 0.5)


def gives(exercise):
    """What an exercise calls an answer with."""
    if isinstance(exercise, Exercise):
        return [*inputs_of(exercise), *edges_of(exercise)]
    if isinstance(exercise, NameTheFault):
        return [(exercise.run(fault, exercise.seeds[0]),) for fault in exercise.faults]
    return []


@pytest.mark.parametrize(
    "exercise", [each for each in all_exercises().values() if gives(each)], ids=lambda each: each.id
)
def test_what_an_exercise_gives_reaches_a_learners_process(exercise):
    """A right answer that is an error where it is graded: an object of a kind that does not cross."""
    for given in gives(exercise):
        tree, _ = pack(given, lambda function: "function")
        assert "written" not in json.dumps(tree)


@dataclass(frozen=True)
class Look:
    labels: torch.Tensor
    accuracy: float


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\2\0\0\0\0{}", b"\xff" * 8, b"\0\0\0\4\0\0\0\0null", b"\0\0\0\1\0\0\0\0[",
     b"\0\0\0\x22\0\0\0\0" + b'{"tensors":[["int64",[9],false]]} '],
)  # fmt: skip
def test_what_is_no_message_is_said(data):
    """A process that writes into its channel what it likes, and ends the one that reads it."""
    with pytest.raises((MessageError, EOFError)):
        receive(io.BytesIO(data))


@pytest.mark.parametrize(
    "tree",
    [[], {}, {"is": "tensor", "at": 3}, {"is": "tensor", "at": "x"}, {"is": "list"}, {"is": "float", "as": "x"},
     {"is": "array", "of": 3},
     {"is": "set", "of": [{"is": "list", "of": []}]}],
)  # fmt: skip
def test_a_tree_that_nobody_packed_is_said(tree):
    """The same, for what is a message and no value."""
    with pytest.raises(MessageError):
        unpack(tree, [])


@pytest.fixture
def pair():
    """Two peers, the second of which serves a function in a thread: `serve(function)` gives a proxy of it."""
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    ends = ((ours_read, "rb"), (ours_write, "wb"), (theirs_read, "rb"), (theirs_write, "wb"))
    streams = [os.fdopen(*end) for end in ends]
    ours = Peer(streams[0], streams[1], gives_functions=True)
    theirs = Peer(streams[2], streams[3], takes_functions=True)
    thread = threading.Thread(target=theirs.serve_all, args=({},), daemon=True)

    def serve(function):
        theirs.define(function)
        if not thread.is_alive():
            thread.start()
        return proxy(ours, ANSWER, signature_of(function))

    yield serve
    streams[1].close()
    thread.join(timeout=10)
    for stream in (streams[0], streams[2], streams[3]):
        stream.close()


def test_gradients_cross(pair):
    """A right answer that has lost its gradient on the way."""
    function = pair(lambda x, y: (x**2 * y).sum(-1))
    x, y = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[3.0, 4.0]])
    value = function(x, y)
    assert value.tolist() == [19.0]
    (gradient,) = torch.autograd.grad(value.sum(), [x])
    assert gradient.tolist() == [[6.0, 16.0]]
    assert not pair(lambda x, y: (x * y).detach())(x, y).requires_grad


def test_a_function_that_is_passed_on_can_be_called_with_gradients(pair):
    """A learner's test that asks an implementation for its gradient."""

    def test(loss):
        x = torch.tensor([3.0], requires_grad=True)
        loss(x, power=2).backward()
        return x.grad.item()

    assert pair(test)(lambda x, power: (x**power).sum()) == 6.0


def test_what_an_implementation_calls_is_not_told(pair):
    """A learner's test that has a mutant watched, and knows it by the names of what it calls."""

    def asks(loss):
        peer = next(each.cell_contents for each in loss.__closure__ if isinstance(each.cell_contents, Peer))
        tree, tensors = pack([[torch.zeros(2)], {}])
        words, _ = peer._ask({"do": "call", "function": 1, "given": tree, "watch": True}, tensors)
        return sorted(words)

    assert "met" not in pair(asks)(lambda x: torch.nn.functional.softmax(x, dim=-1))


@pytest.mark.parametrize("array", [np.array([True, False]), np.arange(6.0).reshape(2, 3).T, np.array(2)])
def test_an_array_is_an_array(array):
    """A right answer that subtracts what a run gave, true and false, as NumPy lets it and torch does not."""
    arrived = across({"run": [array]})["run"][0]
    assert isinstance(arrived, np.ndarray)
    assert arrived.dtype == array.dtype
    assert arrived.tolist() == array.tolist()


def test_a_shape_is_a_tuple():
    """A right shape that is wrong, because it is one of torch's own."""
    tree, _ = pack(torch.zeros(2, 3).shape)
    assert unpack(tree, []) == (2, 3)


def test_errors_cross_by_type_and_message(pair):
    """`assert` that is no verdict any more; the stub, which is known by its error."""

    def raises(what):
        if what == "own":
            raise type("MyError", (KeyError,), {})("no such key")
        if what == "bare":
            raise NotImplementedError
        assert what == "x", "not x"

    function = pair(raises)
    with pytest.raises(KeyError, match="no such key"):
        function("own")
    with pytest.raises(AssertionError, match="not x"):
        function("y")
    with pytest.raises(NotImplementedError) as error:
        function("bare")
    assert type(error.value) is NotImplementedError
    assert error.value.args == ()


def test_what_is_changed_there_is_changed_here(pair):
    """An answer that changes its inputs, and is not told."""
    x, rows = torch.zeros(2), [[1], [2]]

    def change(x, rows):
        x += 1
        rows[0].append(5)
        return 0

    pair(change)(x, rows)
    assert x.tolist() == [1.0, 1.0]
    assert rows == [[1, 5], [2]]


def test_keywords_are_known_on_this_side(pair):
    """An answer whose last argument has to be named."""
    function = pair(lambda x, *, y: x - y)
    assert signature_of(function) == [["x", 1, False], ["y", 3, False]]
    assert function(5, y=3) == 2


def test_who_is_gone_is_gone():
    """A call that waits for ever."""
    reads, writes = os.pipe()
    os.close(writes)
    with os.fdopen(reads, "rb") as stream:
        peer = Peer(stream, io.BytesIO())
        with pytest.raises(GoneError):
            proxy(peer, ANSWER, None)(1)
