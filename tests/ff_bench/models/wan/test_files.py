"""Where files are looked for, what is said when they are not there, and digests that are remembered."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from ff_bench.errors import UsageError
from ff_bench.models.wan import files
from ff_bench.models.wan.member import Source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill(hub: Path, repo: str, *names: str) -> Path:
    """Lay files into the cache as a download would; return the snapshot."""
    home = hub / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / ("a" * 40)
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("a" * 40)
    for name in names:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(name)
    return snapshot


def source(path: Path | str | None = None, repo: str = "owner/name", file: str = "a/b.pt") -> Source:
    return Source(path=None if path is None else str(path), repo=repo, file=file, licence="MIT")


def test_a_path_wins(tmp_path, hub) -> None:
    (tmp_path / "x.pt").write_text("x")
    fill(hub, "owner/name", "a/b.pt")
    assert files.locate(source(tmp_path / "x.pt"), what="weights") == tmp_path / "x.pt"


def test_a_path_that_is_not_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        files.locate(source(tmp_path / "x.pt"), what="weights of self_forcing")
    assert str(caught.value) == (
        f"weights of self_forcing are missing: there is no {tmp_path / 'x.pt'}; "
        "get it with 'hf download owner/name a/b.pt' and name where it lies"
    )


def test_files_and_folders_of_the_hub(hub) -> None:
    snapshot = fill(hub, "owner/name", "a/b.pt", "google/umt5-xxl/tokenizer.json")
    assert files.locate(source(), what="weights") == snapshot / "a/b.pt"
    folder = source(file="google/umt5-xxl")
    assert files.locate(folder, what="tokenizer files") == snapshot / "google/umt5-xxl"
    assert files.locate(source(file=""), what="files") == snapshot


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("a/b.pt", "hf download owner/name a/b.pt"),
        ("google/umt5-xxl", 'hf download owner/name --include "google/umt5-xxl/*"'),
        ("", "hf download owner/name"),
    ],
)
@pytest.mark.parametrize("has_repo", [False, True])
def test_missing_in_the_hub(hub, file: str, command: str, has_repo: bool) -> None:
    if has_repo:
        fill(hub, "owner/name", "other.txt")
        if not file:
            return
    with pytest.raises(FileNotFoundError) as caught:
        files.locate(source(file=file), what="weights of x")
    told = str(caught.value)
    assert "weights of x are missing" in told
    assert f"in the hub's cache {hub}" in told
    assert told.endswith(f"with '{command}'")
    assert "\n" not in told


def test_neither_path_nor_repository() -> None:
    with pytest.raises(FileNotFoundError, match="neither a path nor a repository"):
        files.locate(source(repo=""), what="weights")


@pytest.mark.parametrize("repo", ["foo bar/x", "a/b/c", "-a/b", "a//b"])
def test_what_can_be_no_repository_is_told(repo: str, hub) -> None:
    with pytest.raises(UsageError, match=f"^repo={repo} is no repository of the hub: "):
        files.locate(source(repo=repo), what="weights")
    assert files.digest_of(source(repo=repo)) == files.ABSENT


def test_fetching_is_forbidden_offline(hub, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["huggingface_hub"].constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"hf download owner/name a/b\.pt"):
        files.locate(source(), what="weights", fetch=True)


def test_without_the_library(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    sentence = r"'huggingface_hub', which is not installed: pip install 'ff-bench\[wan\]'"
    with pytest.raises(UsageError, match=sentence):
        files.locate(source(), what="weights")
    assert files.digest_of(source()) == files.ABSENT


def test_digest_of_a_file_is_remembered_until_it_changes(tmp_path, cache, monkeypatch) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    assert files.digest(path) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert files.digest(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert files.digest(path) == hashlib.sha256(b"two").hexdigest()
    (note,) = (cache / "digests").iterdir()
    note.write_text("{broken")
    assert files.digest(path) == hashlib.sha256(b"two").hexdigest()


def test_digest_of_a_folder(tmp_path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.txt").write_text("a")
    first = files.digest(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("hidden files do not count")
    assert files.digest(folder) == first
    (folder / "b.txt").rename(folder / "c.txt")
    renamed = files.digest(folder)
    assert renamed != first
    (folder / "c.txt").write_text("other")
    assert files.digest(folder) not in (first, renamed)
    with pytest.raises(FileNotFoundError):
        files.digest(tmp_path / "nothing")


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "x").write_bytes(b"one")
    assert files.digest(tmp_path / "x") == hashlib.sha256(b"one").hexdigest()


def test_home_of_the_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("FF_BENCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "ff-bench"
