"""Two processes that call each other's functions, with gradients that cross from one to the other.

Each waits for the answer to its own call, and serves what the other asks meanwhile: a test that a learner writes calls
the implementations that it is asked about. What crosses is plain data, so neither can make the other run anything but
the functions that it was given.

A gradient: the callee keeps the graph of what it returned; the caller's tensors know whom to ask in `backward()`.
"""

from __future__ import annotations

import builtins
import inspect
import json
import sys
import traceback
from collections import UserDict
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from kdcourse.course.exercises.settling import settled
from kdcourse.course.grading.plain import MessageError, pack, receive, send, unpack

Function = Callable[..., Any]

ANSWER = 0
"""The number of the function that everything is about."""
NAME = "answer_of_this_exercise"
"""What an answer is called in its code."""
SOURCE = "<answer>"
"""What that code is called in tracebacks."""
LONG = 2_000
"""Characters of an error's message."""
KINDS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, BaseExceptionGroup)
}


class GoneError(Exception):
    """The other process has ended, or says what is no message."""


class Peer:
    """This side of a conversation.

    Args:
        gives_functions: functions among the arguments of a call become functions of the other side.
        takes_functions: the same, the other way round.
    """

    def __init__(
        self, reads: IO[bytes], writes: IO[bytes], *, gives_functions: bool = False, takes_functions: bool = False
    ) -> None:
        self._reads, self._writes = reads, writes
        self._gives, self._takes = gives_functions, takes_functions
        self._given: dict[int, Function] = {}
        self._graphs: dict[int, tuple[Sequence[Tensor], Sequence[Tensor]]] = {}
        self._depth = self._calls = 0
        self.is_serving = False
        """Whether the other side waits for something of ours."""
        self.watch = False
        """Whether calls are to say what they call in turn."""
        self.met: set[str] = set()

    # -----------------------------------------------------------------------------------------------------------------
    # Asking

    def define(self, function: Function) -> None:
        """This is the function that the other side calls by `ANSWER`."""
        self._given = {ANSWER: function}

    def call(self, number: int, given: Sequence[Any], named: dict[str, Any]) -> Any:
        """What the other side's function returns.

        Raises:
            GoneError: nobody answers.
            Exception: what the function raised, as an error of the same type, as far as Python has it.
        """
        if self._depth == 0:  # of the call before, nobody asks any more
            self._graphs.clear()
            self._given = {ANSWER: self._given[ANSWER]} if ANSWER in self._given else {}
        tree, tensors = pack([list(given), named], self._give if self._gives else None)
        flags = [tensor.requires_grad and torch.is_grad_enabled() for tensor in tensors]
        sent = [tensor.detach().requires_grad_(flag) for tensor, flag in zip(tensors, flags, strict=True)]
        words, returned = self._ask({"do": "call", "function": number, "given": tree, "watch": self.watch}, sent)
        if words.get("after") is not None:
            self._write_back(given, words["after"], returned)
        inputs = [tensor for tensor, flag in zip(tensors, flags, strict=True) if flag]
        if inputs and any(tensor.requires_grad for tensor in returned):
            graph = words.get("graph")
            differentiable = [tensor.requires_grad for tensor in returned]
            plain = [tensor.detach() for tensor in returned]
            returned = list(_Crossing.apply(self, graph, len(inputs), differentiable, *inputs, *plain))
        else:
            returned = [tensor.detach() for tensor in returned]
        return unpack(words.get("value"), returned)

    def gradients(self, graph: int, gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """With respect to the inputs of a call, given those with respect to what it returned."""
        tree, tensors = pack(list(gradients))
        words, returned = self._ask({"do": "backward", "graph": graph, "given": tree}, tensors)
        found = unpack(words.get("value"), [tensor.detach() for tensor in returned])
        return found if isinstance(found, list) else []

    def ask(self, what: str, **words: Any) -> Any:
        """The other side's answer to a question of its own kind; see `serve`."""
        answer, tensors = self._ask({"do": what, **words}, [])
        return unpack(answer.get("value"), tensors)

    def _ask(self, words: dict[str, Any], tensors: Sequence[Tensor]) -> tuple[dict[str, Any], list[Tensor]]:
        self._depth += 1
        try:
            self._send(words, tensors)
            while True:
                answer, returned = self._receive()
                if answer.get("do") == "value":
                    if isinstance(met := answer.get("met"), list):
                        self.met.update(map(str, met))
                    return answer, returned
                if answer.get("do") == "error":
                    raise error_from(answer)
                self.is_serving = True
                try:
                    self._serve(answer, returned, {})
                finally:
                    self.is_serving = False
        finally:
            self._depth -= 1

    def _send(self, words: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        try:
            send(self._writes, words, tensors)
        except (OSError, ValueError) as error:
            raise GoneError("its process has ended") from error

    def _receive(self) -> tuple[dict[str, Any], list[Tensor]]:
        try:
            words, tensors = receive(self._reads)
        except (EOFError, OSError, ValueError) as error:
            raise GoneError("its process has ended") from error
        except MessageError as error:
            raise GoneError(f"its process sent what is no message: {error}") from error
        if not isinstance(words, dict):
            raise GoneError("its process sent what is no message")
        return words, tensors

    def _give(self, function: Function) -> dict[str, Any]:
        number = max(self._given, default=ANSWER) + 1
        self._given[number] = function
        return {"number": number, "signature": signature_of(function)}

    def _take(self, told: Any) -> Function:
        return proxy(self, int(told["number"]), told["signature"])

    def _write_back(self, given: Sequence[Any], after: Any, tensors: Sequence[Tensor]) -> None:
        """A function that changes its arguments has changed those of its caller."""
        for ours, theirs in zip(given, unpack(after, tensors), strict=False):
            _become(ours, theirs)

    # -----------------------------------------------------------------------------------------------------------------
    # Serving

    def serve_all(self, others: dict[str, Function]) -> None:
        """Answer until the other side has ended.

        Args:
            others: questions that are no calls, by name: each takes the message's words and returns a value.
        """
        while True:
            try:
                words, tensors = self._receive()
            except GoneError:
                return
            self._serve(words, tensors, others)

    def _serve(self, words: dict[str, Any], tensors: Sequence[Tensor], others: dict[str, Function]) -> None:
        try:
            with torch.enable_grad():
                answer, returned = self._answer(words, tensors, others)
            self._send({"do": "value", **answer}, returned)
        except GoneError:
            raise
        except BaseException as error:  # whatever it is, it is the other side's
            self._send(told_of(error), [])

    def _answer(
        self, words: dict[str, Any], tensors: Sequence[Tensor], others: dict[str, Function]
    ) -> tuple[dict[str, Any], list[Tensor]]:
        if words.get("do") == "call":
            return self._answer_call(words, tensors)
        if words.get("do") == "backward":
            inputs, outputs = self._graphs[words["graph"]]
            given = unpack(words["given"], [tensor.detach() for tensor in tensors])
            pairs = [pair for pair in zip(outputs, given, strict=False) if pair[0].requires_grad]
            found = torch.autograd.grad(
                [one for one, _ in pairs], inputs, [two for _, two in pairs], allow_unused=True, retain_graph=True
            )
            tree, returned = pack(list(found))
            return {"value": tree}, returned
        tree, returned = pack(others[str(words.get("do"))](words))
        return {"value": tree}, returned

    def _answer_call(self, words: dict[str, Any], tensors: Sequence[Tensor]) -> tuple[dict[str, Any], list[Tensor]]:
        if self._depth == 0:
            self._graphs.clear()
        function = self._given[words["function"]]
        given, named = unpack(words["given"], tensors, self._take if self._takes else None)
        inputs = [tensor for tensor in tensors if tensor.requires_grad]
        before = _state(given, tensors)
        met: set[str] = set()
        is_watched = self._takes and words.get("watch")  # what ours call, whose names may tell, is nobody's business
        value = watched(function, met)(*given, **named) if is_watched else function(*given, **named)
        tree, returned = pack(settled(value))
        answer: dict[str, Any] = {"value": tree}
        self._calls += 1
        if inputs and any(tensor.requires_grad for tensor in returned):
            self._graphs[self._calls] = (inputs, returned)
            answer["graph"] = self._calls
        if met:
            answer["met"] = sorted(met)
        if _state(given, tensors) != before:
            answer["after"], returned = _pack_more(settled(list(given)), returned)
        return answer, returned


class _Crossing(torch.autograd.Function):
    """Tensors that another process has made of ours."""

    @staticmethod
    def forward(ctx: Any, peer: Peer, graph: int, count: int, differentiable: list[bool], *tensors: Tensor) -> Any:
        ctx.peer, ctx.graph, ctx.count, ctx.others = peer, graph, count, len(tensors) - count
        made = tuple(tensor.clone() for tensor in tensors[count:])
        ctx.mark_non_differentiable(*[each for each, yes in zip(made, differentiable, strict=True) if not yes])
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        found = ctx.peer.gradients(ctx.graph, gradients)
        if len(found) != ctx.count:
            raise RuntimeError("There are not as many gradients as inputs.")
        return (None, None, None, None, *found, *[None] * ctx.others)


class Caller(Protocol):
    """What a proxy needs of a peer."""

    def call(self, number: int, given: Sequence[Any], named: dict[str, Any]) -> Any:
        """See `Peer.call`."""


def proxy(peer: Caller, number: int, signature: Any) -> Function:
    """A function of the other side, with the signature that it has there."""

    def function(*given: Any, **named: Any) -> Any:
        return peer.call(number, given, named)

    function.__name__ = function.__qualname__ = "function"
    if (made := signature_from(signature)) is not None:
        function.__signature__ = made  # type: ignore[attr-defined]
    return function


def signature_of(function: Function) -> list[Any] | None:
    """Name, kind, and whether there is a default; None if nobody can tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[each.name, int(each.kind), each.default is not each.empty] for each in parameters]


def signature_from(told: Any) -> inspect.Signature | None:
    try:
        return inspect.Signature(
            [
                inspect.Parameter(
                    str(name), inspect._ParameterKind(kind), default=None if default else inspect.Parameter.empty
                )
                for name, kind, default in told
            ]
        )
    except (TypeError, ValueError):
        return None


def told_of(error: BaseException) -> dict[str, Any]:
    """An error as words."""
    try:
        message = str(error)[:LONG]
    except Exception:
        message = "its message cannot be shown"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == SOURCE]
    return {
        "do": "error",
        "name": type(error).__name__[:100],
        "kinds": [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"],
        "message": message.encode(errors="backslashreplace").decode(),
        "bare": not error.args,
        "line": (frames[0].line or "")[:200] if frames else "",
    }


def error_from(told: dict[str, Any]) -> Exception:
    """An error of the type that it had, or of the nearest that Python has, with the same message and line."""
    kinds = told.get("kinds")
    known = [str(kind) for kind in kinds if str(kind) in KINDS] if isinstance(kinds, list) else []
    kind = KINDS[known[0]] if known else RuntimeError
    name, message = str(told.get("name"))[:100], str(told.get("message"))[:LONG]
    if told.get("bare") and name == kind.__name__ == "NotImplementedError":
        error: Exception = NotImplementedError()
    else:
        words = {"__str__": lambda self: message}
        made: type[Exception] = type(name if name.isidentifier() else "Error", (kind,), words)
        error = made.__new__(made)
        error.args = (message,)
    error.line_of_answer = str(told.get("line", ""))[:200]  # type: ignore[attr-defined]
    return error


def watched(function: Function, met: set[str]) -> Function:
    """The function, which notes what it calls of torch and of this package, as `module.name`."""

    def listen(frame: Any, event: str, argument: Any) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if event == "call" and module.partition(".")[0] in ("kdcourse", "torch"):
            met.add(f"{module}.{frame.f_code.co_qualname}")

    def watching(*given: Any, **named: Any) -> Any:
        sys.setprofile(listen)
        try:
            return function(*given, **named)
        finally:
            sys.setprofile(None)

    return watching


def _state(given: Any, tensors: Sequence[Tensor]) -> tuple[str, list[int]]:
    """What tells whether something has changed: all but the elements of tensors, whose versions are counted."""
    try:
        tree, _ = pack(given, lambda function: "function")
    except MessageError:
        return "", []
    return json.dumps(tree), [tensor._version for tensor in tensors]


def _pack_more(value: Any, tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """A tree whose tensors follow others, and have no graph."""
    tree, more = pack([*tensors, value])
    return tree["of"][-1], [*tensors, *(each.detach() for each in more[len(tensors) :])]


def _become(ours: Any, theirs: Any) -> None:
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        ours.data = theirs.detach().clone().to(ours.dtype)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) == len(theirs) and any(isinstance(each, list | dict | Tensor) for each in ours):
            for one, other in zip(ours, theirs, strict=True):
                _become(one, other)
        else:
            ours[:] = theirs
    elif isinstance(ours, dict | UserDict) and isinstance(theirs, dict | UserDict):
        ours.clear()
        ours.update(theirs)
