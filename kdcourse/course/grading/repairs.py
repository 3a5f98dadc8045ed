"""Exercises whose answer and check share a process: a training loop is watched from the networks that it trains.

So the code of such an answer is read before it is run. It may use torch and mathematics, and what Python has for
computing; nothing that looks behind an object, replaces a function, or reaches a file. Python was not made to be held
in this way: it is the one place where a verdict rests on reading code, and the documentation says so.
"""

from __future__ import annotations

import ast
import importlib
import json
import linecache
import os
import sys
from types import ModuleType
from typing import Any

from kdcourse.course.grading.confine import Limits, enter
from kdcourse.course.grading.peer import KINDS, NAME, SOURCE

ROOTS = {"torch", "math", "numpy", "typing", "__future__", "collections", "itertools", "functools", "contextlib"}
PACKAGES = {
    "torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.optim.lr_scheduler", "torch.linalg",
    "torch.special", "torch.random", "torch.autograd", "math", "numpy", "numpy.linalg", "typing", "__future__",
    "collections", "collections.abc", "itertools", "functools", "contextlib",
}  # fmt: skip
"""Modules that may be named."""
BUILTINS = {
    "abs", "all", "any", "bool", "complex", "dict", "divmod", "enumerate", "filter", "float", "frozenset", "int",
    "isinstance", "iter", "len", "list", "map", "max", "min", "next", "object", "pow", "print", "range", "reversed",
    "round", "set", "slice", "sorted", "str", "sum", "super", "tuple", "zip", "staticmethod", "classmethod", "property",
    "hasattr", "Ellipsis", "NotImplemented", *KINDS,
}  # fmt: skip
METHODS = {"__init__", "__call__", "__len__", "__getitem__", "__iter__", "__enter__", "__exit__"}
"""Of a learner's own classes."""
CLOSED = {
    "os", "sys", "builtins", "importlib", "inspect", "gc", "ctypes", "io", "subprocess", "pickle", "multiprocessing",
    "threading", "traceback", "types", "warnings", "serialization", "load", "save", "hub", "package", "jit", "compile",
    "from_file", "fromfile", "tofile", "loadtxt", "savetxt", "memmap", "genfromtxt", "ops", "classes", "library",
    "overrides", "utils", "testing", "storage", "untyped_storage", "share_memory_", "set_", "data_ptr",
    "f_back", "f_globals", "f_locals", "f_builtins", "f_code", "gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame",
    "tb_frame", "tb_next", "mro", "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_module_forward_hook", "register_hook", "wrapped", "func", "lib",
    "ctypeslib", "f2py", "distutils", "modules", "forward", "update_wrapper", "wraps", "partialmethod",
    "get_type_hints", "ForwardRef", "evaluate_forward_ref", "get_annotations",
}  # fmt: skip
"""What no attribute may be called: ways out of what is given, and ways to hear what the check hears."""
ASSIGNED = {"grad", "requires_grad", "data", "training"}
"""Attributes that may be set on what is not one's own `self`."""


def objection(code: str) -> str:
    """What in an answer's code stands against running it beside its check, as the end of a sentence; "" if nothing."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"its code cannot be parsed ({type(error).__name__})"
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if said := _import_objection(node):
                return said
            modules |= _modules_of(node)
    own = _own_names(tree)
    attributes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if said := _objection(node, modules, own, attributes):
            return f"{said}, in line {getattr(node, 'lineno', '?')}"
    return ""


def _import_objection(node: ast.Import | ast.ImportFrom) -> str:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        bad = [name for name in names if name not in PACKAGES]
        return f"it imports {bad[0]}" if bad else ""
    if node.level or node.module not in PACKAGES:
        return f"it imports from {node.module}"
    bad = [name for name in names if name.startswith("_") or name == "*" or name in CLOSED]
    if bad:
        return f"it imports {bad[0]} from {node.module}"
    found = [name for name in names if isinstance(_loaded(f"{node.module}.{name}"), ModuleType)
             and f"{node.module}.{name}" not in PACKAGES]  # fmt: skip
    return f"it imports {found[0]} from {node.module}" if found else ""


def _modules_of(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Names that stand for modules, and which."""
    if isinstance(node, ast.Import):
        names = [(alias.asname, alias.name, alias.name.partition(".")[0]) for alias in node.names]
        return {other or root: name if other else root for other, name, root in names}
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            if isinstance(_loaded(f"{node.module}.{alias.name}"), ModuleType)}  # fmt: skip


