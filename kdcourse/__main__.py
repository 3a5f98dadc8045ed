"""Where the command `kdcourse`, or `python -m kdcourse`, begins and ends: without a traceback for a missing package."""

from __future__ import annotations

import signal
import sys

from kdcourse.course.misuse import INTERRUPTED, MISUSED
from kdcourse.course.text import show_on_any_console


def main() -> None:
    """Run the command that was typed."""
    show_on_any_console()
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


if __name__ == "__main__":
    main()
