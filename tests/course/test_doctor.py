"""The doctor: sees what is wrong, and says what to do about it."""

import importlib.metadata
import re
import types
from collections import namedtuple

import pytest

from kdcourse.course import doctor
from kdcourse.labs import assets


def test_this_machine_is_ready():
    """A check that fails where the course runs."""
    problems = [finding for finding in doctor.examine() if finding.level == "problem"]
    assert problems == []


def test_whatever_is_not_ok_comes_with_advice(monkeypatch, tmp_path):
    """A red mark and no way on."""
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    monkeypatch.setattr(doctor, "MEMORY_GB", 1e9)
    monkeypatch.setattr(doctor, "LARGEST_GB", 2e9)
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert all(finding.advice for finding in findings.values() if finding.level != "ok")
    assert findings["disk"].level == findings["asset minilm"].level == "problem"
    assert findings["memory"].level == "note"
    assert "kdcourse assets" in findings["asset minilm"].advice


def test_a_lesson_that_needs_more_memory_is_named(monkeypatch):
    """A lesson that loses its kernel on a machine that was called ready."""
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=6e9))
    finding = doctor._memory()
    assert finding.level == "note"
    assert "Lesson 08 needs 8 GB" in finding.advice


def test_other_versions_than_the_tested_ones_are_named(monkeypatch):
    """A number that differs because a library does."""
    monkeypatch.setattr(doctor, "tested_versions", lambda: {"transformers": "0.1"})
    finding = doctor._packages()
    assert finding.level == "note"
    assert re.search(r"transformers [\d.]+ \(tested: 0\.1\)", finding.seen)
    assert "pip install -c" in finding.advice


def test_a_build_for_one_processor_is_the_tested_version(monkeypatch):
    """A warning of "torch 2.13.0+cpu (tested: 2.13.0+cpu)"."""
    monkeypatch.setattr(doctor, "_required_packages", lambda: ["torch"])
    for installed, tested in (("2.13.0+cpu", "2.13.0"), ("2.13.0", "2.13.0+cpu"), ("2.13.0+cpu", "2.13.0+cpu")):
        monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _, seen=installed: seen)
        monkeypatch.setattr(doctor, "tested_versions", lambda seen=tested: {"torch": seen})
        assert doctor._packages().level == "ok"


def test_the_tested_versions_are_those_of_the_wheel_or_of_the_clone(monkeypatch, tmp_path):
    """Versions that are compared with nothing, because the file is looked for where it never is."""
    assert {doctor._normal(name) for name in doctor._required_packages()} <= doctor.tested_versions().keys()
    in_wheel = tmp_path / "constraints.txt"
    in_wheel.write_text("torch==0.1+cpu ; python_version > '3'\n# a comment\n", encoding="utf-8")
    monkeypatch.setattr(doctor, "IN_WHEEL", in_wheel)
    assert doctor.tested_versions() == {"torch": "0.1+cpu"}


def test_advice_fits_the_place(monkeypatch, tmp_path):
    """ "Run make setup", to somebody who has no Makefile."""
    monkeypatch.setattr(doctor, "_required_packages", lambda: ["no-such-package"])
    assert "make setup" in doctor._packages().advice
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert 'pip install "kdcourse[course]"' in doctor._packages().advice


def test_a_missing_package_is_a_problem(monkeypatch):
    """`Trainer` without accelerate, found out in the middle of a lesson."""
    monkeypatch.setattr(doctor, "_required_packages", lambda: ["torch", "no-such-package"])
    finding = doctor._packages()
    assert (finding.level, finding.seen) == ("problem", "not installed: no-such-package")


def test_the_required_packages_are_those_of_the_project():
    """A list of its own that goes out of date."""
    required = doctor._required_packages()
    assert {"torch", "transformers", "accelerate", "papermill", "typer", "matplotlib"} <= set(required)
    assert all(importlib.metadata.version(name) for name in required)
    assert "pytest" not in required


def test_the_kernel_of_another_python_is_a_problem(monkeypatch):
    """A kernel that somebody registered for another environment, without our packages."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = namedtuple("Spec", "argv")(["/bin/sh"])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: spec)
    assert doctor._kernel().level == "problem"


@pytest.mark.parametrize("reachable", [True, False])
def test_the_hub_is_no_condition(monkeypatch, reachable):
    """A course that calls for a hub that it does not need."""

    class Connection:
        def close(self):
            pass

    def connect(*_, **__):
        if not reachable:
            raise OSError("no route")
        return Connection()

    monkeypatch.setattr(doctor.socket, "create_connection", connect)
    finding = doctor._hub()
    assert finding.level == "ok"
    assert ("out of reach" in finding.seen) is not reachable
