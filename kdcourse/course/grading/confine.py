"""What a learner's process may do, and what this system holds it to.

Linux has the means for all of it: namespaces (no network, no other process in sight, a file system that can be read and
not written) and a filter of system calls (no new process, no socket). Elsewhere there are the limits of POSIX, and on
Windows the clock alone. `enforced` tries each in a confined process and says which of them hold here.

The order in a process: it is started by `command`, imports what it needs, and calls `enter` before it runs a line of a
learner's. There is no way back.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kdcourse

FLAGS = ("--user", "--map-root-user", "--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child",
         "--mount-proc")  # fmt: skip
RULES = {
    "time": "a call is stopped when its time is over",
    "memory": "memory beyond the limit is not given",
    "large files": "a file beyond the limit is not written",
    "processes": "no other process is started",
    "network": "nothing is sent and nothing received",
    "writing": "nothing is written outside a folder of its own, which is deleted, and to no terminal",
    "reading": "other submissions, the results, the solutions and your own settings and keys cannot be read",
}
"""What a learner's process is to be held to, in words."""
SCRATCH_BYTES = 64 * 2**20
FILE_BYTES = 16 * 2**20
OPEN_FILES = 128


@dataclass(frozen=True)
class Limits:
    """For one process.

    `memory_bytes` come on top of what it has when it enters; `hidden` are folders that it must not read.
    """

    scratch: str
    memory_bytes: int = 2 * 2**30
    cpu_seconds: int = 300
    hidden: tuple[str, ...] = ()
    in_namespaces: bool = False

    @classmethod
    def read(cls, told: dict[str, Any]) -> Limits:
        return cls(**told | {"hidden": tuple(told["hidden"])})

    def told(self) -> dict[str, Any]:
        return asdict(self)


# ---------------------------------------------------------------------------------------------------------------------
# From outside


@cache
def has_namespaces() -> bool:
    """Whether this user may make them here; a container often forbids it."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    tried = subprocess.run(  # noqa: S603
        [str(shutil.which("unshare")), *FLAGS, "true"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return tried.returncode == 0


@cache
def _setpriv() -> str:
    """A program that ends what it starts when whoever started it has ended."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    if not found:
        return ""
    tried = subprocess.run([found, "--pdeathsig", "KILL", "true"], capture_output=True, check=False)  # noqa: S603
    return found if tried.returncode == 0 else ""


def command(module: str) -> list[str]:
    """How a module is started, in namespaces where there are any."""
    around = [str(shutil.which("unshare")), *FLAGS, "--"] if has_namespaces() else []
    with_its_parent = [setpriv, "--pdeathsig", "KILL"] if (setpriv := _setpriv()) else []
    return [*with_its_parent, *around, sys.executable, "-s", "-P", "-m", module]


