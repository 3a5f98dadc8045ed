"""Claims told twice: in the outputs of a cell, which it can hide, and in a file, which `%%capture` does not reach.

A claim in a thread, in another process, or just before the kernel dies is in the file, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from kdcourse.course.claims import HIDDEN_KEY, LEDGER_VARIABLE, shown_claims
from kdcourse.course.text import writable


class Ledger:
    """The file to which the claims of one kernel are written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "claims.jsonl"
        self._read = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a kernel has to start with."""
        return {LEDGER_VARIABLE: str(self._path)}

    def keep_hidden(self, cell: NotebookNode) -> None:
        """Put the claims since the last call that the outputs of this cell do not show into its metadata."""
        shown = shown_claims(cell)
        if hidden := [record for record in self._since_last_call() if record not in shown]:
            cell.metadata[HIDDEN_KEY] = [*cell.metadata.get(HIDDEN_KEY, []), *hidden]

    def _since_last_call(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kernel can be killed within one
        new, self._read = whole[self._read :], len(whole)
        yield from (writable(json.loads(line)) for line in new)
