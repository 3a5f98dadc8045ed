"""A page on paper, by the Chromium that the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kdcourse.course.misuse import MisuseError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
"""Where macOS and Windows keep them."""

BY_HAND = (
    "There is no Chromium, Chrome or Edge here to make PDFs. Open a deck in any browser and print it to a file: "
    "each slide is a page."
)
SECONDS = 180


class PrintError(MisuseError):
    """A browser has made no PDF; the message says which page, and what to do."""


def find_browser() -> str | None:
    """The path of a Chromium, Chrome or Edge, if there is one."""
    return next(filter(None, map(shutil.which, (*NAMES, *PLACES))), None)


def print_page(browser: str, page: Path, pdf: Path) -> None:
    """Print an HTML page, on paper of the size that the page asks for.

    Raises:
        PrintError: the browser did not.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}",
            "--no-pdf-header-footer", f"--print-to-pdf={pdf.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # root has no sandbox, as in a container; the page is our own
        try:
            done = subprocess.run(  # noqa: S603  (the machine's browser, on a page of ours)
                command, capture_output=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PrintError(f"{browser} made no PDF of {page.name} ({error}). {AND_THEN}") from None
    if done.returncode or not pdf.is_file():
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PrintError(f"{browser} made no PDF of {page.name} ({''.join(last) or 'no reason given'}). {AND_THEN}")


AND_THEN = "Open the deck in a browser and print it to a file."