def environment(scratch: Path) -> dict[str, str]:
    """What a process starts with: none of the user's own variables, which may hold secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(Path(kdcourse.__file__).parents[1]), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(scratch), "TMPDIR": str(scratch),
        "TORCHDYNAMO_DISABLE": "1",  # what is compiled in a notebook runs as it is: no compiler can be started
        "TEMP": str(scratch), "KDCOURSE_PROGRESS": str(scratch / "progress.json"),
    }  # fmt: skip


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that a process may write to, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kdcourse-grade-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def started(module: str, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads and writes messages; it is ended, with all that it has started, when this is left."""
    process = subprocess.Popen(  # noqa: S603
        command(module), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=scratch,
        env=environment(scratch), start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was `started`, and what it has started; once more does no harm."""
    end_at_once(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()


def end_at_once(process: subprocess.Popen[bytes]) -> None:
    """The same, for a thread that is not the one that talks to it."""
    if process.poll() is None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
    process.kill()


def may_be_hidden(folder: Path) -> bool:
    """Whether a process can do without a folder: nothing that it imports is in it."""
    needed = [sys.prefix, sys.base_prefix, kdcourse.__file__, tempfile.gettempdir(), *filter(None, sys.path)]
    return not any(Path(each).resolve().is_relative_to(folder.resolve()) for each in needed)


@cache
def enforced() -> dict[str, bool]:
    """Which of the `RULES` hold here, each tried in a confined process that breaks it."""
    with scratch_folder() as scratch, scratch_folder() as elsewhere:
        (elsewhere / "read.txt").write_text("secret", encoding="utf-8")
        limits = Limits(str(scratch), hidden=(str(elsewhere),), in_namespaces=has_namespaces())
        with started(__name__, scratch) as process:
            words = json.dumps([limits.told(), str(elsewhere)]).encode()
            try:
                said, _ = process.communicate(words, timeout=60)
                found = json.loads(said)
            except (subprocess.TimeoutExpired, ValueError, OSError):
                found = {}
        found["writing"] = found.get("writing", False) and not (elsewhere / "written.txt").exists()
    return {name: name == "time" or bool(found.get(name)) for name in RULES}


# ---------------------------------------------------------------------------------------------------------------------
# From inside


def enter(limits: Limits) -> None:
    """Give up, for good, what a learner's code is not to have. What this system lacks is left out."""
    if limits.in_namespaces:
        _close_the_file_system(limits)
    _limit(limits)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            _drop_privileges()
        with contextlib.suppress(OSError):
            _filter_calls()
    os.chdir(limits.scratch)


def _limit(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {
        "RLIMIT_AS": _address_space() + limits.memory_bytes, "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_FSIZE": FILE_BYTES, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_CORE": 0,
    }  # fmt: skip
    if not _has_filter():
        bounds["RLIMIT_NPROC"] = 0
    for name, bound in bounds.items():
        if hasattr(resource, name):
            with contextlib.suppress(ValueError, OSError):  # macOS knows some of these and refuses them
                resource.setrlimit(getattr(resource, name), (bound, bound))


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 8 * 2**30
    return pages * os.sysconf("SC_PAGE_SIZE")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, SYS_MOUNT_SETATTR = -100, 0x8000, 1, 442
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_DUMPABLE = 24, 38, 22, 4
CAPABILITY_VERSION, LAST_CAPABILITY = 0x20080522, 63


DEVICES = ("null", "zero", "full", "random", "urandom")
"""What a process keeps of /dev, where others are the terminals of whoever grades, or a whole disk."""


def _close_the_file_system(limits: Limits) -> None:
    """All of it can be read, but for what is hidden; one small folder can be written to."""
    libc = _libc()

    def mount_empty(folder: str, size: int) -> None:
        options = f"size={size},mode=700".encode()
        _checked(libc.mount(b"none", os.fsencode(folder), b"tmpfs", MS_NOSUID | MS_NODEV, options))

    def keep_few_devices() -> None:
        kept = {place: os.open(place, os.O_PATH) for name in DEVICES if Path(place := f"/dev/{name}").exists()}
        mount_empty("/dev", 4096)
        for place, opened in kept.items():
            Path(place).touch()
            _checked(libc.mount(f"/proc/self/fd/{opened}".encode(), place.encode(), None, MS_BIND, None))
            os.close(opened)

    keep_few_devices()
    sockets = [folder for folder in ("/run", "/var/run") if Path(folder).is_dir() and not Path(folder).is_symlink()]
    for folder in [*limits.hidden, *sockets]:
        if Path(folder).is_dir():
            mount_empty(folder, 4096)
    read_only = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    _checked(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, len(read_only)))
    mount_empty(limits.scratch, SCRATCH_BYTES)


def _drop_privileges() -> None:
    """Root in a namespace of its own may mount there; not any more."""
    libc = _libc()
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, nothing = struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", *[0] * 6)
    _checked(libc.capset(header, nothing))


NEW_CALLS = (424, 425, 428, 429, 430, 431, 432, 434, 438, 442)
"""pidfd_send_signal, io_uring_setup, open_tree, move_mount, fsopen, fsconfig, fsmount, pidfd_open, pidfd_getfd,
mount_setattr: they have one number everywhere."""
CALLS = {
    "x86_64": (
        0xC000003E,
        56,  # clone
        (57, 58, 59, 322, 41, 42, 49, 101, 165, 166, 272, 308, 319, 321, 310, 311, 250, 248, 249, 62, 200, 304, 298,
         323, 161, 155, 167, 168, 169, 175, 313, 29, 68, 64),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (221, 281, 198, 203, 200, 117, 40, 39, 97, 268, 279, 280, 270, 271, 219, 217, 218, 129, 130, 265, 241, 282, 51,
         41, 105, 273, 194, 186, 190),
    ),
}  # fmt: skip
"""For each machine: its mark, the number of `clone`, and what is refused: fork, vfork, execve, execveat; socket,
connect, bind; ptrace, mount, umount, unshare, setns, memfd_create, bpf, reading and writing other processes; keyrings;
kill and tkill; open_by_handle_at, perf_event_open, userfaultfd; chroot, pivot_root, swap, reboot, modules; memory,
messages and semaphores of System V."""
CLONE3 = 435
CLONE_THREAD = 0x10000
EPERM, ENOSYS = 1, 38
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000
AT_NUMBER, AT_MACHINE, AT_FIRST_ARGUMENT = 0, 4, 16


def _has_filter() -> bool:
    return sys.platform == "linux" and platform.machine() in CALLS


def _filter_calls() -> None:
    """From now on these system calls fail: a thread can be started, a process cannot. See seccomp(2)."""
    if not _has_filter():
        return
    mark, clone, refused = CALLS[platform.machine()]
    lines = [
        (LOAD, 0, 0, AT_MACHINE), (EQUAL, 1, 0, mark), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, AT_NUMBER), (AT_LEAST, 0, 1, X32), (RETURN, 0, 0, ERROR | EPERM),
        (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERROR | ENOSYS),  # so that the C library takes clone
    ]  # fmt: skip
    for number in (*refused, *NEW_CALLS):
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | EPERM)]
    lines += [
        (EQUAL, 0, 3, clone), (LOAD, 0, 0, AT_FIRST_ARGUMENT), (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, ERROR | EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code))
    _checked(_libc().prctl(PR_SET_SECCOMP, 2, program, 0, 0))


