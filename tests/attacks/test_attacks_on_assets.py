"""Archives and indexes that want more than to be read: nothing of them is run, and only what is named is taken."""

import base64
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcourse.labs import assets
from kdcourse.labs.assets import Asset, AssetError, Package

ROWS = b"what the asset holds\n" * 50
MEMBER = "toy_asset-1.0/data/rows.txt"
METADATA = b"Metadata-Version: 2.1\nName: toy-asset\nVersion: 1.0\n"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tarred(*members):
    """A tar.gz of (name, content) pairs and of ready-made TarInfos."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def an_asset(file, archive, member=MEMBER, nested=None):
    """An asset whose package is pinned as it is, so that only what it holds can be wrong."""
    package = Package("toy-asset", "1.0", file, len(archive), sha256(archive), nested)
    return Asset("toy", "a toy", "MIT", "nobody", package, {member: sha256(ROWS)})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no package index but the one that a test gives."""
    for variable in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def serve(monkeypatch, asset, archive):
    """Let `fetch` find the archive, without pip."""

    def download(package, folder):
        (folder / package.file).write_bytes(archive)
        return folder / package.file

    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": asset})
    monkeypatch.setattr(assets, "download", download)


def files(folder):
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def one_sentence(error):
    message = str(error.value if isinstance(error, pytest.ExceptionInfo) else error)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# What pip is made to run.


