"""A Chromium for the tests: the machine's own, or the one that npm's @sparticuz/chromium brings."""

import os
import shutil
import subprocess
from pathlib import Path

from playwright.sync_api import Error

ROOT = Path(__file__).parents[2]
NODE_MODULES = Path(os.environ.get("KDCOURSE_NODE_MODULES", ROOT / ".venv" / "node" / "node_modules"))
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
CHANNELS = ("chrome", "msedge")
"""What Playwright finds where Windows and macOS keep programs."""
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
"""The first is for root, the last keeps every other server out of reach."""


class NoChromiumError(Exception):
    """There is none, in a sentence."""


def launch(playwright):
    """Start a browser.

    Raises:
        NoChromiumError: neither the machine nor npm has one.
    """
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
    for channel in CHANNELS:
        try:
            return playwright.chromium.launch(channel=channel, args=ARGUMENTS)
        except Error:
            continue
    if found := _from_npm():
        # Not with the `--single-process` that its authors advise: such a browser ends with its first closed context.
        return playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
    raise NoChromiumError("No Chromium: install one, or let `make test` fetch npm's @sparticuz/chromium.")


def _from_npm():
    """The path of the binary, unpacked; nothing if the package or node is not there, as on a machine without Linux."""
    package, node = NODE_MODULES / "@sparticuz" / "chromium", shutil.which("node")
    if node is None or not package.is_dir():
        return None
    script = "import('@sparticuz/chromium').then(async ({default: c}) => console.log(await c.executablePath()))"
    done = subprocess.run(
        [node, "--eval", script], cwd=NODE_MODULES.parent, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout.strip() or None
