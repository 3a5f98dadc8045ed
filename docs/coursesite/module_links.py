"""Names of modules in the texts lead to their pages of the reference."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

MODULE = re.compile(r"kdcourse\.\w+")


class LinkModules(SphinxPostTransform):
    """`kdcourse.topk` in a sentence is a link, on every page but its own."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Called by Sphinx for each page."""
        for literal in list(self.document.findall(nodes.literal)):
            page = f"reference/{literal.astext()}"
            is_name = MODULE.fullmatch(literal.astext()) and page in self.env.found_docs
            if not is_name or page == self.env.docname or _is_linked(literal):
                continue
            there = self.app.builder.get_relative_uri(self.env.docname, page)
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=there, internal=True))


def _is_linked(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.reference | nodes.title):
            return True
    return False
