"""A bundle that has arrived is installed by a bare Python: nothing else is asked, and nothing is done twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_bundle_fetched import flaky_server
from tiny_bundle import installable_files, run_installer, tiny_bundle

PROGRAMS = "Scripts" if os.name == "nt" else "bin"
ELSEWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_BINARY": ":all:", "PIP_TARGET": "elsewhere",
    "PYTHONPATH": "elsewhere", "PYTHONHOME": "",
}  # fmt: skip
"""What would lead pip or Python to another place."""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle of three wheels, one of them pip."""
    folder = tmp_path_factory.mktemp("installable")
    return tiny_bundle(folder, installable_files(folder / "source"))


def ask(folder, code):
    python = folder / "kd-room" / "environment" / PROGRAMS / "python"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_from_a_broken_server_to_an_environment_and_again(room, tmp_path):
    """A course that is half there, installed twice, or fetched from elsewhere than the room."""
    shutil.copy(room / "install.py", tmp_path)
    variables = ELSEWHERE | {"KDCOURSE_CACHE": str(tmp_path / "cache")}
    with flaky_server(room, breaks=[10**9, 5000]) as (_, address):
        done = run_installer(tmp_path, "--from", address, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert ask(tmp_path, "import tinyother, kdcourse.labs; print(tinyother.VALUE)").stdout == "1\n"
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "kd-room" / "wheels").exists()
    assert (tmp_path / "cache" / "mini-1" / "data.bin").stat().st_size == 2**21 + 17
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mini-1"]
    for name in ("learner/00.ipynb", "slides/00.html", "site/index.html"):
        assert (tmp_path / "kd-room" / name).is_file()
    assert "kdcourse start" in done.stdout
    assert "kdcourse lab" in done.stdout

    lesson = tmp_path / "kd-room" / "learner" / "00.ipynb"
    lesson.write_text("mine", encoding="utf-8")
    (tmp_path / "cache" / "mini-1" / "data.bin").write_bytes(b"damaged")
    before = files_of(tmp_path / "kd-room")
    again = run_installer(tmp_path, cwd=tmp_path, **variables)
    assert again.returncode == 0, again.stderr
    assert "Installing" not in again.stdout
    assert f"{lesson} is not as it was handed out, and is kept" in again.stdout
    assert files_of(tmp_path / "kd-room") == before
    assert (tmp_path / "cache" / "mini-1" / "data.bin").stat().st_size == 2**21 + 17


def test_what_was_killed_is_finished(room, tmp_path):
    """A package of which half is there, and which pip believes to be installed."""
    variables = {"KDCOURSE_CACHE": str(tmp_path / "cache")}
    assert run_installer(room, cwd=tmp_path, **variables).returncode == 0
    environment = tmp_path / "kd-room" / "environment"
    (module,) = environment.glob("**/tinyother.py")
    (info,) = environment.glob("**/tinyother-1.0.dist-info")
    (kept,) = environment.glob("**/kdcourse/labs/assets.py")
    module.unlink()
    (info / "INSTALLER").unlink()  # which pip writes last
    (environment / "installed-from.txt").unlink()
    before = kept.stat().st_mtime_ns
    assert ask(tmp_path, "import tinyother").returncode != 0
    again = run_installer(room, cwd=tmp_path, **variables)
    assert again.returncode == 0, again.stderr
    assert "Installing 3 packages" in again.stdout
    assert ask(tmp_path, "import tinyother").returncode == 0
    assert kept.stat().st_mtime_ns == before


def test_a_wheel_that_is_none_is_told_by_pip_and_nothing_claims_success(tmp_path):
    """An environment that counts as installed though pip gave up."""
    files = installable_files(tmp_path / "source")
    name = next(name for name in files if "tinyother" in name)
    files[name].write_bytes(b"no wheel")
    done = run_installer(tiny_bundle(tmp_path, files), cwd=tmp_path, KDCOURSE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "tinyother" in done.stderr
    assert "pip could not install" in done.stderr
    assert "The course is installed" not in done.stdout
    assert not (tmp_path / "kd-room" / "environment" / "installed-from.txt").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_sentence(room, tmp_path):
    """A traceback of pathlib."""
    tmp_path.chmod(0o500)
    done = run_installer(room, cwd=tmp_path)
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    assert "kd-room" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_the_way_is_a_sentence(room, tmp_path):
    """The same, for a name that is taken."""
    Path(tmp_path, "kd-room").write_text("a file", encoding="utf-8")
    done = run_installer(room, cwd=tmp_path)
    assert done.returncode == 2
    assert "kd-room" in done.stderr
    assert "Traceback" not in done.stderr