# ---------------------------------------------------------------------------------------------------------------------
# Trying


def _is_refused(act: Callable[[], object], errors: tuple[type[Exception], ...] = (OSError,)) -> bool:
    try:
        act()
    except errors:
        return True
    return False


def _forks() -> None:
    if not hasattr(os, "fork"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    elif os.fork() == 0:
        os._exit(0)


def _connects() -> None:
    """Port 9 throws away what it is sent; nobody has to listen for an address to be reachable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect(("192.0.2.1", 9))


def _try_all(limits: Limits, elsewhere: Path) -> dict[str, bool]:
    beyond = limits.memory_bytes + 2**28
    return {
        "memory": _is_refused(lambda: bytearray(beyond), (MemoryError,)),
        "large files": _is_refused(lambda: Path("large").write_bytes(bytes(FILE_BYTES + 1))),
        "processes": _is_refused(_forks),
        "network": _is_refused(_connects),
        "writing": _is_refused(lambda: (elsewhere / "written.txt").write_text("here", encoding="utf-8")),
        "reading": _is_refused(lambda: (elsewhere / "read.txt").read_text(encoding="utf-8")),
    }


def main(arguments: Sequence[Any]) -> None:
    told, elsewhere = arguments
    limits = Limits.read(told)
    enter(limits)
    print(json.dumps(_try_all(limits, Path(elsewhere))))


if __name__ == "__main__":
    main(json.load(sys.stdin))
