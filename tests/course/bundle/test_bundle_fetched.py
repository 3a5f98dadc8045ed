"""A copy that broke goes on: what is missing or damaged is fetched, from a folder or over a connection that breaks."""

import http.server
import random
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_bundle import ARCHIVE, run_installer, tiny_bundle, tiny_files

from kdcourse.course.bundle import install
from kdcourse.course.bundle.install import PIECE, bad_pieces, fetch, source_at
from kdcourse.course.bundle.packing import opened


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle that nobody writes to."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """A broken connection is tried again at once."""
    monkeypatch.setattr(install.time, "sleep", lambda _: None)


class Flaky(http.server.BaseHTTPRequestHandler):
    """Sends ranges of the files of a folder, and may break off."""

    def do_GET(self):
        content = (self.server.folder / self.path[1:]).read_bytes()
        begin, end = 0, len(content)
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] if self.server.ranges else ""):
            begin, end = int(found[1]), min(int(found[2]) + 1, end)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        body = content[begin:end]
        if self.server.breaks:
            body = body[: self.server.breaks.pop(0)]
        self.server.asked.append((self.path, begin, end))
        self.server.sent += len(body)
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        """Nothing."""


@contextmanager
def flaky_server(folder, breaks=(), ranges=True):
    """After how many bytes each of its first answers breaks off, and whether it knows ranges."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.folder, server.breaks, server.ranges, server.asked, server.sent = folder, list(breaks), ranges, [], 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def broken_copy(room, folder, change):
    """A copy of the bundle whose archive is what `change` makes of it; the manifest, and the pieces that are bad."""
    copy = Path(shutil.copytree(room, folder / "copy"))
    (copy / ARCHIVE).write_bytes(change((room / ARCHIVE).read_bytes()))
    manifest, _ = opened(room)
    return copy, manifest, bad_pieces(manifest, copy / ARCHIVE)


