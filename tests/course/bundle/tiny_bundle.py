"""A bundle of a few MiB, with wheels that are written by hand, for tests of what happens to bundles."""

import base64
import ensurepip
import hashlib
import importlib.metadata
import platform
import random
import subprocess
import sys
import zipfile
from pathlib import Path

from kdcourse.course.bundle.install import this_python
from kdcourse.course.bundle.packing import pack

ARCHIVE = "tiny.zip"
FITS = this_python() | {"version": platform.python_version(), "system_version": ""}
LABS = """
import os
from pathlib import Path

def cache_dir():
    return Path(os.environ["KDCOURSE_CACHE"])
"""


def tiny_files(folder, sizes=(("assets/mini-1/data.bin", 2**21 + 17), ("slides/00.html", 900), ("site/index.html", 0))):
    """Files of random bytes, by their names in the bundle."""
    source, files = random.Random(0), {}
    for name, size in sizes:
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(source.randbytes(size))
    return files


def tiny_bundle(folder, files=None, made_for=FITS, installed_bytes=0):
    """Write a bundle to `folder / "room"`; its path."""
    pack(files or tiny_files(folder / "files"), made_for, installed_bytes, ARCHIVE, folder / "room")
    return folder / "room"


def wheel(folder, name, modules):
    """A wheel of pure Python, as PEP 427 has it."""
    info, folder = f"{name}-1.0.dist-info", Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(modules) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_urlsafe(text)},{len(text)}" for path, text in files.items()] + [f"{info}/RECORD,,"]
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in (files | {f"{info}/RECORD": "\n".join(lines)}).items():
            archive.writestr(inside, text)
    return path


def wheel_again(folder, name):
    """A wheel of a package of pure Python that is installed here, out of its files."""
    installed = importlib.metadata.distribution(name)
    path = folder / f"{name}-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in installed.files:
            if ".." not in file.parts and file.suffix != ".pyc":
                archive.write(file.locate(), file)
    return path


def _urlsafe(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def installable_files(folder):
    """What a real bundle has of each kind: wheels with pip among them, an asset, a lesson, slides, a site."""
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    modules = {"kdcourse/__init__.py": "", "kdcourse/labs/__init__.py": "", "kdcourse/labs/assets.py": LABS}
    wheels = [pip, wheel(folder, "kdcourse", modules), wheel(folder, "tinyother", {"tinyother.py": "VALUE = 1\n"})]
    more = (("learner/00.ipynb", 50),)
    return {f"wheels/{path.name}": path for path in wheels} | tiny_files(folder / "files") | tiny_files(folder, more)


def run_installer(room, *arguments, cwd, **environment):
    """What `install.py` of a bundle says and answers, in a process of its own and with a clean environment."""
    command = [sys.executable, str(room / "install.py"), *map(str, arguments)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "SYSTEMROOT": "C:\\Windows"} | environment
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)
