"""Pages that are written from the package: what each module offers, each command, and what each mistake looks like."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from kdcourse.course.cli import app
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.lessons import Lesson, source_of

ROW = re.compile(r"^\| `kdcourse\.(?P<module>\w+)` \| (?P<summary>.+) \| (?P<lessons>.+) \| .+ \|$", re.MULTILINE)
SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")
ITEM = re.compile(r"^ {4}(\S[^:]*): (.*)$")
CODE = re.compile(r"(``.*?``|`[^`]*`)", re.DOTALL)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def module_pages(contributing: str, package: Path, lessons: Mapping[str, Lesson]) -> dict[str, str]:
    """A page for each module of the library, by its name; its lessons are those of CONTRIBUTING's table."""
    return {
        row["module"]: _module_page(row["module"], row["lessons"], package, lessons)
        for row in ROW.finditer(contributing)
    }


def summaries(contributing: str) -> dict[str, str]:
    """What each module holds, by its name, as CONTRIBUTING's table says it."""
    return {row["module"]: row["summary"] for row in ROW.finditer(contributing)}


def _module_page(name: str, numbers: str, package: Path, lessons: Mapping[str, Lesson]) -> str:
    tree = ast.parse((package / f"{name}.py").read_text(encoding="utf-8"))
    links = [_lesson_link(lessons[number]) for number in numbers.split(", ") if number in lessons]
    parts = [f"# kdcourse.{name}", *_prose(ast.get_docstring(tree) or "")]
    if links:
        parts.append(f"Explained in {', '.join(links)}.")
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            parts += _definition(node, "##")
    return "\n\n".join(parts) + "\n"


def _lesson_link(lesson: Lesson) -> str:
    return f"[{lesson.title}](../notebooks/{lesson.path.name})"


def _definition(node: Definition, level: str) -> Iterator[str]:
    """A function or a class, with what is public of it."""
    yield f"{level} {node.name}"
    yield f"```python\n{_signature(node)}\n```"
    yield from _prose(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
        yield from _fields(node.body)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and ast.get_docstring(part):
                yield from _definition(part, level + "#")


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    bare = ast.FunctionDef(node.name, node.args, [ast.Expr(ast.Constant(...))], [], node.returns, type_params=[])
    line = ast.unparse(ast.fix_missing_locations(bare)).partition("\n")[0].removesuffix(":")
    if len(line) <= 100:  # noqa: PLR2004  (what fits on the page)
        return line
    head, _, rest = line.partition("(")
    inside, _, end = rest.rpartition(")")
    arguments = re.split(r", (?=\*?\w+(?::|=|,|$)|\*,)", inside)
    return "\n".join([f"{head}(", *(f"    {each}," for each in arguments), f"){end}"])


def _fields(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Annotated fields, each with the string beneath it."""
    lines = []
    for part, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not part.target.id.startswith("_"):
            words = f": {_escaped(' '.join(text.split()))}" if (text := _text_of(after)) else ""
            lines.append(f"- `{part.target.id}: {ast.unparse(part.annotation)}`{words}")
    if lines:
        yield "\n".join(lines)


def _text_of(statement: ast.stmt | None) -> str:
    """The string that a statement consists of, if it is one."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _prose(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists."""
    lines = inspect.cleandoc(docstring).splitlines()
    block: list[str] = []
    place = 0
    while place < len(lines):
        section = SECTION.match(lines[place])
        if not section:
            block.append(lines[place])
            place += 1
            continue
        if block:
            yield _escaped("\n".join(block).strip())
            block = []
        place += 1
        inside = []
        while place < len(lines) and (not lines[place].strip() or lines[place].startswith("    ")):
            inside.append(lines[place])
            place += 1
        yield f"**{ {'Args': 'Arguments'}.get(section[1], section[1]) }**"
        yield _items(inside)
    if text := "\n".join(block).strip():
        yield _escaped(text)


def _items(lines: Sequence[str]) -> str:
    """Lines such as `    alpha: weight of …` as a list; others as they are."""
    items: list[str] = []
    for line in lines:
        if found := ITEM.match(line):
            items.append(f"- `{found[1].strip('`')}`: {_escaped(found[2])}")
        elif line.strip():
            items.append(f"{'  ' if items and items[0].startswith('- ') else ''}{_escaped(line.strip())}")
    return "\n".join(items)


def _escaped(text: str) -> str:
    """Text whose dollars, angles and asterisks are themselves; code is left alone."""
    parts = CODE.split(text)
    parts[::2] = [re.sub(r"(?<!\*)\*(?![\w*])|[$<\[\]{}]", lambda found: "\\" + found[0], part) for part in parts[::2]]
    return "".join(parts)


def command_page() -> str:
    """Each command with its arguments and options, as `--help` says it."""
    group = typer.main.get_command(app)
    parts = ["# Command line", "What `--help` says; [Commands](../docs/commands.md) has the words to it."]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts += [f"## kdcourse {name}", _escaped(inspect.cleandoc(command.help or ""))]
        if command.params:
            parts.append("\n".join(map(_parameter, command.params)))
        parts.append("\n".join(["```text", *re.findall(r"`([^`]+)`", command.epilog or ""), "```"]))
    return "\n\n".join(parts) + "\n"


def _parameter(parameter: typer.core.click.Parameter) -> str:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = (parameter.name or "").upper()
    words = " ".join((getattr(parameter, "help", "") or "").split())
    default = parameter.default
    shown = "" if default in (None, (), [], False) or callable(default) else f"`{getattr(default, 'value', default)}`"
    if "Sentinel" in shown or "Ellipsis" in shown:
        shown = ""
    return f"- `{names}`: {_escaped(words)}" + (f" Default: {shown}." if shown else "")


def symptoms_page(lessons: Mapping[str, Lesson]) -> str:
    """What each known mistake looks like, and where to read on."""
    rows = []
    for task in all_exercises().values():
        for mistake in task.misconceptions:
            lesson = lessons[task.lesson]
            words = _in_a_cell(mistake.signature)
            there = f"../notebooks/{lesson.name}.html{_anchor(mistake.read, lesson)}"
            where = f'<a href="{there}">{lesson.number}, {mistake.read}</a>'
            rows.append(f"| {words} | {mistake.name.replace('-', ' ')} | {task.title} | {where} |")
    return "\n".join(
        [
            "# What you see, and which mistake it is",
            "",
            "Each exercise knows the mistakes that people make in it. *Yours* is the answer that was given, *ours*",
            "is right. For a loss of your own, let [kdcourse diagnose](../docs/diagnose.md) look.",
            "",
            '<label class="filter">Show the rows that hold these words: <input type="search"></label>',
            "",
            "| what you see | the mistake | where it is made | read on |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _in_a_cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _anchor(read: str, lesson: Lesson) -> str:
    """The section that "section 4, Break it" names, if the lesson has it."""
    number = re.match(r"section (\d+)", read)
    for cell in lesson.cells if number else []:
        if cell["cell_type"] == "markdown" and re.search(rf"^## {number[1]} ·", source_of(cell), re.MULTILINE):
            return f"#cell-{cell['id']}"
    return ""
