"""Where the command `kdcourse`, or `python -m kdcourse`, begins and ends: without a traceback for a missing package."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from kdcourse.course.misuse import INTERRUPTED, MISUSED
from kdcourse.course.text import show_on_any_console


def main() -> None:
    """Run the command that was typed."""
    show_on_any_console()
    require_home()
    try:
        from kdcourse.course.cli import app

        app(prog_name="kdcourse")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "kdcourse":
            raise
        message = (
            f'This command needs the course\'s packages: pip install "kdcourse[course]" ({error.name} is missing).'
        )
        print(message, file=sys.stderr)
        sys.exit(MISUSED)
    except KeyboardInterrupt:  # before there was a command that could say more
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        # All is done; a second Ctrl-C would only interrupt the interpreter's own end, with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def require_home() -> None:
    """End in a sentence for a user without a home folder, such as the nameless one of a container."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        print(
            f"You have no home folder (HOME is {os.environ.get('HOME')!r}), where Jupyter and the course keep files; "
            "set HOME to the full path of a folder that you may write to.",
            file=sys.stderr,
        )
        sys.exit(MISUSED)


if __name__ == "__main__":
    main()
