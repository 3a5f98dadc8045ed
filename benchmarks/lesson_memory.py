"""The memory that each lesson takes: `python benchmarks/lesson_memory.py`, about fifteen minutes of one core.

Each lesson is run in the quick profile, with the environment that `kdcourse lab` gives to its kernels, while the
kernel and all processes that it starts are looked at ten times a second. What they hold together is the sum of their
proportional set sizes: a page that two of them share counts once. The server of JupyterLab is looked at as well, before
anybody opens a lesson. Linux alone counts such sizes.

It writes `docs/rooms.json`, and the table of `docs/rooms.md`. Lessons that are named are measured anew, and the others
keep what was found before: `python benchmarks/lesson_memory.py 07 08`.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from kdcourse.course.lessons import course_lessons
from kdcourse.files import write_whole

DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE = DOCS / "rooms.json", DOCS / "rooms.md"
TABLE = re.compile(r"(?<=<!-- memory -->\n).*?(?=<!-- end of memory -->)", re.DOTALL)

SECONDS_BETWEEN = 0.1
SERVER_SECONDS = 20
MB = 1e6
BINDER_MB = 2000
"""What mybinder.org lets a user have: `limit: 2G` in its configuration, which Kubernetes reads as 2 · 10⁹ bytes."""


def held_by(processes: list[psutil.Process]) -> int:
    """Bytes that these processes hold together; one that has ended holds none."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
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
    """What JupyterLab's own server holds, without a kernel."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kdcourse", "lab", str(folder), "--", "--no-browser", f"--port={port}"]
    if psutil.POSIX and psutil.Process().uids().real == 0:
        command.append("--allow-root")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as lab:  # noqa: S603
        try:
            time.sleep(SERVER_SECONDS)
            server = psutil.Process(lab.pid)
            return held_by([server, *server.children(recursive=True)])
        finally:
            lab.terminate()


def table(found: dict[str, Any]) -> str:
    """The rows of docs/rooms.md."""
    server = found["server_bytes"] / MB
    rows = [
        f"| {number} | {peak / MB:.0f} MB | {'yes' if peak / MB + server < BINDER_MB else '**no**'} |"
        for number, peak in sorted(found["peak_bytes"].items())
    ]
    return "\n".join(["| lesson | its kernel, at most | fits in Binder's 2 GB |", "|---|---|---|", *rows]) + "\n"


def main(lessons: list[str]) -> None:
    numbers = [lesson.number for lesson in course_lessons()]
    before = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"peak_bytes": {}}
    found = {"server_bytes": before.get("server_bytes", 0), "peak_bytes": before["peak_bytes"]}
    with tempfile.TemporaryDirectory() as folder:
        if not lessons or not found["server_bytes"]:
            found["server_bytes"] = server_bytes(Path(folder, "copy"))
        for number in lessons or numbers:
            found["peak_bytes"][number] = peak_of(number, Path(folder, number))
            print(number, f"{found['peak_bytes'][number] / MB:.0f} MB", flush=True)
            found["peak_bytes"] = {key: found["peak_bytes"][key] for key in numbers if key in found["peak_bytes"]}
            write_whole(RECORD, json.dumps(found, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    write_whole(PAGE, TABLE.sub(lambda _: table(found), page))


if __name__ == "__main__":
    main(sys.argv[1:])
