"""A bundle for the room, over the local network: three files by their names, a page for learners, and one of progress.

Tornado, which JupyterLab brings, sends the files, and ranges of them, so that a download that broke goes on. What is
not asked for by one of three names is not sent.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import psutil
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from kdcourse.course.bundle.install import MANIFEST, PROGRAM, asked_in_words
from kdcourse.course.bundle.making import ROOM
from kdcourse.course.bundle.packing import opened
from kdcourse.course.bundle.progress import Room
from kdcourse.course.html_pages import page
from kdcourse.course.misuse import MisuseError

HOST = re.compile(r"[\w.\-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?")
"""What may stand in a command that learners copy."""
LOOPBACK = re.compile(r"localhost\b|127\.|\[::1\]")
"""A host that nobody else in the room reaches; the projector may well be on the same machine."""
REFRESH = 3
"""Seconds after which the page of progress asks again."""
IDLE = 60
"""Seconds after which a connection that asks for nothing is closed."""
DIGITS = 16
"""Of the SHA-256 that is compared by eye: 64 bits."""


def serve(folder: Path, host: str, port: int, announce: Callable[[str], object]) -> None:
    """Hand out the bundle in `folder`, or in `room/` below it, until Ctrl-C.

    Args:
        host: the address to listen on; `0.0.0.0` is every one of this machine.
        port: 0 takes one that is free.

    Raises:
        BundleError: the bundle is not whole.
        MisuseError: nothing can listen there.
        KeyboardInterrupt: Ctrl-C.
    """
    folder = folder.parent if folder.is_file() else folder
    folder = (folder / ROOM if (folder / ROOM / PROGRAM).is_file() else folder).absolute()
    announce("Checking the bundle …")
    manifest, digest = opened(folder)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise MisuseError(f"Port {port} of {host} cannot be had ({why}); choose another --port or --host.") from None
    listening.setblocking(False)
    port = listening.getsockname()[1]
    at = [f"{address}:{port}" for address in addresses(host)]
    for each in at:
        announce(f"http://{each}/ is for learners, and http://{each}/progress for the projector.")
    announce(
        f"This is http, which anybody on this network can alter. What protects is the SHA-256 of {PROGRAM}, which "
        f"holds those of all else: it begins with {shown(digest)}, and learners can compare it. Ctrl-C ends."
    )
    asyncio.run(_until_interrupted(application(folder, manifest, digest, at), listening))


async def _until_interrupted(app: Application, listening: socket.socket) -> None:
    server = HTTPServer(app, idle_connection_timeout=IDLE, max_header_size=2**14, max_body_size=2**10)
    server.add_socket(listening)
    await asyncio.Event().wait()


def application(folder: Path, manifest: dict[str, Any], digest: str, at: Sequence[str] = ()) -> Application:
    """What answers: `/`, `/progress`, and the three files; of all else it knows nothing.

    Args:
        at: host and port where learners reach it, for the projector.
    """
    room = Room(manifest["bytes"])
    names = "|".join(map(re.escape, (PROGRAM, MANIFEST, manifest["archive"])))
    said = {"room": room, "manifest": manifest, "digest": digest, "at": at}
    return Application(
        [
            (r"/", Welcome, said),
            (r"/progress", Progress, said),
            (rf"/({names})", BundleFile, {"path": str(folder), "room": room, "archive": manifest["archive"]}),
        ],
        default_handler_class=Unknown,
        log_function=lambda _: None,
    )


class Unknown(RequestHandler):
    """Any other path: a sentence, with a status of its own."""

    def prepare(self) -> None:
        raise HTTPError(404)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: there is nothing of that name here; / says what there is.\n")


class BundleFile(StaticFileHandler):
    """One of the three files, or a range of it; of the archive is kept what has been sent."""

    def initialize(self, path: str, room: Room, archive: str) -> None:  # type: ignore[override]
        super().initialize(path)
        self.room, self.archive = room, archive

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Content-Disposition", "attachment")
        self.set_header("X-Content-Type-Options", "nosniff")

    def compute_etag(self) -> None:
        """None: it would be a hash of the whole archive, and each piece has one."""

    # Tornado's belongs to the class; ours knows who asks.
    def get_content(  # type: ignore[override]
        self, abspath: str, start: int | None = None, end: int | None = None
    ) -> Generator[bytes, None, None]:
        begin = start or 0
        for chunk in super().get_content(abspath, start, end):
            yield chunk
            # Tornado asks for the next one when this one has been sent.
            if self.path == self.archive:
                self.room.add(str(self.request.remote_ip), begin, begin + len(chunk))
            begin += len(chunk)


class Page(RequestHandler):
    def initialize(self, room: Room, manifest: dict[str, Any], digest: str, at: Sequence[str]) -> None:
        self.room, self.manifest, self.digest, self.at = room, manifest, digest, at

    def show(self, template: str) -> None:
        host = self.request.host
        if not HOST.fullmatch(host):
            raise HTTPError(400)
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        made_for, size = self.manifest["made_for"], self.manifest["bytes"]
        said = {
            "address": f"http://{host}",
            "at": self.at if LOOPBACK.match(host) and self.at else [host],
            "program": PROGRAM,
            "digest": shown(self.digest),
            "megabytes": size / 1e6,
            "gigabytes": (2 * size + self.manifest["installed_bytes"]) / 1e9,
            "python": made_for["python"],
            "made_for": asked_in_words(made_for),
            "room": self.room,
            "refresh": REFRESH,
        }
        self.finish(page(template, **said))


class Welcome(Page):
    """For learners: what to type."""

    def get(self) -> None:
        self.show("room.html")


class Progress(Page):
    """For the projector: who has how much."""

    def get(self) -> None:
        self.show("room_progress.html")


def shown(digest: str) -> str:
    """The beginning of a SHA-256 in groups of four: `3f2a 91cd 0b4e 77aa`."""
    return " ".join(digest[place : place + 4] for place in range(0, DIGITS, 4))


def addresses(host: str) -> list[str]:
    """Those that learners can type when a server listens on `host`; IPv6 in its brackets."""
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  (a comparison)
        return [f"[{host}]" if ":" in host else host]
    found = [each for interface in psutil.net_if_addrs().values() for each in interface]
    return sorted(
        each.address for each in found if each.family == socket.AF_INET and not each.address.startswith("127.")
    ) or ["127.0.0.1"]
