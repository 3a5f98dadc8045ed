"""What the layers of a model give, caught by hooks while the model is called as it always is (lesson 11)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdcourse.checks import MismatchError
from kdcourse.columns import unwrapped

Seen = Mapping[str, Tensor]
"""What each layer that was asked for has given, by its name."""


OUTPUT = re.compile(r"(hidden_states|attentions)\.(\d+)")
"""Names of what a model of transformers gives beside its logits."""

CLOSE_NAMES = 3


def require_layer(role: str, model: Any, name: str) -> None:
    """A module of the model has this name, or it is one of its outputs.

    Args:
        role: "student" or "teacher".

    Raises:
        MismatchError: neither.
    """
    from transformers import PreTrainedModel

    model = unwrapped(model)
    is_known = isinstance(model, PreTrainedModel)
    if is_known and OUTPUT.fullmatch(name):
        return
    names = [each for each, _ in model.named_modules() if each]
    if name in names:
        return
    close = difflib.get_close_matches(name, names, CLOSE_NAMES) or names[:CLOSE_NAMES]
    outputs = ", or take 'hidden_states.0', 'attentions.0' and so on" if is_known else ""
    raise MismatchError(
        f"features names {name!r}, but the {role} ({type(model).__name__}) has no such module; it has "
        f"{', '.join(map(repr, close))} … See model.named_modules(){outputs}."
    )


@contextmanager
def watched(model: nn.Module, names: Sequence[str], role: str) -> Iterator[dict[str, Tensor]]:
    """What layers of a model give in the last of its calls meanwhile; it is there at the end.

    Raises:
        MismatchError: at the end, a layer that did not run, that ran several times, or that gives no vectors.
    """
    seen: dict[str, Tensor] = {}
    if not names:
        yield seen
        return
    with _calls_of(model, names) as calls:
        yield seen
    for name in names:
        seen[name] = _answer(role, model, name, calls.get(name, []))


@contextmanager
def _calls_of(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """What the modules, and the model itself, have answered in its last call, in the order of their calls."""
    calls: dict[str, list[Any]] = {}
    outputs = {name: found for name in names if (found := _output(model, name))}
    modules = dict(unwrapped(model).named_modules())

    def begin(_: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        calls.clear()
        return arguments, keywords | {f"output_{kind}": True for kind, _ in outputs.values()}

    def keep(name: str, _: nn.Module, arguments: Any, answer: Any) -> None:
        calls.setdefault(name, []).append(answer)

    def end(_: nn.Module, arguments: Any, answer: Any) -> None:
        for name, (kind, number) in outputs.items():
            given = getattr(answer, kind, None) or ()
            calls[name] = [given[number]] if number < len(given) else []

    handles = [model.register_forward_pre_hook(begin, with_kwargs=True), model.register_forward_hook(end)]
    handles += [modules[name].register_forward_hook(partial(keep, name)) for name in set(names) if name not in outputs]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _output(model: nn.Module, name: str) -> tuple[str, int] | None:
    """Of a model of transformers, which of its tuples of outputs, and which of those."""
    from transformers import PreTrainedModel

    found = OUTPUT.fullmatch(name)
    if found is None or not isinstance(unwrapped(model), PreTrainedModel):
        return None
    return found[1], int(found[2])


def _answer(role: str, model: nn.Module, name: str, answers: Sequence[Any]) -> Tensor:
    """The tensor that a layer has given."""
    what = f"{name!r} of the {role} ({type(unwrapped(model)).__name__})"
    if not answers:
        advice = (
            "it gives fewer of them, or none: attentions take attn_implementation='eager' when a model is loaded"
            if _output(model, name)
            else "it did not run, or was compiled before it was watched; name a layer that runs in each forward pass"
        )
        raise MismatchError(f"features asks for {what}, and nothing came: {advice}.")
    if len(answers) > 1:
        raise MismatchError(
            f"features asks for {what}, which runs {len(answers)} times in one forward pass; name a layer that runs "
            "once, or 'hidden_states.i' of a model of transformers."
        )
    (answer,) = answers
    if isinstance(answer, Mapping):
        answer = tuple(answer.values())
    while isinstance(answer, (tuple, list)) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise MismatchError(f"features asks for {what}, which gives {type(answer).__name__}, and no vectors.")
    return answer
