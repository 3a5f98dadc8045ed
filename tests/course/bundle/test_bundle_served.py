"""A room's server: three files and ranges of them, two pages, nothing else; forty at once, each counted by address."""

import asyncio
import contextlib
import hashlib
import html
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import ARCHIVE, tiny_bundle, tiny_files
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from kdcourse.course.bundle.packing import BundleError, opened
from kdcourse.course.bundle.progress import MOST_ADDRESSES, MOST_RANGES, Fetched, Room
from kdcourse.course.bundle.serving import addresses, application, serve, shown
from kdcourse.course.misuse import MisuseError

CLIENTS = 40


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle of 6 MiB beside a file that is nobody's business."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "secret.txt").write_text("secret", encoding="utf-8")
    room = tiny_bundle(folder, tiny_files(folder / "files", [("site/big", 6 * 2**20), ("site/empty", 0)]))
    (room / "notes.txt").write_text("secret", encoding="utf-8")
    return room


@contextlib.contextmanager
def served(app):
    """The port of a server in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    (listening,) = bind_sockets(0, "127.0.0.1")

    def run():
        asyncio.set_event_loop(loop)
        server = HTTPServer(app)
        loop.call_soon(server.add_sockets, [listening])
        loop.call_soon(ready.set)
        loop.run_forever()
        server.stop()
        loop.run_until_complete(server.close_all_connections())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    yield listening.getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def port(room):
    """Of a server with nobody in the room yet."""
    with served(application(room, *opened(room))) as port:
        yield port


def get(port, path, method="GET", source="127.0.0.1", **headers):
    """Status, headers and body; the path goes out as it is."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_the_three_files_are_sent(room, port):
    """A server that sends something else than what lies there."""
    for name in ("install.py", "manifest.json", ARCHIVE):
        status, headers, body = get(port, f"/{name}")
        assert (status, body) == (200, (room / name).read_bytes())
        assert headers["Content-Disposition"] == "attachment"


RANGES = [("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=1000000-", 10**6, None), ("bytes=-7", -7, None),
          ("bytes=6000000-99999999", 6 * 10**6, None)]  # fmt: skip


@pytest.mark.parametrize(("asked", "begin", "end"), RANGES)
def test_a_range_is_what_was_asked_for(room, port, asked, begin, end):
    """A download that goes on with the wrong byte."""
    content = (room / ARCHIVE).read_bytes()
    status, headers, body = get(port, f"/{ARCHIVE}", Range=asked)
    assert (status, body) == (206, content[begin:end])
    first = begin % len(content)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(content)}"


