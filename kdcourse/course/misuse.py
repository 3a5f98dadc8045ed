"""What a command answers when it cannot be done as asked: a sentence, and exit code 2."""

from __future__ import annotations

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something was run or compared and failed; it could not be done as asked; Ctrl-C."""


class MisuseError(ValueError):
    """Something cannot be done as asked; the message says what was given, why not, and what to do."""
