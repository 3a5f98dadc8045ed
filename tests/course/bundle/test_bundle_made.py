"""A bundle is made of what is installed here, as wheels alone; solutions stay with the instructor."""

import ensurepip
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from no_network import NO_NETWORK
from packaging.version import Version
from test_standing_alone import closure
from tiny_bundle import run_installer, wheel, wheel_again
from typer.testing import CliRunner

from kdcourse.course import cli
from kdcourse.course.bundle import making, wheels
from kdcourse.course.bundle.packing import BundleError, opened
from kdcourse.course.lessons import course_lessons
from kdcourse.course.misuse import MisuseError
from kdcourse.labs import assets

DEEP = os.environ.get("KDCOURSE_DEEP")
WHEELS = os.environ.get("KDCOURSE_WHEELS")
PROGRAMS = "Scripts" if os.name == "nt" else "bin"
OURS = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PLATFORM = re.sub(r"[-.]", "_", sysconfig.get_platform())


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_all_that_the_course_brings_is_needed_and_nothing_else():
    """A room of forty without one of 164 packages; or with pytest's plugins and a linter."""
    needed = wheels.needed()
    assert set(needed) == set(closure("kdcourse", frozenset({"course"})))
    assert {"kdcourse", "torch", "pip", "jupyterlab"} <= set(needed)
    assert not {"ruff", "mypy", "pytest-xdist", "sphinx"} & set(needed)


def test_what_is_not_installed_is_a_sentence():
    """PackageNotFoundError."""
    with pytest.raises(MisuseError, match="no-such-package is not installed here"):
        wheels.needed("no-such-package[extra]")


def test_a_wheel_is_the_one_that_pip_would_choose(tmp_path, monkeypatch):
    """A wheel for another Python or system, a CUDA build, a source archive, another version."""
    right = f"torch-2.13.0+cpu-{OURS}-{OURS}-{PLATFORM}.whl"
    touch(
        tmp_path, right, f"torch-2.13.0-{OURS}-{OURS}-{PLATFORM}.whl", f"torch-2.13.0+cpu-cp27-cp27m-{PLATFORM}.whl",
        "torch-2.13.0+cpu.tar.gz", f"torch-2.14.0+cpu-{OURS}-{OURS}-{PLATFORM}.whl", "no wheel.whl",
        f"torch-2.13.0+cpu-{OURS}-{OURS}-plan9_m68k.whl",
        "pure_thing-1.0-py3-none-any.whl", f"pure_thing-1.0-{OURS}-{OURS}-{PLATFORM}.whl",
    )  # fmt: skip
    monkeypatch.setattr(wheels, "_pip", None)  # nothing is missing
    wanted = {"torch": Version("2.13.0+cpu"), "pure-thing": Version("1.0")}
    found = wheels.collect(wanted, tmp_path, print)
    assert {name: path.name for name, path in found.items()} == {
        "torch": right, "pure-thing": f"pure_thing-1.0-{OURS}-{OURS}-{PLATFORM}.whl",
    }  # fmt: skip


def test_what_is_missing_is_downloaded_and_never_built(tmp_path, monkeypatch):
    """A setup.py that runs on the instructor's machine, or another version than the tested one."""
    calls = []

    def pip(*arguments):
        calls.append(arguments)
        touch(tmp_path, "numpy-2.4.6-py3-none-any.whl")

    monkeypatch.setattr(wheels, "_pip", pip)
    touch(tmp_path, "six-1.17.0-py3-none-any.whl")
    found = wheels.collect({"numpy": Version("2.4.6"), "six": Version("1.17.0")}, tmp_path, print)
    assert set(found) == {"numpy", "six"}
    (arguments,) = calls
    assert arguments[0] == "download"
    assert arguments[-1] == "numpy==2.4.6"
    assert "--only-binary :all:" in " ".join(arguments)
    with pytest.raises(BundleError, match=r"no wheel for this platform in .* of scipy"):
        wheels.collect({"scipy": Version("1.0")}, tmp_path, print)


def test_what_pip_says_is_a_sentence(tmp_path):
    """Forty lines of pip."""
    with pytest.raises(BundleError, match=r"pip could not get a wheel \(it says: .+\)"):
        wheels._pip("download", "--no-index", "--dest", str(tmp_path), "no-such-package==1.0")


NAMES = [
    (["a-1-py3-none-any.whl"], ""),
    (["a-1-cp311-cp311-manylinux_2_28_x86_64.whl", "b-1-cp311-cp311-manylinux_2_17_x86_64.whl"], "2.28"),
    (["a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl"], "2.17"),
    (["a-1-cp311-cp311-manylinux2010_x86_64.whl", "b-1-py3-none-any.whl"], "2.12"),
    (["a-1-cp311-cp311-macosx_11_0_arm64.whl", "b-1-cp311-cp311-macosx_10_9_universal2.whl"], "11.0"),
    (["a-1-cp311-cp311-win_amd64.whl"], ""),
]


@pytest.mark.parametrize(("names", "expected"), NAMES)
def test_the_oldest_system_is_that_of_the_wheel_that_asks_for_most(names, expected):
    """An import error about GLIBC_2.34, in the room."""
    assert wheels.oldest_system(names) == expected


