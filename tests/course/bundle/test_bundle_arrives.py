"""A bundle that was carried: what is missing, cut off, damaged, or for another machine is found and named."""

import ast
import hashlib
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import ARCHIVE, FITS, run_installer, tiny_bundle, tiny_files

from kdcourse.course.bundle import install
from kdcourse.course.bundle.packing import BundleError, opened


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle that nobody writes to."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A folder in which each example makes its own copy."""
    return tmp_path_factory.mktemp("copied")


@pytest.fixture(scope="module")
def ranges(room):
    """First byte and end of each member, by name, as the zip file's own directory and headers have it."""
    content, found = (room / ARCHIVE).read_bytes(), {}
    with zipfile.ZipFile(room / ARCHIVE) as archive:
        for member in archive.infolist():
            header = content[member.header_offset : member.header_offset + 30]
            begin = member.header_offset + 30 + int.from_bytes(header[26:28], "little")
            begin += int.from_bytes(header[28:30], "little")
            found[member.filename] = (begin, begin + member.file_size)
    return found


def said_of(room, folder, change):
    """What is said of a copy in which `change` was made to the archive's bytes."""
    for path in room.iterdir():
        if path.name != ARCHIVE:
            shutil.copy(path, folder)
    (folder / ARCHIVE).write_bytes(change((room / ARCHIVE).read_bytes()))
    with pytest.raises(BundleError) as error:
        opened(folder)
    return str(error.value)


def flipped(content, place, bits):
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def test_a_whole_bundle_is_whole(room, tmp_path):
    """A check that finds fault with what is right, and is turned off."""
    manifest, digest = opened(room)
    assert hashlib.sha256((room / "install.py").read_bytes()).hexdigest() == digest
    assert len(manifest["pieces"]) == 3
    done = run_installer(room, "--check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "All 3 files of tiny.zip" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_archive_is_one_that_any_program_reads(room, tmp_path):
    """Bytes that only we can find, when install.py is what is damaged."""
    with zipfile.ZipFile(room / ARCHIVE) as archive:
        assert archive.testzip() is None
        read = {name: archive.read(name) for name in archive.namelist()}
    assert read == {name: path.read_bytes() for name, path in tiny_files(tmp_path).items()}


def test_the_same_files_make_the_same_bundle(room, tmp_path):
    """Two sticks that differ, though they hold the same."""
    again = tiny_bundle(tmp_path)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in room.iterdir()
    }


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_its_file_is_named(room, copied, ranges, data):
    """A model that computes something else in one seat of forty."""
    size = (room / ARCHIVE).stat().st_size
    begin = data.draw(st.sampled_from([begin for begin, _ in ranges.values()] + [end for _, end in ranges.values()]))
    place = data.draw(st.one_of(st.integers(0, size - 1), st.integers(-40, 40).map(lambda step: begin + step)))
    place = min(max(place, 0), size - 1)
    bits = data.draw(st.integers(1, 255))
    said = said_of(room, copied, lambda content: flipped(content, place, bits))
    damaged = [name for name, (begin, end) in ranges.items() if begin <= place < end]
    assert re.findall(r"(\S+) is damaged", said) == (damaged or ["files"])
    assert damaged or "what stands between its files" in said


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_cut_is_found_and_named(room, copied, ranges, data):
    """A copy that broke, and a zip error in the middle of an installation."""
    size = (room / ARCHIVE).stat().st_size
    corner = st.sampled_from([place for both in ranges.values() for place in both])
    length = data.draw(st.one_of(st.integers(0, size - 1), corner))
    said = said_of(room, copied, lambda content: content[:length])
    assert f"it has {length:,} bytes, and should have {size:,}" in said
    cut = [name for name, (begin, end) in ranges.items() if begin < length < end]
    missing = [name for name, (begin, _) in ranges.items() if begin >= length]
    assert re.findall(r"(\S+) is cut off", said) == cut
    assert re.findall(r"(\S+) is missing", said) == missing


def test_bytes_behind_the_end_are_found(room, tmp_path):
    """An archive that was written over a longer one."""
    assert "should have" in said_of(room, tmp_path, lambda content: content + b"x")