def half(content):
    return content[: len(content) // 2]


def test_a_copy_that_broke_at_half_gets_the_other_half(room, tmp_path):
    """A gigabyte anew, because its last byte was missing."""
    copy, manifest, bad = broken_copy(room, tmp_path, half)
    with flaky_server(room) as (server, address):
        assert fetch(manifest, copy / ARCHIVE, source_at(address), bad) == []
    assert (copy / ARCHIVE).read_bytes() == (room / ARCHIVE).read_bytes()
    assert server.sent == manifest["bytes"] - PIECE


def test_a_flipped_byte_costs_one_piece(room, tmp_path):
    """The whole file for a bit."""
    change = lambda content: content[: PIECE + 5] + bytes([content[PIECE + 5] ^ 1]) + content[PIECE + 6 :]  # noqa: E731
    copy, manifest, bad = broken_copy(room, tmp_path, change)
    with flaky_server(room) as (server, address):
        assert fetch(manifest, copy / ARCHIVE, source_at(address), bad) == []
    assert (copy / ARCHIVE).read_bytes() == (room / ARCHIVE).read_bytes()
    assert server.sent == PIECE


def test_a_connection_that_breaks_is_taken_up_where_it_broke(room, tmp_path):
    """A download that begins anew each time, and in a bad Wi-Fi never ends."""
    manifest, _ = opened(room)
    with flaky_server(room, breaks=[PIECE + 1000, 0, 10, PIECE]) as (server, address):
        assert fetch(manifest, tmp_path / ARCHIVE, source_at(address), [0, 1, 2]) == []
    assert (tmp_path / ARCHIVE).read_bytes() == (room / ARCHIVE).read_bytes()
    assert [begin for _, begin, _ in server.asked] == [0, PIECE, PIECE, PIECE, 2 * PIECE]


def test_a_connection_that_always_breaks_ends_in_a_sentence_and_keeps_what_came(room, tmp_path):
    """A program that tries for ever, or throws a first half away."""
    manifest, _ = opened(room)
    with flaky_server(room, breaks=[PIECE, *[5] * 50]) as (server, address):
        with pytest.raises(install.Problem, match="goes on from here"):
            fetch(manifest, tmp_path / ARCHIVE, source_at(address), [0, 1, 2])
        assert len(server.asked) == 1 + install.TRIES
    assert bad_pieces(manifest, tmp_path / ARCHIVE) == [1, 2]


def test_a_server_that_is_not_there_is_a_sentence():
    """A learner in another Wi-Fi, who reads `<urlopen error [Errno 111] Connection refused>` and gives up."""
    with flaky_server(Path()) as (_, address):
        pass
    with pytest.raises(install.Problem, match="in the room's network") as caught:
        source_at(address).read("manifest.json")
    assert "urlopen" not in str(caught.value)


def test_a_server_that_knows_no_ranges_will_do(room, tmp_path):
    """Bytes from the beginning, written into the middle."""
    copy, manifest, bad = broken_copy(room, tmp_path, half)
    with flaky_server(room, ranges=False) as (_, address):
        assert fetch(manifest, copy / ARCHIVE, source_at(address), bad) == []
    assert (copy / ARCHIVE).read_bytes() == (room / ARCHIVE).read_bytes()


@pytest.mark.parametrize("kind", ["server", "folder"])
def test_a_damaged_source_is_told_and_never_written(room, tmp_path, kind):
    """Damage that is copied from stick to stick."""
    source, manifest, _ = broken_copy(room, tmp_path, lambda content: content[:5] + b"xxxx" + content[9:])
    with flaky_server(source) as (_, address), pytest.raises(install.Problem, match=r"byte 0 is cut off or damaged"):
        fetch(manifest, tmp_path / ARCHIVE, source_at(address if kind == "server" else str(source)), [0, 1, 2])
    assert (tmp_path / ARCHIVE).read_bytes() == b""


def test_another_folder_is_a_source(room, tmp_path):
    """A stick that can only be copied whole."""
    copy, manifest, bad = broken_copy(room, tmp_path, half)
    assert fetch(manifest, copy / ARCHIVE, source_at(str(room)), bad) == []
    copy.joinpath(ARCHIVE).write_bytes((room / ARCHIVE).read_bytes() + b"more")
    assert fetch(manifest, copy / ARCHIVE, source_at(str(room / ARCHIVE)), []) == []
    assert (copy / ARCHIVE).read_bytes() == (room / ARCHIVE).read_bytes()


def test_many_holes_are_filled_in_any_order(tmp_path):
    """A run of pieces that ends too late, and asks for what is there."""
    source = random.Random(1)
    room = tiny_bundle(tmp_path, tiny_files(tmp_path / "f", [(f"site/{number}", 2**19) for number in range(20)]))
    manifest, _ = opened(room)
    for attempt in range(5):
        holes = sorted(source.sample(range(len(manifest["pieces"])), attempt + 1))
        content = bytearray((room / ARCHIVE).read_bytes())
        for hole in holes:
            content[hole * PIECE] ^= 255
        (tmp_path / ARCHIVE).write_bytes(content)
        assert bad_pieces(manifest, tmp_path / ARCHIVE) == holes
        with flaky_server(room) as (server, address):
            assert fetch(manifest, tmp_path / ARCHIVE, source_at(address), holes) == []
        assert server.sent == sum(min(PIECE, manifest["bytes"] - hole * PIECE) for hole in holes)


def test_nothing_but_the_program_is_needed(room, tmp_path):
    """A learner who has fetched install.py, and a manifest that comes by magic. It stops where it cannot go on."""
    shutil.copy(room / "install.py", tmp_path)
    with flaky_server(room, breaks=[20]) as (server, address):
        done = run_installer(tmp_path, "--check", "--from", address, cwd=tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (room / "manifest.json").read_bytes()
    assert [path for path, *_ in server.asked] == ["/manifest.json"] * 2
    assert done.returncode == 1
    assert "tiny.zip" in done.stderr
    assert "it is missing" in done.stderr


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:9", "nowhere", "192.168.1.5:8000", "http://[::1", "http://127.0.0.1:x"]
)
def test_a_source_that_is_not_there_is_a_sentence(room, tmp_path, where, monkeypatch, capsys):
    """A traceback of urllib."""
    shutil.copy(room / "install.py", tmp_path)
    monkeypatch.setattr(install, "MANIFEST_SHA256", "0" * 64)
    monkeypatch.setattr(install, "__file__", str(tmp_path / "install.py"))
    assert install.main(["--from", where]) in (1, 2)
    said = capsys.readouterr().err
    assert where in said
    assert said.count("\n") == 1


def test_an_answer_that_is_no_file_is_a_sentence(room, tmp_path):
    """The page of a hotel's Wi-Fi, taken for a manifest."""
    shutil.copy(room / "install.py", tmp_path)
    (tmp_path / "hotel").mkdir()
    (tmp_path / "hotel" / "manifest.json").write_text("<html>Welcome", encoding="utf-8")
    with flaky_server(tmp_path / "hotel") as (_, address):
        done = run_installer(tmp_path, "--from", address, cwd=tmp_path)
    assert done.returncode == 1
    assert "do not belong together" in done.stderr
    assert not (tmp_path / "manifest.json").exists()
