"""A user whom the machine does not know, and homes that cannot be written: each command works, or says what to do."""

import os
import shutil
import subprocess
import sys

import pytest

from kdcourse.course.exercises import progress
from kdcourse.labs import assets

NOBODY = "12345"
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
# May read what root may, since Python itself may lie in root's home, and write nothing.
READING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
NO_HOME = "You have no home folder"


@pytest.fixture
def kdcourse_as_nobody(tmp_path):
    """Runs a command as a user without a name, in a folder of theirs; `home` is what HOME is."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root on Linux can become somebody whom the machine does not know")
    if subprocess.run([*AS_NOBODY, *READING, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody keep a capability")
    tmp_path.chmod(0o777)

    def run(*arguments, home=None, **variables):
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG_", "KDCOURSE_"))}
        environment = mine | variables | ({"HOME": home} if home else {})
        return subprocess.run(
            [*AS_NOBODY, *READING, sys.executable, "-B", "-m", "kdcourse", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "not/absolute"])
@pytest.mark.parametrize("command", ["doctor", "assets", "progress", "start", "run", "lab", "editions"])
def test_a_user_without_a_home_gets_a_sentence(command, home, kdcourse_as_nobody):
    """RuntimeError and KeyError from deep inside Jupyter, platformdirs or getpass."""
    done = kdcourse_as_nobody(command, home=home)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(NO_HOME)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_lab_without_a_home_to_write_to_is_a_sentence(kdcourse_as_nobody, tmp_path):
    """Jupyter's PermissionError, after the browser was promised."""
    done = kdcourse_as_nobody("lab", home="/nonexistent", KDCOURSE_CACHE=str(assets.cache_dir()))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "JupyterLab cannot write to /nonexistent/" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_a_home_that_cannot_be_written_is_enough_where_a_cache_is_named(home, kdcourse_as_nobody):
    """A container that runs as any user, with the course's files mounted."""
    done = kdcourse_as_nobody("doctor", home=home, KDCOURSE_CACHE=str(assets.cache_dir()))
    assert done.returncode == 0, done.stderr
    done = kdcourse_as_nobody("assets", home=home)
    assert done.returncode == 1
    assert "KDCOURSE_CACHE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_relative_xdg_folder_is_ignored_as_its_standard_says(kdcourse_as_nobody, tmp_path):
    """A cache below whatever folder a command happens to be called in."""
    done = kdcourse_as_nobody("assets", home="/nonexistent", XDG_CACHE_HOME="relative", XDG_DATA_HOME="relative")
    assert "/nonexistent/.cache/kdcourse" in "".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def homeless(monkeypatch):
    """This process, for what is imported and not called from a command line."""

    def refuse(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setenv("HOME", "gone")
    monkeypatch.delenv(assets.CACHE_VARIABLE, raising=False)
    monkeypatch.delenv(progress.FILE_VARIABLE, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", refuse)
    monkeypatch.setattr("platformdirs.user_data_path", refuse)


def test_assets_without_a_home_are_a_sentence(homeless):
    """platformdirs' RuntimeError, in a lesson."""
    with pytest.raises(
        assets.AssetError, match=r"^There is no home folder .*HOME is 'gone'.* set KDCOURSE_CACHE to the full path"
    ):
        assets.locate("reviews")
    assert not assets.is_present("reviews")


def test_a_cache_in_the_home_of_nobody_is_a_sentence(monkeypatch):
    """RuntimeError from `expanduser`."""
    monkeypatch.setenv(assets.CACHE_VARIABLE, "~no-such-user/cache")
    with pytest.raises(assets.AssetError, match=r"KDCOURSE_CACHE is '~no-such-user/cache'"):
        assets.cache_dir()


def test_an_answer_is_checked_without_a_place_to_record_it(homeless):
    """An exercise that fails for want of a home folder."""
    assert progress.record("01.forward_kl", "passed").startswith("This answer is not recorded: There is no home folder")
    with pytest.raises(
        progress.ProgressError, match=r"^There is no home folder .*HOME is 'gone'.* set KDCOURSE_PROGRESS"
    ):
        progress.load()
