"""Notebooks that attack whoever grades them: each is a line of its own, and nothing outside is touched."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from handed_in import RIGHT, archive, function, handed_in, one, solved

import kdcourse
from kdcourse.course.exercises.progress import FILE_VARIABLE
from kdcourse.course.grading import confine
from kdcourse.course.grading.room import Granted, grade_room, hidden_folders
from kdcourse.hashing import hash_tree

NAME = "02.kl_per_row"
PACKAGE = Path(kdcourse.__file__).parent
PATCHES = (
    "import kdcourse.course.exercises.diagnosis as d\n"
    "import kdcourse.course.exercises as exercises\n"
    "d.diagnose = d.check = exercises.check = exercises.verify = lambda *_: d.Diagnosis('passed', 'yes')\n"
)
FORGED = (
    "import sys, json\n"
    "frame = sys._getframe()\n"
    "while 'peer' not in frame.f_locals: frame = frame.f_back\n"
    "peer = frame.f_locals['peer']\n"
    "for word in ('passed', {'is': 'written', 'as': 'passed'}, {'verdict': 'passed', 'kind': 'passed'}):\n"
    "    peer._send({'do': 'value', 'value': word, 'verdict': 'passed', 'kind': 'passed', 'status': 'graded'}, [])\n"
    "return student_logits.sum(-1)"
)
STOLEN = (
    "import gc, sys\n"
    "for each in gc.get_objects():\n"
    "    if type(each).__name__ == 'Exercise' and each.id == '02.kl_per_row':\n"
    "        return each.reference(student_logits, teacher_logits)\n"
    "import kdcourse.course.exercises.lesson02 as lesson\n"
    "return lesson.KL_PER_ROW.reference(student_logits, teacher_logits)"
)
READ = (
    f"code = open({str(PACKAGE / 'course' / 'exercises' / 'logits.py')!r}).read()\n"
    "names = {}\nexec(code, names)\nreturn names['kl_per_row'](student_logits, teacher_logits)"
)
LIES = (
    "class Liar(torch.Tensor):\n"
    "    __eq__ = __ne__ = lambda self, other: True\n"
    "    def __torch_function__(self, *given, **named): return True\n"
    "return torch.zeros(len(student_logits)).as_subclass(Liar)"
)
ENDLESS = "while True:\n    try:\n        pass\n    except BaseException:\n        pass"
SHOUTS_AT = (
    "import os\n"
    "for place in ({!r}, '/dev/tty', *(f'/dev/pts/{{n}}' for n in range(20))):\n"
    "    try:\n        os.write(os.open(place, os.O_WRONLY | os.O_NOCTTY), b'your terminal is mine')\n"
    "    except OSError:\n        pass\n"
    "assert set(os.listdir('/dev')) <= {{'null', 'zero', 'full', 'random', 'urandom'}}\n"
    "open('/dev/null', 'wb').write(b'x')\n"
)
"""All terminals are tried; then other devices are looked for: a disk is one."""
ASLEEP = "import time\nwhile True:\n    time.sleep(1)"
EATS = "x = []\nwhile True:\n    x.append(bytearray(10**8))"
FORKS = "import os\nwhile True:\n    os.fork()"
COMPILED = "log_softmax = torch.compile(torch.log_softmax)\nlog_softmax(student_logits, -1)\n" + RIGHT[NAME]
PRINTS = "print('x' * 100_000_000)\nimport sys\nsys.stderr.write('x' * 100_000_000)\n" + RIGHT[NAME]
RETURNS = "return torch.zeros(400_000_000, dtype=torch.uint8)"
LEAVES = "import os\nos._exit(0)"
KILLS = "import os, signal\nfor pid in (os.getppid(), -1, os.getpid()):\n    os.kill(pid, signal.SIGKILL)"
PRIVATE = "the instructor's own"
FILLS = "while True:\n    open(f'{id(object())}', 'ab').write(bytes(10**7))"


def shouts(port):
    return (
        "import socket\nwith socket.create_connection(('127.0.0.1', " + str(port) + "), timeout=3) as s:\n"
        "    s.sendall(b'hello')\n" + RIGHT[NAME]
    )


def writes_to(paths):
    """Everything is tried, then the right answer is given."""
    return (
        f"import os, shutil\nfor path in {[str(path) for path in paths]!r}:\n"
        "    for act in (lambda: open(path, 'w').write('mine'), lambda: os.remove(path),\n"
        "                lambda: os.chmod(path, 0o777), lambda: os.rename(path, path + '.gone'),\n"
        "                lambda: shutil.rmtree(os.path.dirname(path))):\n"
        "        try:\n            act()\n        except Exception:\n            pass\n" + RIGHT[NAME]
    )


def in_the_notebook(content, source):
    """A cell before all others."""
    content["cells"].insert(0, {"cell_type": "code", "source": source, "metadata": {}, "outputs": []})
    return content


@pytest.fixture(scope="module")
def harmed(tmp_path_factory):
    """What must stay as it is: a canary beside the room, a progress file, another's notebook, the installation."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "canary.txt").write_text("alive", encoding="utf-8")
    (folder / "progress.json").write_text('{"00.soft_label": {"passed": 1}}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def listener():
    """A port of this machine, and who has come."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        is_over = threading.Event()

        def listen():
            while not is_over.is_set():
                try:
                    heard.append(server.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], heard
        is_over.set()
        thread.join()


@pytest.fixture(scope="module")
def terminal():
    """A terminal of whoever grades: its path, and what arrives there."""
    pty = pytest.importorskip("pty")
    arrives, ours = pty.openpty()
    os.set_blocking(arrives, False)
    yield os.ttyname(ours), arrives
    os.close(arrives)
    os.close(ours)


@pytest.fixture(scope="module")
def room(tmp_path_factory, harmed, listener, terminal):
    """All of them, graded at once: rows by file, and the folders."""
    place = tmp_path_factory.mktemp("room")
    folder, out = place / "in", place / "out"
    targets = [harmed / "canary.txt", harmed / "progress.json", PACKAGE / "course" / "exercises" / "logits.py",
               PACKAGE / "kdcourse_was_here", folder / "right.ipynb", out / "grades.json", Path("/tmp/kdcourse-canary")]  # noqa: S108  # fmt: skip
    bodies = {
        "tampers": PATCHES + RIGHT[NAME].replace("return", "return 2 *", 1), "forges": FORGED, "steals": STOLEN,
        "reads": READ, "lies": LIES, "endless": ENDLESS, "asleep": ASLEEP, "eats": EATS, "forks": FORKS,
        "prints": PRINTS, "returns": RETURNS, "leaves": LEAVES, "kills": KILLS, "fills": FILLS,
        "terminal": SHOUTS_AT.format(terminal[0]) + RIGHT[NAME], "compiles": COMPILED,
        "shouts": shouts(listener[0]), "writes": writes_to(targets), "right": RIGHT[NAME],
    }  # fmt: skip
    (place / "home" / ".ssh").mkdir(parents=True)
    (place / "home" / ".ssh" / "key").write_text(PRIVATE, encoding="utf-8")
    bodies["tells"] = f"raise ValueError(open({str(place / 'home' / '.ssh' / 'key')!r}).read())"
    files = {f"{name}.ipynb": one(NAME, body) for name, body in bodies.items()}
    files["patches.ipynb"] = in_the_notebook(one(NAME, "return None"), PATCHES)
    files["renamed.ipynb"] = json.dumps(one(NAME, RIGHT[NAME]))
    files["report.ipynb"] = "%PDF-1.4 and so on"
    loop = solved("03")
    for cell in loop["cells"]:
        if "03.loop" in cell["source"] and "exercises.check" in cell["source"]:
            cell["source"] = function("03.loop", "import os\nos._exit(0)") + 'exercises.check("03.loop", distill)'
    files["loop.ipynb"] = loop
    handed_in(folder, files)
    archive(folder / "slip.zip", {"../../slipped.ipynb": json.dumps(one(NAME, RIGHT[NAME]))})
    if sys.platform != "win32":
        (folder / "link.ipynb").symlink_to(harmed / "canary.txt")
    before = hash_tree(PACKAGE, PACKAGE.rglob("*.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FILE_VARIABLE, str(harmed / "progress.json"))
        patch.setenv("HOME", str(place / "home"))
        rows = grade_room(folder, out, Granted(seconds=900, memory_bytes=2**30), 2)
    return {row.file: row for row in rows}, folder, out, before


EXPECTED = {
    "tampers": "error", "forges": ("error", "different"), "steals": "error",
    "lies": ("different", "error", "misconception"),
    "endless": "timed out", "asleep": "timed out", "eats": "error", "prints": "passed", "returns": "error",
    "leaves": "error", "patches": "error", "right": "passed", "compiles": "passed",
}  # fmt: skip
HELD = {
    "reads": ("reading", "error"), "tells": ("reading", "error"),
    "forks": ("processes", "error"), "kills": ("processes", "error"),
    "terminal": ("writing", "passed"),
    "shouts": ("network", "error"), "writes": ("writing", "passed"), "fills": ("large files", ("error", "timed out")),
}  # fmt: skip
"""Where this system holds a process to the rule."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXPECTED, *HELD])
def test_a_hostile_notebook_gets_a_line_of_its_own(name, room):
    """A notebook that grades itself, or takes the room with it."""
    rows, *_ = room
    if name in HELD and not confine.enforced()[HELD[name][0]]:
        pytest.skip(f"not held on this system: {HELD[name][0]}")
    expected = EXPECTED[name] if name in EXPECTED else HELD[name][1]
    found = rows[f"{name}.ipynb"].exercises[NAME]
    assert found["verdict"] in ((expected,) if isinstance(expected, str) else expected), found


@pytest.mark.slow
def test_what_is_no_notebook_is_refused(room):
    """The same, for what is not even one."""
    rows, *_ = room
    refused = {name for name, row in rows.items() if row.status == "refused"}
    assert {"report.ipynb", "slip.zip/../../slipped.ipynb"} <= refused
    assert sys.platform == "win32" or "link.ipynb" in refused
    assert len(refused) <= 3


@pytest.mark.slow
def test_an_answer_beside_its_check_is_read_first(room):
    """A training loop that ends the process which checks it, and the exercises of the same notebook with it."""
    found = room[0]["loop.ipynb"].exercises
    assert found["03.loop"]["verdict"] == "refused"
    assert "os" in found["03.loop"]["message"]
    assert found["03.objective"]["verdict"] == "passed"


@pytest.mark.slow
def test_somebody_elses_notebook_is_noted(room):
    """The same file under another name, that nobody sees; or an accusation."""
    rows, *_ = room
    assert rows["renamed.ipynb"].notes == ["The same file, byte for byte, as right.ipynb."]
    assert rows["renamed.ipynb"].exercises == rows["right.ipynb"].exercises


@pytest.mark.slow
@pytest.mark.skipif(not confine.enforced()["writing"], reason="this system does not hold a process to it")
def test_nothing_outside_is_touched(room, harmed, listener):
    """A canary that is dead, a progress that is another one, an installation that is not as it was."""
    rows, folder, out, before = room
    assert {path.name: path.read_text(encoding="utf-8") for path in harmed.iterdir()} == {
        "canary.txt": "alive", "progress.json": '{"00.soft_label": {"passed": 1}}',
    }  # fmt: skip
    assert hash_tree(PACKAGE, PACKAGE.rglob("*.py")) == before
    assert not (PACKAGE / "kdcourse_was_here").exists()
    assert not Path("/tmp/kdcourse-canary").exists()  # noqa: S108
    assert not (folder.parents[1] / "slipped.ipynb").exists()
    assert json.loads((folder / "right.ipynb").read_text(encoding="utf-8"))["nbformat"] == 4
    assert len(json.loads((out / "grades.json").read_text(encoding="utf-8"))) == len(rows)
    assert listener[1] == []


@pytest.mark.slow
@pytest.mark.skipif(not confine.enforced()["writing"], reason="this system does not hold a process to it")
def test_no_terminal_is_written_to(room, terminal):
    """Words, or what a terminal obeys, on the screen of whoever grades."""
    with pytest.raises(BlockingIOError):
        os.read(terminal[1], 100)


def test_a_clone_hides_its_solutions(tmp_path, monkeypatch):
    """An answer that is read from the tests, or from the history, beside the package."""
    root = PACKAGE.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("this package lies in no clone")
    of_tests = [each for each in sys.path if Path(each).is_relative_to(root / "tests") or each == str(root / "docs")]
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in of_tests])
    hidden = hidden_folders(tmp_path)
    assert {str(root / "tests"), str(root / "docs")} <= set(hidden)
    assert not any(PACKAGE.is_relative_to(each) for each in hidden)


@pytest.mark.slow
@pytest.mark.skipif(not confine.enforced()["reading"], reason="this system does not hold a process to it")
def test_no_secret_is_told(room):
    """A file of whoever grades, in a message of the table that everybody gets."""
    rows, _, out, _ = room
    assert "FileNotFoundError" in rows["tells.ipynb"].exercises[NAME]["message"]
    assert not any(PRIVATE in path.read_text(encoding="utf-8") for path in out.glob("grades.*"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork to be refused")
def test_linux_holds_a_process_to_all_of_it():
    """A rule that is said to hold, or said not to hold, and nobody has tried."""
    held = confine.enforced()
    assert set(held) == set(confine.RULES)
    if confine.has_namespaces():
        assert all(held.values()), held
