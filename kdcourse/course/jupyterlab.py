"""JupyterLab on a working copy, with kernels that start as those of a run do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from kdcourse.course.environment import kernel_environment
from kdcourse.course.misuse import MisuseError
from kdcourse.course.working_copy import notebooks_of


def open_lab(folder: Path, options: Sequence[str] = ()) -> int:
    """Run JupyterLab on the lessons in `folder` until it is stopped; its exit code.

    Args:
        options: JupyterLab's own, such as `--no-browser`.

    Raises:
        MisuseError: Jupyter has no folder to write to.
    """
    _require_place_for_jupyter()
    # Unless encrypted, each kernel warns at its start that others on this machine can listen.
    command = [sys.executable, "-m", "jupyterlab", "--KernelManager.transport_encryption=auto"]
    command += ["--notebook-dir", str(notebooks_of(folder)), *options]
    environment = os.environ | kernel_environment()
    if os.name == "posix":  # JupyterLab takes the place of this program, so that Ctrl-C and kill reach it
        os.execve(sys.executable, command, environment)  # noqa: S606  (our own interpreter)
    return subprocess.call(command, env=environment)  # noqa: S603


def _require_place_for_jupyter() -> None:
    """JupyterLab ends in a traceback where it cannot keep what it needs while it runs."""
    place = Path(jupyter_runtime_dir())
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError(
            f"JupyterLab cannot write to {place} ({error.strerror or error}); set HOME to a folder that you may write "
            "to."
        ) from None
