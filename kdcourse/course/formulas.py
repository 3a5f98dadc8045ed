"""Pages of lessons whose formulas need no script: TeX between dollar signs becomes MathML, which browsers know."""

from __future__ import annotations

import re
from typing import Any

import nbconvert
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

FUNCTION = re.compile(r"(<m[io]>(?:log|ln|max|min)</m[io]>)(?!<mo[^>]*>&#x00028;)")
"""A name that needs a space before its argument, unless that stands in brackets; browsers set none."""


class FormulaRenderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, which would leave formulas to a script from elsewhere."""

    def block_math(self, body: str) -> str:
        return f'<div class="formula">{mathml(body, "block")}</div>'

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def mathml(tex: str, display: str) -> str:
    """One formula; `display` is "inline" or "block"."""
    # `aligned` inside dollar signs is what MathJax and KaTeX want; latex2mathml knows the same table as `align*`.
    shown = convert(tex.replace("{aligned}", "{align*}"), display=display)
    return FUNCTION.sub(r'\1<mspace width="0.17em" />', shown)


class PageExporter(nbconvert.HTMLExporter):
    """nbconvert's exporter, with `FormulaRenderer`."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The HTML of one cell."""
        return markdown_to_html(
            source,
            attachments=context.get("cell", {}).get("attachments", {}),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )


def markdown_to_html(source: str, **options: Any) -> str:
    """Markdown as HTML, with formulas as MathML.

    Args:
        options: of nbconvert's `IPythonRenderer`.
    """
    return str(MarkdownWithMath(renderer=FormulaRenderer(escape=False, **options)).render(source))
