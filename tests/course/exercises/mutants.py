"""Mutants of a function: its source, and that of the helpers that it calls, with one thing changed at a time."""

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType

OURS = ("kdcourse.course.exercises.", "kdcourse.divergence", "course.exercises.", "rewrites")
"""Modules whose functions are mutated where an answer calls them."""

OPERATORS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.Lt: [ast.LtE], ast.LtE: [ast.Lt], ast.Gt: [ast.GtE], ast.GtE: [ast.Gt], ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq], ast.And: [ast.Or], ast.Or: [ast.And], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd],
    ast.In: [ast.NotIn],
}  # fmt: skip
NAMES = {
    "softmax": ["log_softmax"], "log_softmax": ["softmax"], "sum": ["mean", "amax"], "mean": ["sum", "amax"],
    "max": ["min"], "min": ["max"], "stdev": ["pstdev"], "argmax": ["argmin"], "masked_fill": ["masked_fill_"],
    "forward_kl": ["reverse_kl"], "ones_like": ["zeros_like"], "zeros_like": ["ones_like"], "exp": ["expm1"],
    "cumsum": ["cumprod"], "log": ["log1p"],
}  # fmt: skip
WRAPPED = (
    "({}).detach()", "({}).abs()", "({}).clamp(min=1e-6)", "({}).clamp(max=10)", "(({}) + 1e-6)", "({}).half()",
    "({}).to(__import__('torch').bfloat16)", "({}).mean()", "({}).sum()", "({}).exp()", "({}).log_softmax(-1)",
    "({}).softmax(-1)", "({}).softmax(-1).log()", "({}).nan_to_num()", "({}).relu()", "(1 - ({}))", "(-({}))",
    "abs({})", "round({})", "int({})", "({}).squeeze()", "({}).round(decimals=2)", "(2 * ({}))",
)  # fmt: skip
"""What is done to a part of an expression, or to a name."""


@dataclass(frozen=True)
class Mutant:
    """A function that differs from its original in one place."""

    words: str
    function: FunctionType


def mutants(function: FunctionType) -> Iterator[Mutant]:
    """All that compile; most differ from the original, some do not."""
    family = _family(function)
    trees = {name: _tree_of(each) for name, each in family.items()}
    namespace: dict[str, object] = {}
    for each in reversed(family.values()):
        namespace |= each.__globals__ | inspect.getclosurevars(each).nonlocals
    seen = set()
    for name, tree in trees.items():
        original = ast.unparse(tree)
        for words, mutated in _mutations(tree):
            source = ast.unparse(mutated)
            if source == original or source in seen:
                continue
            seen.add(source)
            made = _compiled(trees | {name: mutated}, namespace, function.__name__)
            if made is not None:
                yield Mutant(f"{name}: {words}", made)


def _family(function: FunctionType) -> dict[str, FunctionType]:
    """The function and the helpers of ours that it calls, by the names that it calls them."""
    found = {function.__name__: function}
    todo = [function]
    while todo:
        names = inspect.getclosurevars(todo.pop()).globals
        for name, value in names.items():
            if isinstance(value, FunctionType) and value.__module__.startswith(OURS) and name not in found:
                found[name] = value
                todo.append(value)
    return found


def _tree_of(function: FunctionType) -> ast.FunctionDef:
    """Its definition without what is said of it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{function} is no function with a name")
    tree.decorator_list = []
    tree.returns = None
    for argument in (*tree.args.args, *tree.args.kwonlyargs):
        argument.annotation = None
    if ast.get_docstring(tree):
        tree.body = tree.body[1:]
    return tree


def _compiled(trees: dict[str, ast.FunctionDef], namespace: dict[str, object], name: str) -> FunctionType | None:
    module = ast.fix_missing_locations(ast.Module(copy.deepcopy(list(trees.values())), []))
    scope = dict(namespace)
    try:
        exec(compile(module, "<mutant>", "exec"), scope)  # noqa: S102  (code of this repository)
    except (SyntaxError, ValueError, TypeError):
        return None
    return scope[name]


def _mutations(tree: ast.FunctionDef) -> Iterator[tuple[str, ast.FunctionDef]]:
    places = [index for index, node in enumerate(ast.walk(tree)) if isinstance(node, ast.expr | ast.stmt | ast.slice)]
    for index in places:
        node = list(ast.walk(tree))[index]
        for words, other in _others(node):
            mutated = copy.deepcopy(tree)
            target = list(ast.walk(mutated))[index]
            if _put(mutated, target, other):
                yield words, mutated


def _put(tree: ast.AST, old: ast.AST, new: ast.AST) -> bool:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
                return True
            if isinstance(value, list) and any(part is old for part in value):
                value[[part is old for part in value].index(True)] = new
                return True
    return False


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _others(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    said = ast.unparse(node)
    for other in _replacements(node):
        yield f"{said} → {ast.unparse(other)}", other


def _replacements(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912  (one for each kind of node)
    match node:
        case ast.BinOp(left, operator, right):
            yield from (_changed(node, op=kind()) for kind in OPERATORS.get(type(operator), []))
            yield from (left, right, _changed(node, left=right, right=left))
        case ast.Compare(left, [operator], [right]):
            yield from (_changed(node, ops=[kind()]) for kind in OPERATORS.get(type(operator), []))
            yield from (_changed(node, left=right, comparators=[left]), ast.Constant(True), ast.Constant(False))
        case ast.BoolOp(operator, values):
            yield from (_changed(node, op=kind()) for kind in OPERATORS.get(type(operator), []))
            for place in range(len(values)):
                yield _changed(node, values=[part for index, part in enumerate(values) if index != place] * 2)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.IfExp(_, body, otherwise):
            yield from (body, otherwise)
        case ast.If(_, body, otherwise):
            yield from (_changed(node, test=ast.Constant(True)), _changed(node, test=ast.Constant(False)))
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1), ast.Constant(0), ast.Constant(2 * value))
            yield ast.UnaryOp(ast.USub(), ast.Constant(value))
        case ast.Constant(str() as value):
            yield from (ast.Constant(other) for other in ("sum", "mean", "batchmean", "none", "labels", "label"))
        case ast.Slice():
            yield from (_changed(node, lower=None), _changed(node, upper=None))
        case ast.Dict(keys, values) if len(keys) > 1:
            for place in range(len(keys)):
                kept = [index for index in range(len(keys)) if index != place]
                yield _changed(node, keys=[keys[i] for i in kept], values=[values[i] for i in kept])
        case ast.Set(elements) | ast.Tuple(elements) | ast.List(elements) if len(elements) > 1:
            for place in range(len(elements)):
                yield _changed(node, elts=[part for index, part in enumerate(elements) if index != place])
    match node:
        case ast.Call(function, arguments, keywords):
            for place in range(len(keywords)):
                yield _changed(node, keywords=[part for index, part in enumerate(keywords) if index != place])
            if len(arguments) > 1:
                yield _changed(node, args=[arguments[1], arguments[0], *arguments[2:]])
            if isinstance(function, ast.Attribute):
                yield function.value
                yield from (_changed(node, func=_changed(function, attr=name)) for name in NAMES.get(function.attr, []))
            if isinstance(function, ast.Name):
                yield from (_changed(node, func=ast.Name(name, ast.Load())) for name in NAMES.get(function.id, []))
            yield from arguments[:2]
        case ast.Subscript(value, _):
            yield value
    is_read = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
    if isinstance(node, ast.Name | ast.Call | ast.BinOp | ast.Subscript | ast.Attribute) and is_read:
        said = ast.unparse(node)
        yield from (ast.parse(form.format(said), mode="eval").body for form in WRAPPED)