@pytest.mark.parametrize("name", ["manifest.json", ARCHIVE])
def test_a_file_that_is_missing_is_named(room, tmp_path, name):
    """A traceback instead of a name."""
    copy = Path(shutil.copytree(room, tmp_path / "room"))
    (copy / name).unlink()
    done = run_installer(copy, cwd=tmp_path)
    assert done.returncode == 1
    assert name in done.stderr
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(["install.py", "manifest.json"]), share=st.floats(0, 1), bits=st.integers(1, 255))
def test_a_flipped_byte_in_program_or_manifest_is_found(room, copied, name, share, bits):
    """What checks all else, damaged itself: it runs, and installs something else."""
    for path in room.iterdir():
        shutil.copy(path, copied)
    content = (room / name).read_bytes()
    (copied / name).write_bytes(flipped(content, min(int(share * len(content)), len(content) - 1), bits))
    done = run_installer(copied, "--check", cwd=copied)
    assert done.returncode != 0
    assert name in done.stderr


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_program_that_was_cut_off_claims_nothing(room, tmp_path, share):
    """Half a program that says that all is well. Python runs what there is of it, without a word, or finds an error."""
    copy = Path(shutil.copytree(room, tmp_path / "room"))
    content = (room / "install.py").read_bytes()
    (copy / "install.py").write_bytes(content[: int(share * len(content))])
    done = run_installer(copy, "--check", cwd=tmp_path)
    assert done.stdout == ""
    with pytest.raises(BundleError, match=r"install\.py|no bundle"):
        opened(copy)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "C:\\x", "a\\..\\x", "a/\0", "site/.", ""])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(room, tmp_path, name):
    """A file in somebody's home folder, put there by a bundle whose hashes are all right."""
    manifest = json.loads((room / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][0]["name"] = name
    content = json.dumps(manifest).encode()
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(install.Problem, match="leave its folder"):
        install.read_manifest(tmp_path, hashlib.sha256(content).hexdigest())


def test_a_program_without_a_bundle_says_so(tmp_path):
    """The file in the package, called by somebody who found it there."""
    with pytest.raises(install.Problem, match="belongs to no bundle"):
        install.read_manifest(tmp_path, install.MANIFEST_SHA256)


OTHERS = {
    "another minor version": {"python": "3.99", "version": "3.99.1"},
    "a newer release": {"version": f"{FITS['python']}.999"},
    "another implementation": {"implementation": "PyPy"},
    "another system": {"system": "plan9"},
    "another processor": {"machine": "m68k"},
    "another word": {"bits": 16},
    "another libc": {"libc": "musl"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_machine_is_told_in_a_sentence(tmp_path, other):
    """ "… is not a supported wheel on this platform", for one wheel of 164, after minutes."""
    done = run_installer(tiny_bundle(tmp_path, made_for=FITS | other), cwd=tmp_path)
    assert done.returncode == 1
    assert str(next(reversed(other.values()))) in done.stderr
    assert sys.platform in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "kd-room").exists()


SYSTEMS = [("2.28", "2.36", True), ("2.28", "2.28", True), ("2.28", "2.4", False), ("", "2.4", True),
           ("11.0", "", False), ("", "", True)]  # fmt: skip


@pytest.mark.parametrize(("needs", "has", "fits"), SYSTEMS)
def test_a_system_is_as_new_as_the_wheels_ask(monkeypatch, needs, has, fits):
    """2.4, which counts as newer than 2.28 when versions are texts."""
    monkeypatch.setattr(install, "system_version", lambda: has)
    if fits:
        install.check_python(FITS | {"system_version": needs})
    else:
        with pytest.raises(install.Problem, match=re.escape(needs)):
            install.check_python(FITS | {"system_version": needs})


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    """No space left on device, after ten minutes."""
    room = tiny_bundle(tmp_path, installed_bytes=5 * 10**9)
    manifest, _ = opened(room)
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    with pytest.raises(install.Problem, match=r"5\.0 GB free"):
        install.check_disk(manifest, tmp_path / "not" / "there", room, 0)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=6 * 10**9))
    install.check_disk(manifest, tmp_path / "not" / "there", room, 0)
    with pytest.raises(install.Problem, match=r"6\.0 GB free.* by moving install\.py there"):
        install.check_disk(manifest, tmp_path / "not" / "there", room, 10**9)


def test_a_disk_is_large_enough_for_what_is_half_there(tmp_path, monkeypatch):
    """An installation that cannot go on, since what it has written already is asked for again."""
    room = tiny_bundle(tmp_path, installed_bytes=10**6)
    manifest, _ = opened(room)
    (tmp_path / "kd-room" / "environment").mkdir(parents=True)
    (tmp_path / "kd-room" / "environment" / "half").write_bytes(bytes(500_000))
    assets = sum(entry["bytes"] for entry in manifest["files"] if entry["name"].startswith("assets/"))
    monkeypatch.setenv("KDCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=assets + 501_000))
    install.check_disk(manifest, tmp_path / "kd-room", room, 0)
    with pytest.raises(install.Problem, match="GB free"):
        install.check_disk(manifest, tmp_path / "other", room, 0)


def test_the_program_needs_python_alone_and_an_old_one_can_read_it():
    """`No module named 'requests'`, or a SyntaxError where a sentence about versions should be."""
    tree = ast.parse(Path(install.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert len(names) > 10
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
