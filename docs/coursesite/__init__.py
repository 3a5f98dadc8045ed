"""The Sphinx extension of the site: formulas as MathML, terms that say what they mean, and what Sphinx has to copy."""

from __future__ import annotations

import copy
import html
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from docutils import nodes

from coursesite.glossary import ExplainTerms
from coursesite.module_links import LinkModules
from coursesite.prose_tables import MarkProseTables
from kdcourse.course.formulas import mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MATHML = "http://www.w3.org/1998/Math/MathML"
TAG = re.compile(r"<[^>]*>")
QUAD = re.compile(r"\\q?quad(?![a-zA-Z])")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    app.add_post_transform(ExplainTerms)
    app.add_post_transform(MarkProseTables)
    app.add_post_transform(LinkModules)
    app.connect("builder-inited", _copy_extras)
    app.connect("html-page-context", _say_what_is_missing, priority=900)  # behind the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_formula(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _formula(translator: Any, node: nodes.math_block) -> None:
    parts = "".join(reasons_beneath(mathml(part, "block")) for part in side_by_side(node.astext()))
    translator.body.append(f'<div class="formula">{parts}</div>')
    raise nodes.SkipNode


def side_by_side(tex: str) -> list[str]:
    """The formulas that wide spaces keep apart: on a narrow page they stand beneath each other."""
    parts = [part for part in QUAD.split(tex) if part.strip()]
    whole = all(part.count("{") == part.count("}") and "\\begin" not in part for part in parts)
    return parts if whole else [tex]


def reasons_beneath(formula: str) -> str:
    """A derivation whose lines have their reason a second time, in a row beneath: the style sheet shows one of the two.

    A reason is what stands behind the two sides of a line, from the third column on.
    """
    ElementTree.register_namespace("", MATHML)
    tree = ElementTree.fromstring(formula)  # noqa: S314  (ours)
    for table in tree.iter(f"{{{MATHML}}}mtable"):
        for at, line in reversed([*enumerate(table)]):
            if not (reason := line[2:]) or not len(reason[-1]):
                continue
            for cell in reason:
                cell.set("class", "beside")
            beneath = ElementTree.Element(f"{{{MATHML}}}mtr", {"class": "beneath"})
            ElementTree.SubElement(beneath, f"{{{MATHML}}}mtd")
            again = copy.deepcopy(reason[-1])
            again.attrib = {"columnalign": "left"}
            beneath.append(again)
            table.insert(at + 1, beneath)
    return ElementTree.tostring(tree, encoding="unicode")


def _copy_extras(app: Sphinx) -> None:
    """Pictures and editions lie ready as they are to be served."""
    app.config.html_extra_path = [str(Path(app.srcdir) / "extra")]


def _say_what_is_missing(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """What those who listen to a page need: a fold has its own name, and a heading of the contents its level.

    And what those need who search: a description.
    """
    for part, said, missing in (
        ("body", '<summary aria-label="Toggle hidden content">', "<summary>"),
        ("furo_navigation_tree", 'class="caption" role="heading"', 'class="caption" role="heading" aria-level="2"'),
    ):
        if part in context:
            context[part] = context[part].replace(said, missing)
    if doctree is not None and "description" not in context["metatags"]:
        words = html.escape(textwrap.shorten(_first_sentences(doctree), 160, placeholder="…"), quote=True)
        context["metatags"] += f'<meta name="description" content="{words}">'


def _first_sentences(doctree: nodes.document) -> str:
    """What a search engine shows of a page."""
    paragraph = doctree.next_node(nodes.paragraph)
    return "" if paragraph is None else html.unescape(TAG.sub("", paragraph.astext()))