@pytest.fixture
def shelf(tmp_path, monkeypatch, cache):
    """A folder with an sdist whose setup.py tells on whoever runs it, and a setuptools 999 that does so, too."""
    told = tmp_path / "told"
    tell = f"open({str(told)!r}, 'a').write(__file__)\n"
    setup = f"{tell}from setuptools import setup\nsetup(name='toy-asset', version='1.0')\n"
    sdist = tarred(
        ("toy_asset-1.0/setup.py", setup.encode()),
        ("toy_asset-1.0/PKG-INFO", METADATA),
        (MEMBER, ROWS),
    )  # fmt: skip
    setuptools = zipped(
        ("setuptools/__init__.py", tell), ("setuptools/build_meta.py", tell),
        ("setuptools-999.dist-info/METADATA", "Metadata-Version: 2.1\nName: setuptools\nVersion: 999\n"),
        ("setuptools-999.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("setuptools-999.dist-info/RECORD", ""),
    )  # fmt: skip
    folder = tmp_path / "shelf"
    for project, file, content in (
        ("toy-asset", "toy_asset-1.0.tar.gz", sdist),
        ("setuptools", "setuptools-999-py3-none-any.whl", setuptools),
    ):
        page = folder / "simple" / project
        page.mkdir(parents=True)
        (page / file).write_bytes(content)
        (page / "index.html").write_text(f'<a href="{file}">{file}</a>', encoding="utf-8")
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": an_asset("toy_asset-1.0.tar.gz", sdist)})
    return folder


def is_told(shelf):
    return (shelf.parent / "told").exists()


@contextmanager
def behind_a_password(folder, user, password):
    """The folder on a loopback port, for those who know the password."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            if self.headers.get("Authorization") == expected:
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def wheelhouse(shelf, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{shelf / 'simple/toy-asset'} {shelf / 'simple/setuptools'}")
    yield


@contextmanager
def index_on_disk(shelf, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", (shelf / "simple").as_uri())
    yield


@contextmanager
def extra_index_in_pip_conf(shelf, monkeypatch):
    (shelf / "empty").mkdir()
    conf = shelf / "pip.conf"
    conf.write_text(
        f"[global]\nindex-url = {(shelf / 'empty').as_uri()}\nextra-index-url = {(shelf / 'simple').as_uri()}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(conf))
    yield


@contextmanager
def mirror_that_netrc_opens(shelf, monkeypatch):
    netrc = shelf / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin user\npassword secret\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with behind_a_password(shelf, "user", "secret") as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [wheelhouse, index_on_disk, extra_index_in_pip_conf, mirror_that_netrc_opens], ids=lambda f: f.__name__
)
def test_a_source_archive_is_taken_and_never_built(source, shelf, monkeypatch):
    """`setup.py` of the archive, or whatever setuptools an index offers today, run to ask for metadata."""
    with source(shelf, monkeypatch):
        folder = assets.fetch("toy")
    assert files(folder) == {"rows.txt": ROWS}
    assert not is_told(shelf)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PIP_NO_BINARY", ":all:"), ("PIP_ONLY_BINARY", ":all:"), ("PIP_NO_BUILD_ISOLATION", "0"),
        ("PIP_QUIET", "3"), ("PIP_VERBOSE", "3"), ("PIP_CONSTRAINT", "constraints.txt"), ("PIP_PRE", "1"),
        ("PYTHONPATH", "elsewhere"), ("PYTHONSAFEPATH", "1"), ("PYTHONUTF8", "0"),
    ],
)  # fmt: skip
def test_a_users_settings_of_pip_change_nothing(variable, value, shelf, monkeypatch):
    """A pip.conf that was written for something else, and brings the builds back or stops the download."""
    constraints = shelf / "constraints.txt"
    constraints.write_text("setuptools==999\n", encoding="utf-8")
    monkeypatch.setenv(variable, str(constraints) if variable == "PIP_CONSTRAINT" else value)
    with wheelhouse(shelf, monkeypatch):
        assert files(assets.fetch("toy")) == {"rows.txt": ROWS}
    assert not is_told(shelf)


@pytest.mark.slow
def test_an_archive_that_was_swapped_is_neither_opened_nor_kept(shelf, monkeypatch):
    """A bomb, or a setup.py, that is unpacked before anybody looks at the hash."""
    swapped = tarred(("toy_asset-1.0/setup.py", b"raise SystemExit"), (MEMBER, bytes(50_000_000)))
    (shelf / "simple/toy-asset/toy_asset-1.0.tar.gz").write_bytes(swapped)
    monkeypatch.setattr(assets, "opened", lambda *_: pytest.fail("opened"))
    with wheelhouse(shelf, monkeypatch), pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "does not have the SHA-256" in one_sentence(error)
    assert [path.name for path in assets.cache_dir().iterdir()] == [".lock"]
    assert not is_told(shelf)


@pytest.mark.slow
def test_without_any_index_there_is_a_sentence(shelf, monkeypatch):
    """pip's lines about retries."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "could not be downloaded" in one_sentence(error)


# What an archive holds.


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


HOSTILE = {
    "a path that climbs": [("toy_asset-1.0/../../../escaped.txt", b"!")],
    "a path from the root": [("/kdcourse-escaped.txt", b"!")],
    "a link out": [link("toy_asset-1.0/escaped.txt", "../../../..")],
    "a device": [special("toy_asset-1.0/device.txt", tarfile.CHRTYPE)],
    "a queue": [special("toy_asset-1.0/queue.txt", tarfile.FIFOTYPE)],
    "another case": [("toy_asset-1.0/DATA/rows.txt", b"!")],
    "the same name before": [(MEMBER, b"!")],
}


@pytest.mark.parametrize("others", HOSTILE.values(), ids=HOSTILE)
def test_what_lies_beside_a_member_is_left_where_it_is(others, cache, tmp_path, monkeypatch):
    """`extractall`, which follows an archive wherever it leads."""
    archive = tarred(*others, (MEMBER, ROWS))
    serve(monkeypatch, an_asset("toy_asset-1.0.tar.gz", archive), archive)
    before = files(tmp_path)
    folder = assets.fetch("toy")
    assert files(folder) == {"rows.txt": ROWS}
    assert files(tmp_path) == before | {"cache/toy-1.0/rows.txt": ROWS, "cache/.lock": b""}
    assert not Path("/kdcourse-escaped.txt").exists()


INSTEAD = {
    "a link to a secret": [link(MEMBER, "/etc/hostname")],
    "a hard link to a secret": [link(MEMBER, "/etc/hostname", tarfile.LNKTYPE)],
    "a link to itself": [link(MEMBER, MEMBER)],
    "a device": [special(MEMBER, tarfile.CHRTYPE)],
    "a queue": [special(MEMBER, tarfile.FIFOTYPE)],
    "a folder": [special(MEMBER, tarfile.DIRTYPE)],
    "another case": [(MEMBER.upper(), ROWS)],
    "a name that climbs to it": [("toy_asset-1.0/x/../data/rows.txt", ROWS)],
    "the same name behind": [(MEMBER, ROWS), (MEMBER, b"!")],
    "nothing": [],
}


@pytest.mark.parametrize("members", INSTEAD.values(), ids=INSTEAD)
def test_what_is_no_file_with_these_bytes_is_refused(members, cache, monkeypatch):
    """A file of the machine taken for one of the archive, a program that waits for a queue, or a traceback."""
    archive = tarred(*members)
    serve(monkeypatch, an_asset("toy_asset-1.0.tar.gz", archive), archive)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "rows.txt" in one_sentence(error)
    assert [path.name for path in cache.iterdir()] == [".lock"]


NESTED = "toy_asset-1.0/inner.tar.gz"
WHOLE = {
    "wheel": ("toy_asset-1.0-py3-none-any.whl", zipped(("toy_asset-1.0/more.txt", b"more"), (MEMBER, ROWS)), None),
    "sdist": ("toy_asset-1.0.tar.gz", tarred(("toy_asset-1.0/more.txt", b"more"), (MEMBER, ROWS)), None),
    "nested": ("toy_asset-1.0.tar.gz", tarred((NESTED, tarred((MEMBER, ROWS)))), NESTED),
}


def spoiled(archive, places, cut):
    content = bytearray(archive)
    for place, value in places:
        content[place % len(content)] = value
    return bytes(content[: max(1, int(cut * len(content)))])


def inside_out(kind, archive, spoil):
    """Spoil what is compressed, as the checksum of the compressed file keeps every other mistake away."""
    return spoil(archive) if kind == "wheel" else gzip.compress(spoil(gzip.decompress(archive)))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("inside", [False, True])
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoiled_archive_is_a_sentence(kind, inside, places, cut, tmp_path_factory, monkeypatch):
    """zlib.error, EOFError, NotImplementedError, "encrypted", ... from a file that was pinned as it is."""
    file, archive, nested = WHOLE[kind]

    def spoil(content):
        return spoiled(content, places, cut)

    archive = inside_out(kind, archive, spoil) if inside else spoil(archive)
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
    serve(monkeypatch, an_asset(file, archive, nested=nested), archive)
    try:
        folder = assets.fetch("toy")
    except AssetError as error:
        one_sentence(error)
        assert "cannot be written" not in str(error)
        assert [path.name for path in assets.cache_dir().iterdir()] == [".lock"]
    else:
        assert files(folder) == {"rows.txt": ROWS}


def test_an_encrypted_member_is_a_sentence(cache, monkeypatch):
    """RuntimeError from zipfile."""
    archive = bytearray(zipped((MEMBER, ROWS)))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive[archive.index(signature) + flags] |= 1
    serve(monkeypatch, an_asset("toy_asset-1.0-py3-none-any.whl", bytes(archive)), bytes(archive))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "encrypted" in one_sentence(error)


# What becomes of the cache later.


@pytest.fixture
def fetched(cache, monkeypatch):
    archive = tarred((MEMBER, ROWS))
    serve(monkeypatch, an_asset("toy_asset-1.0.tar.gz", archive), archive)
    return assets.fetch("toy")


@pytest.mark.parametrize("name", ["added_tokens.json", "pytorch_model.bin", "rows.txt.index.json"])
def test_a_file_that_was_put_beside_the_pinned_ones_is_found(name, fetched):
    """A tokenizer with other words, since `from_pretrained` reads whatever a folder holds."""
    (fetched / name).write_text("{}", encoding="utf-8")
    (fetched / "rows.txt").write_bytes(b"altered")
    with pytest.raises(AssetError) as error:
        assets.locate("toy")
    assert f"pins no such rows.txt, {name} in " in one_sentence(error)
    assert "--repair" in str(error.value)
    assert files(assets.fetch("toy", repair=True)) == {"rows.txt": ROWS}


def test_one_file_too_many_is_enough(fetched):
    """A check of the pinned files alone."""
    (fetched / "added_tokens.json").touch()
    assert not assets.is_present("toy")


def test_what_a_file_manager_leaves_is_no_damage(fetched):
    """An asset that is refused since somebody looked at its folder."""
    (fetched / ".DS_Store").touch()
    assert assets.locate("toy") == fetched


def test_a_folder_of_somebody_elses_is_not_deleted(fetched, tmp_path):
    """`--repair` that empties what a link in the cache leads to."""
    theirs = tmp_path / "theirs"
    fetched.rename(theirs)
    (theirs / "rows.txt").write_bytes(b"altered")
    fetched.symlink_to(theirs)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy", repair=True)
    one_sentence(error)
    assert (theirs / "rows.txt").read_bytes() == b"altered"


def test_a_file_in_the_place_of_the_folder_is_repaired(fetched):
    """ "Run `kdcourse assets`", which says the same again."""
    (fetched / "rows.txt").unlink()
    fetched.rmdir()
    fetched.write_bytes(b"")
    with pytest.raises(AssetError, match="--repair"):
        assets.locate("toy")
    assert files(assets.fetch("toy", repair=True)) == {"rows.txt": ROWS}
