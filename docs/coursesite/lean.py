"""Pages for a slow line: one style sheet, scripts that wait, and no tags around code that has no colour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLAIN = re.compile(r'<span class="(?:n|nn|o|p|w)">([^<]*)</span>')
"""Names, operators and brackets, which `colours.py` leaves in the colour of the text: a third of a lesson's page."""
OUR_SHEET = "_static/course.css"
TOKEN_RULE = re.compile(r"^[^{}@\n]*\.highlight \.(?P<name>[\w-]+)[^{}\n]*\{[^{}]*\}", re.MULTILINE)
"""The colour of a kind of token, or of a terminal: there are hundreds, and pages use a dozen."""
CLASSES = re.compile(r'class="([^"]*)"')
COMMENT_OR_INDENT = re.compile(r"/\*.*?\*/|(?<=\n)[ \t]+", re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    sheets: list[str] = []

    def lighten(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        """All style sheets are in ours, which is the last."""
        linked = sorted(context["css_files"], key=lambda sheet: sheet.priority)  # as Sphinx does before it writes them
        sheets[:] = [str(sheet.filename) for sheet in linked]
        context["css_files"] = linked[-1:]
        if "body" in context:
            context["body"] = PLAIN.sub(r"\1", context["body"])
        if page != "search":  # its own scripts wait for nothing, and need the others
            context["script_files"] = [_deferred(script) for script in context["script_files"]]

    def merge(app: Sphinx, error: Exception | None) -> None:
        if error is None:
            write_one_sheet(Path(app.outdir), sheets, _classes(Path(app.outdir)))

    app.connect("html-page-context", lighten, priority=950)  # behind all who add a sheet
    app.connect("build-finished", merge, priority=950)  # Furo completes a sheet then
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def _deferred(script: Any) -> Any:
    """The same script of Sphinx, which the page does not wait for; pages share the one that came in."""
    if script.filename is None or "defer" in script.attributes:
        return script
    return type(script)(script.filename, priority=script.priority, **script.attributes, defer="defer")


def _classes(out: Path) -> set[str]:
    """Of all elements of all pages, but for the editions, which have a style of their own."""
    pages = (page for page in out.rglob("*.html") if "editions" not in page.parts)
    return {name for page in pages for found in CLASSES.findall(page.read_text("utf-8")) for name in found.split()}


def write_one_sheet(out: Path, sheets: list[str], classes: set[str]) -> None:
    """Put all style sheets of the pages, in their order, into the last one, less colours of code without these classes.

    Raises:
        ValueError: the last one is not ours, or one asks for a file beside it, which it would not find.
    """
    texts = [(out / sheet.partition("?")[0]).read_text(encoding="utf-8") for sheet in sheets]
    if not sheets or sheets[-1].partition("?")[0] != OUR_SHEET:
        raise ValueError(f"The pages' last style sheet is to be {OUR_SHEET}; they are {', '.join(sheets)}.")
    if beside := re.findall(r"url\((?!['\"]?(?:data:|#))[^)]*\)|@import[^;]*", "".join(texts)):
        raise ValueError(f"A style sheet asks for {beside[0]}, which is not where the merged one is.")
    merged = COMMENT_OR_INDENT.sub("", "\n".join(texts))
    merged = TOKEN_RULE.sub(lambda rule: rule[0] if rule["name"] in classes else "", merged)
    (out / OUR_SHEET).write_text(re.sub(r"\n{2,}", "\n", merged), encoding="utf-8")