def test_the_oldest_python_is_that_of_the_course():
    """A bundle for 3.11 that Debian's 3.11.2 installs, and that pip then refuses."""
    oldest = Version(wheels.oldest_python(wheels.needed()))
    assert oldest.release[:2] == sys.version_info[:2]
    assert oldest >= Version("3.11.5")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """What a bundle is made of, but for one lesson, one wheel and one asset."""
    path = wheel(tmp_path / "wheels", "tiny", {"tiny.py": ""})
    few = SimpleNamespace(catalogue=lambda: {"reviews": assets.catalogue()["reviews"]}, fetch=assets.fetch)
    monkeypatch.setattr(wheels, "needed", lambda: {"packaging": Version("1.0")})
    monkeypatch.setattr(wheels, "collect", lambda *_: {"tiny": path})
    monkeypatch.setattr(making, "assets", few)
    monkeypatch.setattr(making, "course_lessons", lambda: course_lessons()[:1])
    monkeypatch.setattr(making, "BUILT_SITE", tmp_path / "no-site")
    return tmp_path


def test_solutions_stay_with_the_instructor(small):
    """A room that is handed the answers with the questions."""
    said = []
    making.make_bundle(small / "out", None, None, said.append)
    manifest, _ = opened(small / "out" / "room")
    assert {entry["name"].split("/")[0] for entry in manifest["files"]} == {"wheels", "assets", "learner", "slides"}
    with zipfile.ZipFile(small / "out" / "room" / manifest["archive"]) as archive:
        lesson = nbformat.reads(archive.read("learner/00_start_here.ipynb").decode(), as_version=4)
    assert not any("solution" in cell.metadata.get("tags", []) for cell in lesson.cells)
    assert (small / "out" / "editions" / "instructor" / "00_start_here.ipynb").is_file()
    assert any("site, which is not built" in line for line in said)
    with pytest.raises(MisuseError, match=r"holds no index\.html"):
        making.make_bundle(small / "out", None, small, print)


def test_a_site_is_taken_whole_but_for_what_is_hidden(small):
    """A site without its pictures, or with its maker's notes."""
    site = small / "site"
    (site / "_static").mkdir(parents=True)
    (site / ".git").mkdir()
    for name in ("index.html", "_static/style.css", ".git/config", ".nojekyll"):
        (site / name).write_text(name, encoding="utf-8")
    making.make_bundle(small / "out", None, site, print)
    manifest, _ = opened(small / "out" / "room")
    names = [entry["name"] for entry in manifest["files"] if entry["name"].startswith("site/")]
    assert sorted(names) == ["site/_static/style.css", "site/index.html"]


def test_the_command_says_what_to_do_next(small):
    """A folder of files, and no word about them."""
    result = CliRunner().invoke(cli.app, ["bundle", "--out", str(small / "out")])
    assert result.exit_code == 0, result.output
    assert "is what the room gets" in result.output
    assert "kdcourse bundle --serve" in result.output


@pytest.mark.slow
def test_a_bundle_of_this_installation_runs_without_a_network(tmp_path, monkeypatch):
    """A bundle that checks, installs, and lacks what a lesson reads.

    With a folder of wheels in `KDCOURSE_WHEELS` all of it is as in a room. Otherwise the course's own wheel is in the
    bundle, and other packages are those of this environment, as in `test_wheel.py`. Lesson 00 trains for a minute.
    """
    everything, lesson = bool(WHEELS), "00" if DEEP else "02"
    if not everything:
        _only_own_wheel(tmp_path / "wheels", monkeypatch)
    making.make_bundle(tmp_path / "out", Path(WHEELS) if everything else tmp_path / "wheels", None, print)
    home = tmp_path / "home"
    home.mkdir()
    room = shutil.copytree(tmp_path / "out" / "room", tmp_path / "stick")
    begun = time.monotonic()
    done = run_installer(room, cwd=home, KDCOURSE_CACHE=str(home / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"installed in {time.monotonic() - begun:.0f} s")
    programs = home / "kd-room" / "environment" / PROGRAMS
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run([programs / "python", "-c", show], check=True, capture_output=True, text=True).stdout.strip()
    )
    (site / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    settings = {"PATH": os.defpath, "HOME": str(home), "KDCOURSE_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    if not everything:
        (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        settings["JUPYTER_PATH"] = str(Path(sysconfig.get_path("data")) / "share" / "jupyter")
        for asset in assets.catalogue().values():
            there = home / "cache" / asset.folder.name
            if not there.exists():
                there.symlink_to(asset.folder)
        kernel = [programs / "python", "-m", "ipykernel", "install", "--sys-prefix"]
        subprocess.run(kernel, check=True, capture_output=True, timeout=600)
    examined = subprocess.run(
        [programs / "python", "-m", "kdcourse", "doctor"], env=settings, capture_output=True, text=True, check=False
    )
    assert examined.returncode == 0, examined.stdout
    ran = subprocess.run(
        [programs / "python", "-m", "kdcourse", "run", lesson, "--device", "cpu"],
        cwd=home, env=settings, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    claims = json.loads((home / "build" / "course" / "claims.json").read_text(encoding="utf-8"))
    assert claims["lessons"]


def _only_own_wheel(folder, monkeypatch):
    """Wheels of the course and of what the installer calls, and the assets that lesson 00 reads."""
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    folder.mkdir()
    shutil.copy(pip, folder)
    versions = {"kdcourse": Version("0.1.0"), "pip": Version(pip.name.split("-")[1])}
    for name in ("filelock", "platformdirs"):  # with which the folder for assets is found
        versions[name] = Version(wheel_again(folder, name).name.split("-")[1])
    monkeypatch.setattr(wheels, "needed", lambda: versions)
    known = assets.catalogue()
    few = SimpleNamespace(catalogue=lambda: {name: known[name] for name in ("reviews", "minilm")}, fetch=assets.fetch)
    monkeypatch.setattr(making, "assets", few)
    monkeypatch.setattr(making, "course_lessons", lambda: course_lessons()[:1])
