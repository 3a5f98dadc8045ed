"""A bundle for machines like this one: wheels, assets, the lessons for learners, slides, and the site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kdcourse
from kdcourse.course.bundle import wheels
from kdcourse.course.bundle.install import this_python
from kdcourse.course.bundle.packing import pack
from kdcourse.course.doctor import ROOT, is_clone
from kdcourse.course.editions import write_editions
from kdcourse.course.lessons import course_lessons
from kdcourse.course.misuse import MisuseError
from kdcourse.labs import assets

ROOM, EDITIONS, WHEELS = "room", "editions", "wheels"
"""The folders of a bundle: what is handed out, what is the instructor's, and what the next bundle need not fetch."""
FOR_LEARNERS = ("learner", "slides")
"""The editions without solutions."""
BUILT_SITE = ROOT / "build" / "site"
"""Where `make site` puts it, in a clone."""

Announce = Callable[[str], object]


def make_bundle(out: Path, wheel_folder: Path | None, site: Path | None, announce: Announce) -> str:
    """Write `room/`, the bundle, and `editions/`, which has the solutions, below `out`.

    Args:
        wheel_folder: where wheels lie, and where those that are missing are downloaded to; `wheels/` below `out`
            if it is None.
        site: the folder of a built site; where a clone builds it if it is None.

    Returns:
        The SHA-256 of the `install.py` of the bundle.

    Raises:
        BundleError, AssetError: a wheel or an asset cannot be had.
        MisuseError: `site` holds no site.
    """
    pages = _site(site, announce)
    versions = wheels.needed()
    found = wheels.collect(versions, wheel_folder or out / WHEELS, announce)
    files = {f"wheels/{path.name}": path for path in found.values()} | pages
    for asset in assets.catalogue().values():
        folder = assets.fetch(asset.name, announce=announce)
        files |= {f"assets/{asset.folder.name}/{name}": folder / name for name in asset.files}
    announce("Writing the editions …")
    write_editions(course_lessons(), out / EDITIONS)
    for edition in FOR_LEARNERS:
        files |= _files_of(out / EDITIONS / edition, edition)
    announce("Packing …")
    made_for = this_python() | {
        "version": wheels.oldest_python(versions),
        "system_version": wheels.oldest_system(path.name for path in found.values()),
    }
    return pack(files, made_for, wheels.installed_bytes(versions), _archive_name(made_for), out / ROOM)


def _archive_name(made_for: Mapping[str, Any]) -> str:
    """`kdcourse-0.1.0-python3.11-linux-x86_64.zip`."""
    return f"kdcourse-{kdcourse.__version__}-python{made_for['python']}-{made_for['system']}-{made_for['machine']}.zip"


def _site(chosen: Path | None, announce: Announce) -> dict[str, Path]:
    """The files of the site that was named, or of the one that is built; none if there is none.

    Raises:
        MisuseError: the folder that was named holds no site.
    """
    folder = chosen or BUILT_SITE
    if (folder / "index.html").is_file():
        return _files_of(folder, "site")
    if chosen:
        raise MisuseError(f"{chosen} holds no index.html; `make site` in a clone builds the site, in build/site.")
    how = "`make site` builds it" if is_clone() else "a clone can build it, and --site FOLDER takes it from there"
    announce(f"The bundle is made without the site, which is not built: {how}.")
    return {}


def _files_of(folder: Path, name: str) -> dict[str, Path]:
    """All files below a folder by their path in the bundle, hidden ones and links left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in below.parts):
            found[f"{name}/{below.as_posix()}"] = path
    return found