def _loaded(name: str) -> Any:
    """What a dotted name stands for, as it is loaded here; None if it is not."""
    root, *rest = name.split(".")
    if root not in ROOTS:
        return None
    found: Any = importlib.import_module(root)
    for part in rest:
        found = getattr(found, part, None)
    return found


def _own_names(tree: ast.AST) -> set[str]:
    """What the code itself gives a meaning, and what it imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names


def _objection(node: ast.AST, modules: dict[str, str], own: set[str], attributes: set[int]) -> str:  # noqa: PLR0911
    if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global | ast.Nonlocal | ast.Match):
        return f"it uses {type(node).__name__}"
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("_") and node.name.strip("_") == "":
        return ""
    if isinstance(node, ast.FunctionDef) and node.name.startswith("__") and node.name not in METHODS:
        return f"it defines {node.name}"
    if isinstance(node, ast.Name):
        if node.id in modules and (not isinstance(node.ctx, ast.Load) or id(node) not in attributes):
            return f"it passes the module {node.id} on, or gives its name another meaning"
        if node.id.startswith("__") or (node.id not in own and node.id not in BUILTINS):
            return f"it uses {node.id}"
    if isinstance(node, ast.Attribute):
        return _attribute_objection(node, modules)
    return ""


def _attribute_objection(node: ast.Attribute, modules: dict[str, str]) -> str:
    if node.attr.startswith("_") and node.attr not in METHODS:
        return f"it uses .{node.attr}"
    chain = ast.unparse(node).split(".")
    is_of_a_module = chain[0] in modules and all(part.isidentifier() for part in chain)
    if node.attr in CLOSED and not (is_of_a_module and node.attr in ("autograd",)):
        return f"it uses .{node.attr}"
    if is_of_a_module:
        if not isinstance(node.ctx, ast.Load):
            return f"it replaces {ast.unparse(node)}"
        name = ".".join([modules[chain[0]], *chain[1:]])
        found = _loaded(name)
        if isinstance(found, ModuleType) and name not in PACKAGES:
            return f"it uses {ast.unparse(node)}"
    elif not isinstance(node.ctx, ast.Load) and node.attr not in ASSIGNED and not _is_of_self(node):
        return f"it sets .{node.attr} of what it was given"
    return ""


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "ctx")


# ---------------------------------------------------------------------------------------------------------------------
# In a process of its own


def main() -> None:
    """Read an answer, check it, and write its diagnosis."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    told = json.load(sys.stdin)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    from kdcourse.course.exercises import calling, diagnosis
    from kdcourse.course.exercises.catalogue import find_exercise
    from kdcourse.course.exercises.kinds.repairs import RepairARun

    calling.SECONDS = told["call_seconds"]
    exercise = find_exercise(told["exercise"])
    if isinstance(exercise, RepairARun):
        exercise.prepare()
    if objection(told["code"]):
        raise ValueError("code that was not read is not run here")
    code = told["code"]
    linecache.cache[SOURCE] = (len(code), None, code.splitlines(keepends=True), SOURCE)
    compiled = compile(code, SOURCE, "exec")
    enter(Limits.read(told["limits"]))
    names: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(compiled, names)  # noqa: S102  (read above, and confined)
        found = diagnosis.diagnose(exercise, names[NAME])
        said = {"kind": found.kind, "message": found.message, "misconception": found.misconception,
                "beside": [list(row) for row in found.beside]}  # fmt: skip
    except Exception as error:
        said = {"kind": "error", "message": f"Its code stopped with {type(error).__name__}: {error}.",
                "misconception": "", "beside": []}  # fmt: skip
    out.write(json.dumps(said))
    out.flush()


if __name__ == "__main__":
    main()
