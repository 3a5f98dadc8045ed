"""The memory that each lesson takes: `python benchmarks/lesson_memory.py`, about fifteen minutes of two cores.

Each lesson is run in the quick profile, with the environment that `kdcourse lab` gives to its kernels, while the
kernel and all processes that it starts are looked at several times a second. What they hold is the sum of their
resident sets, an upper bound: a page that two of them share counts twice. JupyterLab's server is looked at as well,
before anybody opens a lesson.

It writes `docs/rooms.json`, and from it the table of `docs/rooms.md`. What is named is measured anew, and the rest
keeps what was found before: `python benchmarks/lesson_memory.py server 07 08`.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from kdcourse.course.lessons import course_lessons
from kdcourse.files import write_whole

DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE = DOCS / "rooms.json", DOCS / "rooms.md"
TABLE = re.compile(r"(?<=<!-- memory -->\n).*?(?=<!-- end of memory -->)", re.DOTALL)

SECONDS_BETWEEN = 0.2
SERVER_SECONDS = 120
SERVER = "server"
TRIED = "ran_in_binders_memory"
"""By lesson, whether it ran to its end in a container with no more memory than that; by hand, where it was tried."""
MB = 1e6
BINDER_BYTES = 2 * 2**30
"""What mybinder.org lets a user have: `limit: 2G` in its configuration, as JupyterHub reads a G."""


def held_by(processes: list[psutil.Process]) -> int:
    """Bytes in the resident sets of these processes; one that has ended holds none."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended while it was looked at
            continue
    return total


def peak_of(lesson: str, folder: Path) -> int:
    """The most bytes that a lesson's kernel and its children hold while `kdcourse run` runs it.

    Raises:
        RuntimeError: the lesson failed, so that its peak says nothing.
    """
    command = [sys.executable, "-m", "kdcourse", "run", lesson, "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:  # noqa: S603
        program, peak = psutil.Process(run.pid), 0
        while run.poll() is None:
            try:
                peak = max(peak, held_by(program.children(recursive=True)))
            except psutil.NoSuchProcess:  # between two looks
                break
            time.sleep(SECONDS_BETWEEN)
        said = run.communicate()[0]
    if run.returncode:
        raise RuntimeError(f"Lesson {lesson} did not run, so nothing was measured:\n{said}")
    return peak


def server_bytes(folder: Path) -> int:
    """What JupyterLab's own server holds when it answers, without a kernel.

    Raises:
        RuntimeError: it does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kdcourse", "lab", str(folder), "--", "--no-browser", f"--port={port}"]
    if psutil.Process().uids().real == 0:
        command.append("--allow-root")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as lab:  # noqa: S603
        try:
            for _ in range(SERVER_SECONDS):
                time.sleep(1)
                if is_answered(port):
                    server = psutil.Process(lab.pid)
                    return held_by([server, *server.children(recursive=True)])
            raise RuntimeError(f"JupyterLab did not answer within {SERVER_SECONDS} s; look at `kdcourse lab`.")
        finally:
            lab.terminate()


def is_answered(port: int) -> bool:
    """Whether a server has begun to answer there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=10) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def fits(bound: int, has_run: bool | None) -> str:
    """Whether a lesson fits in Binder's memory: by its bound, and where that is too much, by having been tried."""
    if bound < BINDER_BYTES:
        return "yes"
    return "yes, as tried" if has_run else "**no**"


def table(found: dict[str, Any]) -> str:
    """The rows of docs/rooms.md."""
    server = found["server_bytes"]
    rows = [
        f"| {number} | {peak / MB:.0f} MB | {fits(peak + server, found[TRIED].get(number))} |"
        for number, peak in found["peak_bytes"].items()
    ]
    head = ["| lesson | at most | with the server, within Binder's 2 GiB |", "|---|---|---|"]
    return "\n".join([*head, f"| none: JupyterLab's server | {server / MB:.0f} MB | |", *rows]) + "\n"


def main(names: list[str]) -> None:
    numbers = [lesson.number for lesson in course_lessons()]
    found: dict[str, Any] = {"server_bytes": 0, "peak_bytes": {}, TRIED: {}}
    if RECORD.is_file():
        found = json.loads(RECORD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        for name in names or [SERVER, *numbers]:
            if name == SERVER:
                found["server_bytes"] = measured = server_bytes(Path(folder, "copy"))
            else:
                found["peak_bytes"][name] = measured = peak_of(name, Path(folder, name))
            print(name, f"{measured / MB:.0f} MB", flush=True)
            found["peak_bytes"] = {key: found["peak_bytes"][key] for key in numbers if key in found["peak_bytes"]}
            write_whole(RECORD, json.dumps(found, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    write_whole(PAGE, TABLE.sub(lambda _: table(found), page))


if __name__ == "__main__":
    main(sys.argv[1:])
