"""Anybody's loss, called by what its arguments mean and not by what they are called."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcourse.course.diagnose.batches import Batch, draw
from kdcourse.course.exercises.calling import OutOfTimeError, call_in_thread
from kdcourse.course.exercises.keeping import cut_short
from kdcourse.course.misuse import MisuseError

ROLES = {
    "student": "the student's logits",
    "teacher": "the teacher's logits",
    "labels": "the labels",
    "mask": "the mask of the tokens that count",
    "temperature": "the temperature",
    "weight": "the weight that mixes labels and teacher",
    "hard_weight": "the weight of the labels' term",
    "soft_weight": "the weight of the teacher's term",
    "beta": "the beta of Jensen-Shannon",
    "classes": "the mask of the classes that are allowed",
    "vocabulary": "the number of tokens that both models know",
}

NAMES = {
    "classes": "allowed allowed_classes class_mask classes_mask valid_classes legal legal_classes vocab_mask",
    "vocabulary": "tokens vocab_size vocabulary_size true_vocab_size shared_vocabulary shared_vocab num_tokens "
    "n_tokens tokenizer_size shared_tokens common_tokens",
    "hard_weight": "ce_weight hard_weight weight_hard_loss alpha_ce w_ce w_hard ce_loss_weight lambda_ce",
    "soft_weight": "kd_weight kl_weight soft_weight weight_soft_loss alpha_kd w_kd w_soft distill_weight "
    "kd_loss_weight soft_target_loss_weight lambda_kd",
    "mask": "mask attention_mask loss_mask response_mask completion_mask label_mask",
    "temperature": "temperature temp tau kd_temperature kd_temp temperature_kd kd_t",
    "beta": "beta jsd_beta",
    "weight": "alpha lambda lmbda lam lambd kd_ratio ratio gamma weight w mix mixing kd_alpha alpha_param",
    "labels": "labels label y hard_labels hard_targets hard_target ground_truth gt true_labels y_true hard",
    "student": "student outputs output preds pred input inputs logits log_probs prediction predictions y_pred y_hat s",
    "teacher": "teacher soft_targets soft_target soft_labels reference ref knowledge soft",
}
"""What people call them, in small letters and without underscores at the ends."""
PARTS = {"teacher": {"teacher", "t", "tea", "tch", "tchr"}, "student": {"student", "s", "stu", "stud", "stdt"}}
"""What a longer name has between its underscores: teacher_outputs, logits_s, y_t."""
LAST_PARTS = {
    "labels": {"label", "labels"}, "mask": {"mask"}, "temperature": {"temperature", "temp", "tau"},
    "weight": {"alpha", "lambda", "lmbda", "lam"}, "beta": {"beta"},
}  # fmt: skip
"""What counts in a name that says nothing of student or teacher: distill_temperature, kd_alpha."""
DOUBTFUL = {
    "target": ("teacher", "labels"), "targets": ("labels", "teacher"), "t": ("temperature", "teacher"),
    "true": ("labels",), "x": ("student",),
}  # fmt: skip
SETTINGS = {"params", "args", "config", "cfg", "opt", "opts", "hparams", "options", "param"}
"""Arguments that are objects with a temperature and an alpha inside."""

FEEDS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "logits": lambda s, t, _: (s, t),
    "teacher_probabilities": lambda s, t, temperature: (s, (t / temperature).softmax(-1)),
    "log_probabilities_and_probabilities": lambda s, t, temperature: (
        (s / temperature).log_softmax(-1), (t / temperature).softmax(-1),
    ),
    "log_probabilities": lambda s, t, temperature: (
        (s / temperature).log_softmax(-1), (t / temperature).log_softmax(-1),
    ),
    "probabilities": lambda s, t, temperature: ((s / temperature).softmax(-1), (t / temperature).softmax(-1)),
}  # fmt: skip
"""What a loss may want in the place of logits, softened by its caller."""

SECONDS = 20.0
"""For one call of a loss; the first may have to compile something."""

Asked = Callable[[str, Sequence[str]], str]
"""A question about a role and the names in doubt; the answer is one of them."""


class CannotCallError(MisuseError):
    """The loss cannot be called with logits, labels and settings."""


class HangsError(MisuseError):
    """The loss takes too long; nothing more is tried."""


class ForeignLoss:
    """A function, an instance with a `forward`, or a class that is made anew for each temperature and weight.

    Args:
        function: the loss.
        roles: from a role to the name of the argument that has it, where the name does not say so.
        ask: whom to ask about an argument that neither its name nor trying explains; nobody if not given.
        seconds: how long one call may take.

    Raises:
        MisuseError: an argument is not explained, or a role is not known.
    """

    def __init__(
        self,
        function: Any,
        roles: Mapping[str, str] | None = None,
        ask: Asked | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.function = function
        self.seconds = seconds
        self.name = getattr(function, "__name__", type(function).__name__)
        self.called = _parameters(_callee(function))
        self.made = _parameters(function) if inspect.isclass(function) else {}
        self.held = _numbers_of(function)
        self.changes_its_inputs = self.prints = False
        self.feed = "logits"
        """What student and teacher are given as, one of FEEDS."""
        self.roles = self._roles(dict(roles or {}), ask)

    def __repr__(self) -> str:
        return ", ".join(f"{name} is {ROLES[role]}" for role, name in self.roles.items())

    def has(self, role: str) -> bool:
        if role == "weight":
            return bool({"weight", "hard_weight", "soft_weight"} & self.roles.keys())
        return role in self.roles

    def __call__(self, batch: Batch, special: Mapping[str, Any] | None = None, /, **settings: float | None) -> Tensor:
        """The loss: one number, or one for each row.

        Args:
            batch: what it is given.
            special: by their roles, which classes are allowed, if not all are, and how many tokens both models know, if
                the narrower one knows less than it has logits.
            settings: temperature, weight and beta.

        Raises:
            CannotCallError: it stopped, or returned nothing that could be a loss.
        """
        copies = batch.student.clone(), batch.teacher.clone()  # so that it may work in place, and it is seen
        student, teacher = FEEDS[self.feed](*copies, (self.has("temperature") and settings.get("temperature")) or 1.0)
        given: dict[str, Any] = {
            "student": student, "teacher": teacher, "labels": batch.labels, "mask": batch.labelled,
            "classes": torch.ones(student.shape[-1], dtype=torch.bool),
            "vocabulary": min(student.shape[-1], teacher.shape[-1]),
            **(special or {}), **{role: value for role, value in settings.items() if value is not None},
        }  # fmt: skip
        if "weight" in given:
            weight = given["weight"]
            given |= {"hard_weight": weight, "soft_weight": 1 - weight if "hard_weight" in self.roles else weight}
        values = {name: given[role] for role, name in self.roles.items() if role in given}
        result = self.in_time(lambda: value_of(self._call(values, given)))
        self.changes_its_inputs |= any(logits._version for logits in copies)
        return result

    def in_time(self, call: Callable[[], Any]) -> Any:
        """What a call gives that runs code of the loss.

        Raises:
            CannotCallError: it raised something.
            HangsError: it took too long.
        """
        with cut_short(0) as printed:
            value, error = call_in_thread(call, (), self.seconds)
        self.prints |= any(stream.left_out for stream in printed)
        if isinstance(error, OutOfTimeError):
            raise HangsError(
                f"{self.name} was still running after {self.seconds:g} seconds; --seconds gives it longer."
            )
        if isinstance(error, CannotCallError):
            raise error
        if error is not None:
            raise CannotCallError(f"{self.name} stopped with {type(error).__name__}: {error}") from error
        return value

    def gradients(self, value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Those of the sum of its value; 0 for what does not reach it.

        Raises:
            CannotCallError: as for a call.
        """
        found = self._gradients(value, inputs)
        return tuple(torch.zeros_like(of) if each is None else each for each, of in zip(found, inputs, strict=True))

    def reaches(self, value: Tensor, logits: Tensor) -> bool:
        """Whether there is a way from a value back to these logits."""
        return self._gradients(value, (logits,))[0] is not None

    def _gradients(self, value: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = self.in_time(
            lambda: torch.autograd.grad(value.sum(), inputs, retain_graph=True, allow_unused=True)
        )
        return found

    def _call(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        function = self.function
        if inspect.isclass(function):
            function = function(**{name: value for name, value in values.items() if name in self.made})
        elif held := {name: value for name, value in values.items() if name in self.held}:
            function = copy.copy(function)
            vars(function).update(held)
        positional, keywords = [], {}
        for name, parameter in self.called.items():
            if name in values:
                value = values[name]
            elif name in SETTINGS:
                value = Settings(given)
            else:
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                keywords[name] = value
        return function(*positional, **keywords)

    # -----------------------------------------------------------------------------------------------------------------

    def _roles(self, roles: dict[str, str], ask: Asked | None) -> dict[str, str]:
        names = list({**self.called, **self.made, **self.held})
        for role, name in roles.items():
            if role not in ROLES:
                raise MisuseError(f"There is no role {role!r}; there are {', '.join(ROLES)}.")
            if name not in names:
                raise MisuseError(f"{self.name} has no argument {name!r}; it has {', '.join(names)}.")
        roles = roles_of_names(names, roles)
        roles |= {role: role for role in self._in_settings(roles)}
        unknown = self._unexplained(roles)
        if unknown or not {"student", "teacher"} <= roles.keys():
            roles = self._by_trying(roles, unknown) or self._by_asking(roles, ask)
        return self._without_what_fails(roles)

    def _without_what_fails(self, roles: dict[str, str]) -> dict[str, str]:
        """A beta that goes with another divergence than the default is left alone."""
        self.roles = roles
        if "beta" not in roles or any(True for _ in _trials(self)):
            return roles
        self.roles = {role: name for role, name in roles.items() if role != "beta"}
        return self.roles if any(True for _ in _trials(self)) else roles

    def _unexplained(self, roles: Mapping[str, str]) -> list[str]:
        """Arguments that must be given, and whose role is not known."""
        return [
            name
            for name, parameter in {**self.called, **self.made}.items()
            if parameter.default is parameter.empty and name not in roles.values() and name not in SETTINGS
        ]

    def _in_settings(self, roles: Mapping[str, str]) -> set[str]:
        """What the loss takes out of an object with settings."""
        if not SETTINGS & self.called.keys():
            return set()
        asked: set[str] = set()
        batch = draw((3, 4))
        self.roles = dict(roles)
        values = {name: getattr(batch, role) for role, name in roles.items() if hasattr(batch, role)}
        with suppress(CannotCallError):
            self.in_time(lambda: self._call(values, Recorder(asked)))
        return asked

    def _by_trying(self, roles: dict[str, str], unknown: Sequence[str]) -> dict[str, str]:
        """The only assignment under which the loss behaves; none if there are several."""
        missing = [role for role in ("student", "teacher", "labels", "temperature", "weight") if role not in roles]
        found = []
        for chosen in itertools.permutations(missing, len(unknown)):
            self.roles = roles | dict(zip(chosen, unknown, strict=True))
            if {"student", "teacher"} <= self.roles.keys() and self._behaves():
                found.append(self.roles)
        if len(found) > 1:
            found = [each for each in found if self._ignores_a_constant(each)]
        return found[0] if len(found) == 1 else {}

    def _ignores_a_constant(self, roles: dict[str, str]) -> bool:
        """Whether a constant that is added to a row of the teacher's logits has no say, as it has none in a softmax."""
        self.roles = roles
        settings = {"temperature": 2.0, "weight": 0.3}
        return any(
            torch.allclose(self(batch, **settings), self(replace(batch, teacher=batch.teacher + 1), **settings))
            for batch in _trials(self)
        )

    def _behaves(self) -> bool:
        """Labels move the student's gradient, the weight is a straight line, and the temperature is not."""
        try:
            if "labels" not in self.roles:
                return False  # student and teacher cannot be told apart
            return _labels_move_the_student(self) and all(
                _is_straight(self, role) == (role == "weight")
                for role in ("temperature", "weight")
                if role in self.roles
            )
        except (CannotCallError, RuntimeError):
            return False

    def _by_asking(self, roles: dict[str, str], ask: Asked | None) -> dict[str, str]:
        for role in ("student", "teacher"):
            open_names = [name for name in self.called if name not in roles.values()]
            if role not in roles and ask and open_names:
                roles[role] = ask(f"the argument with {ROLES[role]}", open_names)
        for name in self._unexplained(roles):
            if ask:
                open_roles = [role for role in ROLES if role not in roles]
                roles[ask(f"the role of {name}", open_roles)] = name
        missing = [role for role in ("student", "teacher") if role not in roles]
        unknown = self._unexplained(roles)
        if missing or unknown:
            words = [f"no argument is known to be {ROLES[role]}" for role in missing]
            words += [f"it is not known what {name} is" for name in unknown]
            names = ", ".join({**self.called, **self.made, **self.held})
            example = f"{(missing or ['teacher'])[0]}={(unknown or ['name'])[0]}"
            raise MisuseError(
                f"Of {self.name}({names}), {' and '.join(words)}. Say it with --argument {example}, where the roles "
                f"are {', '.join(ROLES)}; what is none of them needs a default, or a function around it."
            )
        return roles


class Settings(dict[str, Any]):
    """An object with whatever temperature and alpha a loss reads from it, as attributes or keys."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.given = given

    def __missing__(self, name: str) -> Any:
        for role in possible_roles(name):
            if role in self.given:
                return self.given[role]
        raise KeyError(name)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Recorder(dict[str, Any]):
    """Settings that remember which were asked for."""

    def __init__(self, asked: set[str], given: Mapping[str, float] | None = None) -> None:
        defaults = {"temperature": 2.0, "weight": 0.3, "hard_weight": 0.3, "soft_weight": 0.7, "beta": 0.3}
        super().__init__(defaults | dict(given or {}))
        self.asked = asked

    def __getitem__(self, role: str) -> Any:
        self.asked.add(role)
        return super().__getitem__(role)


def load(path: str) -> Any:
    """What `package.module:function`, or `file.py:function`, names.

    Raises:
        MisuseError: there is no such thing.
    """
    module_name, colon, name = path.rpartition(":")
    if not (colon and module_name and name):
        raise MisuseError(f"{path!r} names no loss; write package.module:function, or file.py:function.")
    try:
        thing = _module(module_name)
        for part in name.split("."):
            thing = getattr(thing, part)
    except AttributeError:
        raise MisuseError(f"There is no {name!r} in {module_name}.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script may end as soon as it is imported
        raise MisuseError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(thing):
        raise MisuseError(f"{path} is no function and no class, but {type(thing).__name__}.")
    return thing


def _module(name: str) -> Any:
    if name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        if spec is None or spec.loader is None:
            raise ImportError(name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: what stands in this folder can be imported
    return importlib.import_module(name)


def value_of(result: Any) -> Tensor:
    """The loss in what was returned: itself, the member called loss or total, or the first one.

    Raises:
        CannotCallError: there is no number in it.
    """
    for name in ("loss", "total", "total_loss"):
        if isinstance(result, Mapping) and name in result:
            return value_of(result[name])
        if not isinstance(result, (Tensor, Mapping)) and isinstance(member := getattr(result, name, None), Tensor):
            return require_numbers(member)
    if isinstance(result, Mapping):
        return value_of(next(iter(result.values()), None))
    if isinstance(result, (tuple, list)) and result:
        return value_of(result[0])
    if isinstance(result, Tensor) and result.is_floating_point():
        return require_numbers(result)
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        return torch.tensor(result, dtype=torch.float64)
    raise CannotCallError(f"it returned {type(result).__name__}, which is no loss")


def require_numbers(value: Tensor) -> Tensor:
    """The value, on the CPU.

    Raises:
        CannotCallError: it has none, or too many to be a loss.
    """
    if value.is_meta or value.layout != torch.strided:
        what = "the device meta, where nothing is computed" if value.is_meta else str(value.layout)
        raise CannotCallError(f"it returned a tensor of {what}, which is no loss")
    if not value.numel():
        raise CannotCallError(f"it returned a tensor of shape {tuple(value.shape)}, in which there is no number")
    return value.cpu()


def possible_roles(name: str) -> list[str]:
    """Roles that a name may mean, likeliest first."""
    if name == "T":
        return ["temperature"]
    plain = name.strip("_").lower()
    if plain in DOUBTFUL:
        return list(DOUBTFUL[plain])
    for role, names in NAMES.items():
        if plain in names.split():
            return [role]
    parts = set(plain.split("_"))
    found = [role for role, known in PARTS.items() if parts & known]
    return found or [role for role, known in LAST_PARTS.items() if parts & known]


def roles_of_names(names: Iterable[str], roles: Mapping[str, str]) -> dict[str, str]:
    """The roles of names: first of those that can mean one thing only, then of the others, in order."""
    found = dict(roles)
    waiting = [(name, possible_roles(name)) for name in names if name not in found.values()]
    for name, possible in sorted(waiting, key=lambda each: len(each[1])):
        free = [role for role in possible if role not in found]
        if name == "t" and "s" in [each for each, _ in waiting] and "teacher" in free:
            free = ["teacher"]
        if free:
            found[free[0]] = name
    if "soft_weight" in found and "hard_weight" not in found and "weight" not in found:
        found["weight"] = found.pop("soft_weight")
    return found


def _callee(function: Any) -> Any:
    if inspect.isclass(function):
        method = getattr(function, "forward", None) or function.__call__
        return _without_self(method)
    return function.forward if isinstance(function, nn.Module) else function


def _without_self(method: Any) -> inspect.Signature:
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return inspect.Signature(parameters)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Those that have a name; *args and **kwargs are left out."""
    try:
        signature = function if isinstance(function, inspect.Signature) else inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise MisuseError(f"The arguments of {function!r} cannot be read; put a function around it: {error}.") from None
    unnamed = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return {name: parameter for name, parameter in signature.parameters.items() if parameter.kind not in unnamed}


def _numbers_of(function: Any) -> dict[str, float]:
    """The settings that an instance carries."""
    if not isinstance(function, nn.Module):
        return {}
    return {
        name: value
        for name, value in vars(function).items()
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and set(possible_roles(name)) & {"temperature", "weight", "beta"}
    }


def _trials(loss: ForeignLoss) -> Iterator[Batch]:
    """The shapes that the loss takes, with all labels."""
    for shape in ((5, 4), (2, 5, 4)):
        try:
            batch = draw(shape)
            loss(batch, temperature=2.0, weight=0.3, beta=0.3)
            yield batch
        except CannotCallError:
            continue


def _labels_move_the_student(loss: ForeignLoss) -> bool:
    """Another label is another gradient of the student, and the same of the teacher."""
    for batch in _trials(loss):
        gradients = []
        for shift in (0, 1):
            trial = batch.with_gradient()
            trial = Batch(trial.student, trial.teacher, (batch.labels + shift) % 4)
            value = loss(trial, temperature=2.0, weight=0.3)
            gradients.append(loss.gradients(value, trial.student, trial.teacher))
        (student, teacher), (other_student, other_teacher) = gradients
        return not torch.allclose(student, other_student) and torch.allclose(teacher, other_teacher)
    return False


def _is_straight(loss: ForeignLoss, role: str) -> bool:
    """Whether the value halfway between two settings is halfway between the values."""
    for batch in _trials(loss):
        settings = {"temperature": 2.0, "weight": 0.3}
        low, middle, high = (loss(batch, **settings | {role: value}).sum() for value in (0.25, 0.5, 0.75))
        return bool(torch.isclose(low + high, 2 * middle, rtol=1e-9))
    return False