def test_a_range_beyond_the_end_is_refused_and_head_has_no_body(room, port):
    """An endless loop of a client that has everything."""
    size = (room / ARCHIVE).stat().st_size
    status, headers, _ = get(port, f"/{ARCHIVE}", Range=f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    status, headers, body = get(port, f"/{ARCHIVE}", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


ATTACKS = [
    "/notes.txt", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/install.py/../notes.txt",
    "/install.py/../../secret.txt", "//etc/passwd", "/etc/passwd", "/%2fetc%2fpasswd", "/..\\secret.txt",
    "/install.py%00.txt", "/./notes.txt", "/install.py/", "/room", "/manifest.json%2f..%2fnotes.txt", "/static/x",
    f"/x/{ARCHIVE}", "/.", "/..", "/%", "http://127.0.0.1/notes.txt", "/progress/../notes.txt", "/INSTALL.PY",
    "/" + "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("path", ATTACKS, ids=lambda path: path[:30])
def test_nothing_else_is_sent(port, path):
    """Notes that lie beside the bundle, or the machine's own files; a list of what there is."""
    status, _, body = get(port, path)
    assert status in (400, 403, 404)
    assert b"secret" not in body.replace(b"secret.txt", b"")
    assert b"root:" not in body
    assert b"Traceback" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_put_there(port, method):
    """A learner's file in the place of the bundle's."""
    assert get(port, "/install.py", method=method)[0] == 405


@pytest.mark.parametrize("host", ["x;rm -rf ~", "<script>", "a b", "x/y", "$(x)"])
def test_a_host_that_is_none_is_not_put_into_a_command(port, host):
    """A command that learners copy, and that somebody else has written."""
    assert get(port, "/", Host=host)[0] == 400


def test_learners_are_told_what_to_type(room, port):
    """A page without the address, the digest or the Python."""
    status, headers, body = get(port, "/")
    page = html.unescape(body.decode())
    assert status == 200
    assert f"curl -O http://127.0.0.1:{port}/install.py" in page
    assert "curl.exe" in page  # PowerShell's own curl is another program
    assert f"install.py --from http://127.0.0.1:{port}" in page
    assert "asks who teaches" in page
    digest = hashlib.sha256((room / "install.py").read_bytes()).hexdigest()
    assert f"{digest[:4]} {digest[4:8]} {digest[8:12]} {digest[12:16]}" in page
    assert f"python{sys.version_info[0]}.{sys.version_info[1]} " in page
    assert "script-src 'none'" in page
    assert headers["Cache-Control"] == "no-store"


def shares(port):
    """What the page of progress says: by address, MB, and whether that is all; and its headline."""
    page = get(port, "/progress")[2].decode()
    assert '<meta http-equiv="refresh" content="3">' in page
    rows = re.findall(r'<li><span class="who">([\d.]+)</span>(.*?)value="([\d.]+)"', page, re.DOTALL)
    headline = re.search(r"<h2>(.+)</h2>", page)[1]
    return {address: (round(6.29 * float(share)), "has it all" in words) for address, words, share in rows}, headline


def test_the_projector_shows_where_others_reach_it(room):
    """127.0.0.1 in large letters, since the browser is on the same machine."""
    app = application(room, *opened(room), at=["192.168.1.5:8000", "10.0.0.5:8000"])
    with served(app) as port:
        page = get(port, "/progress")[2].decode()
        assert "http://192.168.1.5:8000/" in page
        assert "http://10.0.0.5:8000/" in page
        assert "127.0.0.1" not in page
        page = get(port, "/progress", Host="room.local:8000")[2].decode()
        assert "http://room.local:8000/" in page
        assert "192.168.1.5" not in page


def test_progress_counts_what_has_arrived(port):
    """Somebody who has it all, according to a page that counts a range twice; a fetch of install.py that counts."""
    assert shares(port) == ({}, "0 of 0 have it all")
    get(port, "/install.py")
    get(port, f"/{ARCHIVE}", method="HEAD")
    assert shares(port) == ({}, "0 of 0 have it all")
    for _ in range(3):
        get(port, f"/{ARCHIVE}", Range="bytes=0-2999999")
    assert shares(port) == ({"127.0.0.1": (3, False)}, "0 of 1 have it all")
    get(port, f"/{ARCHIVE}", Range="bytes=2900000-")
    assert shares(port) == ({"127.0.0.1": (6, True)}, "1 of 1 have it all")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one address of its own")
def test_forty_at_once_get_it_all_while_one_reads_nothing(room, port):
    """A room that waits for its slowest, files that are mixed up, a row that is missing."""
    stuck = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.99", 0))
    stuck.sendall(f"GET /{ARCHIVE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    sources = [f"127.0.1.{number}" for number in range(1, CLIENTS + 1)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda source: get(port, f"/{ARCHIVE}", source=source), sources))
    expected = (room / ARCHIVE).read_bytes()
    assert all((status, body) == (200, expected) for status, _, body in answers)
    rows, headline = shares(port)
    assert all(rows[source] == (6, True) for source in sources)
    assert not rows.get("127.0.0.99", (0, False))[1]
    assert headline.startswith(f"{CLIENTS} of ")
    stuck.close()


def test_whoever_hangs_up_has_not_got_it(port):
    """A finished learner, who closed the lid at half."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET /{ARCHIVE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(4096)
    time.sleep(0.2)
    assert not shares(port)[0].get("127.0.0.1", (0, False))[1]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=12))
def test_ranges_add_up_as_sets_of_bytes_do(ranges):
    """A byte that counts twice, or not at all."""
    fetched, expected = Fetched("", 60), set()
    for begin, end in ranges:
        fetched.add(begin, end)
        expected |= set(range(begin, end))
        assert fetched.bytes == len(expected)
    assert fetched.finished == (len(expected) == 60)


def test_nobody_fills_the_memory():
    """A range for each second byte, or an address for each request."""
    room = Room(10**9, clock=lambda: 5.0)
    for number in range(3 * MOST_ADDRESSES):
        room.add(str(number), 0, 1)
    for number in range(2 * MOST_RANGES):
        room.add("0", 2 * number, 2 * number + 1)
    assert len(room.rows()) == MOST_ADDRESSES
    assert max(len(each.ranges) for each in room.rows()) == MOST_RANGES
    assert room.silent(room.rows()[0]) == 0


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("name", ["install.py", "manifest.json", ARCHIVE])
def test_a_link_is_not_served(room, tmp_path, name):
    """A file that is changed after it was checked, by whoever owns it."""
    for path in room.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(room / name)
    with pytest.raises(BundleError, match="is a link"):
        opened(tmp_path)


def test_a_damaged_bundle_is_not_served(room, tmp_path):
    """Forty learners who each find the same damage."""
    for path in room.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"manifest\.json|install\.py"):
        serve(tmp_path, "127.0.0.1", 0, print)


def test_a_port_that_is_taken_is_a_sentence(room):
    """Errno 98."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MisuseError, match=f"Port {port} of 127.0.0.1 cannot be had"):
            serve(room, "127.0.0.1", port, lambda _: None)
    with pytest.raises(MisuseError, match="cannot be had"):
        serve(room, "203.0.113.7", 0, lambda _: None)


def test_addresses_are_such_as_one_can_type():
    """0.0.0.0, typed by forty people."""
    assert addresses("192.168.1.5") == ["192.168.1.5"]
    assert addresses("fd00::5") == ["[fd00::5]"]
    everywhere = {"0.0.0.0", "::"}  # noqa: S104
    for host in everywhere:
        assert addresses(host)
        assert not everywhere & set(addresses(host))
    assert shown("0123456789abcdef" * 4) == "0123 4567 89ab cdef"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a signal for one process alone")
def test_the_command_serves_until_control_c(room):
    """A traceback at the end of a workshop; an address that nobody was told."""
    command = [sys.executable, "-u", "-m", "kdcourse", "bundle", "--serve", str(room.parent), "--host", "127.0.0.1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        address = re.search(r"(http://127\.0\.0\.1:\d+/) is for learners", lines[1])[1]
        with urllib.request.urlopen(f"{address}install.py", timeout=60) as answer:  # noqa: S310  (just started)
            assert answer.read() == (room / "install.py").read_bytes()
        assert "This is http" in lines[2]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "✗ Stopped."
