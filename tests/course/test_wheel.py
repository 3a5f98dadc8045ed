"""The course as somebody gets it who has no repository: a wheel, an empty folder, and no network."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
from no_network import NO_NETWORK

from kdcourse.labs import assets

ROOT = Path(__file__).parents[2]
SECONDS = 600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the sdist, as a release is."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a fresh environment with the wheel in it.

    Other packages are those of this environment, through a path file: their own path files are not read there, so the
    repository, which is installed here for editing, is not in reach.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=SECONDS)
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([str(python), "-c", show], check=True, capture_output=True, text=True).stdout.strip())
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (site / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    kernel = [str(python), "-m", "ipykernel", "install", "--sys-prefix"]
    subprocess.run(kernel, check=True, capture_output=True, timeout=SECONDS)
    return python


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty folder."""
    return tmp_path_factory.mktemp("home")


def environment(home):
    unwanted = ("KDCOURSE_", "PYTHONPATH", "VIRTUAL_ENV", "JUPYTER")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    mine = {"KDCOURSE_CACHE": str(assets.cache_dir()), "KDCOURSE_PROGRESS": str(home / "progress.json")}
    # A path file leads to packages, and not to the pages and templates that they have put beside them.
    beside = Path(sysconfig.get_path("data")) / "share" / "jupyter"
    mine |= {"JUPYTER_PATH": str(beside), "JUPYTERLAB_DIR": str(beside / "lab")}
    return kept | mine | {"PIP_NO_INDEX": "1", "JUPYTER_CONFIG_DIR": str(home / ".jupyter"), "HOME": str(home)}


def kdcourse(python, home, *arguments):
    return subprocess.run(
        [str(python), "-m", "kdcourse", *arguments],
        check=False, capture_output=True, text=True, cwd=home, env=environment(home), timeout=SECONDS,
    )  # fmt: skip


def test_the_wheel_holds_the_course_and_nothing_else(wheel):
    """Lessons that are missing, or tests and the working copy of whoever built it."""
    names = zipfile.ZipFile(wheel).namelist()
    lessons = {Path(name).name for name in names if name.endswith(".ipynb")}
    assert lessons == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name.partition("/")[0] for name in names} == {"kdcourse", "kdcourse-0.1.0.dist-info"}
    assert "kdcourse/py.typed" in names


def test_a_copy_is_started_and_its_first_lessons_run(python, home):
    """`kdcourse run 01` outside the repository fails, since there is no notebook."""
    started = kdcourse(python, home, "start")
    assert started.returncode == 0, started.stderr
    assert (home / "kd-course" / "notebooks" / "01_kl_derivation.ipynb").exists()
    done = kdcourse(python, home, "run", "01", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    executed = nbformat.read(home / "build" / "course" / "01_kl_derivation.ipynb", as_version=4)
    assert not any("solution" in cell.metadata.get("tags", []) for cell in executed.cells)
    assert (home / "build" / "course" / "index.html").exists()


def test_the_package_is_the_one_from_the_wheel(python, home):
    """A test of the repository that believes to be one of the wheel."""
    show = "import kdcourse.course.lessons as l; print(l.__file__); print(l.course_notebooks())"
    done = subprocess.run(
        [str(python), "-c", show], check=True, capture_output=True, text=True, cwd=home, env=environment(home)
    )
    assert str(ROOT) not in done.stdout.replace(sysconfig.get_path("purelib"), "")


def test_the_doctor_is_content_without_a_clone(python, home):
    """A warning that torch 2.13.0+cpu is not the tested 2.13.0+cpu, and an advice to run make."""
    done = kdcourse(python, home, "doctor")
    assert done.returncode == 0, done.stdout
    assert not re.search(r"torch \S+ \(tested:", done.stdout)
    assert "make " not in done.stdout


def test_the_lab_opens_the_copy(python, home):
    """JupyterLab on an empty folder, or on the package's own lessons."""
    command = [str(python), "-u", "-m", "kdcourse", "lab", "--", "--no-browser", "--port=0", "--allow-root"]
    log = (home / "lab.log").open("w+", encoding="utf-8")
    process = subprocess.Popen(command, cwd=home, env=environment(home), stdout=log, stderr=log, text=True)
    try:
        url, token = served(process, home / "lab.log")
        request = urllib.request.Request(f"{url}api/contents", headers={"Authorization": f"token {token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  (the server that was just started)
            names = {entry["name"] for entry in json.load(answer)["content"]}
        assert "03_temperature_and_t_squared.ipynb" in names
    finally:
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.CTRL_C_EVENT)
        time.sleep(1)
        process.terminate()
        end(process)
        log.close()


def end(process):
    """Wait for a server that was told to end; a thread of its own may outlive it, and wait for work for ever."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)


def served(process, log):
    """Address and token that JupyterLab prints when it is ready."""
    for _ in range(SECONDS):
        if process.poll() is not None:
            break
        if found := re.search(r"(http://127\.0\.0\.1:\d+/)lab\?token=(\w+)", log.read_text(encoding="utf-8")):
            return found[1], found[2]
        time.sleep(1)
    raise AssertionError(log.read_text(encoding="utf-8"))
