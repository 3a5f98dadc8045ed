"""Tables that hold sentences: on a phone, each row becomes a small list, whose labels are the heads of the columns."""

from __future__ import annotations

import html

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

LONG, COLUMNS = 40, 3
"""A cell with so many letters, in a table with so many columns, makes it one to be read and not one to be compared."""


class MarkProseTables(SphinxPostTransform):
    """Gives such tables the class `prose`, and their cells their labels; the style sheet does the rest."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Called by Sphinx for each page."""
        for table in self.document.findall(nodes.table):
            head, body = table.next_node(nodes.thead), table.next_node(nodes.tbody)
            if head is None or body is None:
                continue
            labels = [cell.astext() for cell in head.findall(nodes.entry)]
            cells = [(at, cell) for row in body.findall(nodes.row) for at, cell in enumerate(row.children)]
            if len(labels) < COLUMNS or max((len(cell.astext()) for _, cell in cells), default=0) < LONG:
                continue
            table["classes"].append("prose")
            for at, cell in cells:
                if at and cell.children:
                    label = f'<span class="label" data-label="{html.escape(labels[at], quote=True)}"></span>'
                    cell.next_node(nodes.TextElement).insert(0, nodes.raw("", label, format="html"))
