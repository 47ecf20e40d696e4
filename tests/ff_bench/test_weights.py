"""Weights: the manifest; files that are fetched, resumed, checked and copied; what is said where one is not.

No test leaves this machine: publishers are a server on 127.0.0.1 that an injected opener puts in their place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from ff_bench import cli, doctor, download, fetching, files, weights, weights_command
from ff_bench.errors import Unavailable, UsageError
from ff_bench.metrics import signals
from ff_bench.weights import ABSENT, DAMAGED, OTHER, UNVERIFIED, VERIFIED, Weight

SECRET = bytes(range(256)) * 40


def archive(**members: bytes) -> bytes:
    """A zip archive, as torch's files are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ALPHA = archive(data=SECRET)
BETA = pickle.dumps(list(range(3000)), protocol=4)
MODELS = archive(models__gamma=BETA, models__small=b"x")
FREE = archive(free=SECRET[:999])
LIMITED = archive(limited=SECRET[:500])
HOST = "https://publisher.example"
MANIFEST = {
    "alpha": Weight(
        "alpha", "alpha.pth", f"{HOST}/alpha.pth", len(ALPHA), "MIT", False, digest(ALPHA), "its publisher",
        ("subject_consistency",),
    ),
    "gamma": Weight(
        "gamma", "gamma.pth", f"{HOST}/models.zip", len(BETA), "BSD-3-Clause", False, digest(BETA)[:8],
        "its name", ("dynamic_degree",), member="models/gamma",
    ),
    "free": Weight(
        "free", "free.zip", f"{HOST}/free.zip", licence="MIT", serves=("background_consistency",),
        also=("pretrained.zip",),
    ),
    "limited": Weight(
        "limited", "limited.pth", f"{HOST}/limited.pth", len(LIMITED), "CC BY-NC 4.0", True, digest(LIMITED),
        "its publisher", ("motion_smoothness",),
    ),
}  # fmt: skip


class Publisher:
    """A server of files that counts requests, can end early, and can refuse ranges."""

    def __init__(self) -> None:
        self.content = {
            "/alpha.pth": ALPHA, "/models.zip": MODELS, "/free.zip": FREE, "/limited.pth": LIMITED
        }  # fmt: skip
        self.kind = "application/octet-stream"
        self.ranges: list[str] = []
        self.cut: list[int] = []
        self.has_ranges = True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def open(self, request: Request):
        """Open a publisher's address at this server."""
        assert request.full_url.startswith(HOST)
        here = f"http://127.0.0.1:{self.server.server_port}{request.full_url.removeprefix(HOST)}"
        return build_opener(ProxyHandler({})).open(Request(here, headers=dict(request.header_items())))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = publisher.content.get(self.path)
                asked = self.headers.get("Range", "")
                publisher.ranges.append(asked)
                if content is None:
                    self.send_error(404)
                    return
                start = int(asked[6:-1]) if asked and publisher.has_ranges else 0
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Type", publisher.kind)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                amount = publisher.cut.pop(0) if publisher.cut else len(content)
                self.wfile.write(content[start : start + amount])

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights and a manifest of small files."""
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FF_BENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(weights, "manifest", lambda: MANIFEST)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    yield server
    server.close()


def command(publisher: Publisher, *words: str) -> int:
    return weights_command.run(words, opener=publisher.open)


def offline(request: Request):
    raise URLError("Name or service not known")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def lock(room: Path) -> dict[str, dict[str, str]]:
    return json.loads((room / weights.LOCK).read_text())


# the shipped manifest


def shipped() -> dict[str, Weight]:
    with weights.MANIFEST.open(encoding="utf-8", newline="") as stream:
        return {row["name"]: weights._read(row) for row in weights.csv.DictReader(stream)}


def test_the_shipped_manifest_is_whole() -> None:
    for name, weight in shipped().items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert weight.url.startswith("https://"), name
        assert weight.licence and weight.file and weight.serves, name
        assert re.fullmatch(r"[0-9a-f]{8,64}|", weight.sha256), name
        assert bool(weight.sha256) == bool(weight.sha256_source), name
    published = [one.file for one in shipped().values()]
    assert len(set(published)) == len(published)
    assert {name for name, one in shipped().items() if one.noncommercial} == {"amt_s", "musiq_spaq"}


def test_digests_agree_with_what_names_and_addresses_state() -> None:
    for name, weight in shipped().items():
        stated = re.findall(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{8}(?=\.pth))", weight.url)
        assert all(weight.sha256.startswith(digits) for digits in stated), name
        assert stated or name not in ("clip_vitb32", "clip_vitl14", "musiq_spaq", "lpips_alexnet")


def test_every_signal_finds_its_weights_in_the_manifest() -> None:
    for name in signals.SIGNALS:
        try:
            kind = signals.kind(name)
        except (ModuleNotFoundError, Unavailable):
            continue
        assert set(kind.weights) <= set(shipped()), name


def test_every_dimension_but_the_one_without_networks_is_served() -> None:
    served = {metric for one in shipped().values() for metric in one.serves}
    assert set(weights.FAMILIES["vbench_long"]) - served == {"temporal_flickering"}
    assert set(doctor.LIBRARIES) == {*weights.FAMILIES["vbench_long"], "fidelity"}


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights.folder() == tmp_path / "weights"
    monkeypatch.delenv("FF_BENCH_WEIGHTS")
    assert weights.folder() == tmp_path / "cache" / "weights"


# where a file is, and what is said where it is not


def test_an_absent_file_is_unavailable_with_the_command_that_gets_it(room: Path) -> None:
    with pytest.raises(Unavailable, match=f"'alpha' are not in {room}: ff-bench weights fetch alpha$"):
        weights.path("alpha")
    assert weights.sha256("alpha") == ABSENT == weights.state("alpha")


def test_a_whole_file_is_found_without_reading_it(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (room / "alpha.pth").write_bytes(b"\0" * len(ALPHA))
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    assert weights.path("alpha") == room / "alpha.pth"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (ALPHA[:-5], "is cut short"),
        (b"\n <!DOCTYPE html><html>not found</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        (b"hello", "is no file of torch"),
        (BETA, f"has {len(BETA)} bytes instead of {len(ALPHA)}"),
    ],
)
def test_a_file_that_cannot_be_the_weights_is_unavailable(room: Path, content: bytes, sentence: str) -> None:
    (room / "alpha.pth").write_bytes(content)
    told = f"damaged, {room / 'alpha.pth'} {sentence}.*: ff-bench weights fetch alpha$"
    with pytest.raises(Unavailable, match=told):
        weights.path("alpha")
    assert weights.state("alpha") == DAMAGED


@pytest.mark.parametrize("content", [b"", FREE[:-5], b"<html>"])
def test_a_file_without_a_stated_size_is_looked_at(room: Path, content: bytes) -> None:
    (room / "free.zip").write_bytes(content)
    with pytest.raises(Unavailable, match="damaged"):
        weights.path("free")


def test_whole_weights_of_another_make_load_but_are_not_taken_for_the_published(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "alpha.pth").write_bytes(FREE)
    assert weights.path("alpha").read_bytes() == FREE
    assert weights.state("alpha") == OTHER
    assert command(publisher, "verify") == 1
    assert f"not the published file: {room / 'alpha.pth'} has {len(FREE)} bytes" in told(capsys)
    assert command(publisher, "fetch", "alpha") == 1
    assert "is another file, remove it" in told(capsys)
    assert (room / "alpha.pth").read_bytes() == FREE


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    for call in (weights.path, weights.sha256, weights.state):
        with pytest.raises(UsageError, match=r"^weights=alhpa is not known: .*; did you mean 'alpha'\?$"):
            call("alhpa")


def test_a_digest_is_remembered_until_the_file_changes(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (room / "alpha.pth").write_bytes(ALPHA)
    assert weights.state("alpha") == UNVERIFIED
    assert weights.sha256("alpha") == digest(ALPHA)
    assert weights.state("alpha") == VERIFIED
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert weights.sha256("alpha") == digest(ALPHA)
    other = bytearray(ALPHA)
    other[60] ^= 1
    (room / "alpha.pth").write_bytes(other)
    assert weights.sha256("alpha") == digest(bytes(other))
    assert weights.state("alpha") == DAMAGED


# fetching


def test_fetching_checks_records_and_says_the_licence(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(publisher, "fetch", "alpha", "free") == 0
    out = told(capsys)
    assert f"alpha, licence MIT: {len(ALPHA) / 1024:.1f} KiB from {HOST}/alpha.pth" in out
    assert json.loads(out.splitlines()[-1])["states"] == {"alpha": VERIFIED, "free": UNVERIFIED}
    assert weights.path("alpha").read_bytes() == ALPHA
    assert lock(room)["free"]["sha256"] == digest(FREE)
    assert lock(room)["free"]["bytes"] == str(len(FREE))
    assert lock(room)["free"]["url"] == f"{HOST}/free.zip"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", lock(room)["free"]["when"])
    assert sorted(path.name for path in room.iterdir()) == [".lock", "alpha.pth", "digests.json", "free.zip"]
    asked = len(publisher.ranges)
    assert command(publisher, "fetch", "alpha") == 0
    assert len(publisher.ranges) == asked
    assert "alpha is here verified" in told(capsys)


def test_an_interrupted_download_goes_on_where_it_stopped(room: Path, publisher: Publisher) -> None:
    publisher.cut = [1000, 2000]
    assert command(publisher, "fetch", "alpha") == 0
    assert publisher.ranges == ["", "bytes=1000-", "bytes=3000-"]
    assert weights.state("alpha") == VERIFIED


def test_a_later_run_resumes_too(room: Path, publisher: Publisher) -> None:
    publisher.cut = [1500, 0]
    assert command(publisher, "fetch", "alpha") == 1
    assert (room / ".alpha.part").stat().st_size == 1500
    assert not (room / "alpha.pth").exists()
    publisher.ranges.clear()
    assert command(publisher, "fetch", "alpha") == 0
    assert publisher.ranges == ["bytes=1500-"]
    assert weights.path("alpha").read_bytes() == ALPHA


def test_a_server_without_ranges_is_asked_for_the_whole_again(room: Path, publisher: Publisher) -> None:
    publisher.has_ranges = False
    (room / ".alpha.part").write_bytes(b"something else")
    assert command(publisher, "fetch", "alpha") == 0
    assert weights.state("alpha") == VERIFIED


@pytest.mark.parametrize("content", [ALPHA + b"more", MODELS])
def test_what_is_whole_or_too_long_is_no_dead_end(room: Path, publisher: Publisher, content: bytes) -> None:
    name = "gamma" if content == MODELS else "alpha"
    (room / f".{name}.part").write_bytes(content)
    assert command(publisher, "fetch", name) == 0
    assert weights.path(name).read_bytes() == (BETA if name == "gamma" else ALPHA)
    assert publisher.ranges[0] == f"bytes={len(content)}-"


def test_a_mismatch_says_both_digests_and_leaves_what_is_there(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = bytearray(ALPHA)
    wrong[60] ^= 1
    publisher.content["/alpha.pth"] = bytes(wrong)
    (room / "alpha.pth").write_bytes(ALPHA[:-5])
    assert command(publisher, "fetch", "alpha") == 1
    err = told(capsys)
    assert f"what came has sha256 {digest(bytes(wrong))} instead of {digest(ALPHA)}, its publisher" in err
    assert (room / "alpha.pth").read_bytes() == ALPHA[:-5]
    assert not (room / ".alpha.part").exists()
    publisher.content["/alpha.pth"] = ALPHA
    assert command(publisher, "fetch", "alpha") == 0


def test_a_file_of_another_size_is_refused_before_it_is_got(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.content["/alpha.pth"] = ALPHA + ALPHA
    assert command(publisher, "fetch", "alpha") == 1
    assert f"the server has {2 * len(ALPHA)} bytes instead of {len(ALPHA)}" in told(capsys)
    assert not (room / ".alpha.part").exists()


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_not_saved_as_weights(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    publisher.content["/free.zip"] = b"<html>please sign in</html>"
    publisher.kind = kind
    assert command(publisher, "fetch", "free") == 1
    assert "a web page, not" in told(capsys)
    assert not (room / "free.zip").exists()


def test_a_member_of_an_archive_is_taken_out(room: Path, publisher: Publisher) -> None:
    assert command(publisher, "fetch", "gamma") == 0
    assert weights.path("gamma").read_bytes() == BETA
    assert weights.state("gamma") == VERIFIED  # the first eight digits are all that is stated
    assert not (room / "models.zip").exists()


def test_an_archive_without_the_member(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    publisher.content["/models.zip"] = archive(other=b"x")
    assert command(publisher, "fetch", "gamma") == 1
    assert "the archive has no models/gamma" in told(capsys)


def test_what_changed_since_it_was_first_seen_is_refused(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(publisher, "fetch", "free") == 0
    (room / "free.zip").unlink()
    publisher.content["/free.zip"] = archive(free=b"changed")
    assert command(publisher, "fetch", "free") == 1
    assert f"its digest at first sight: remove it from {room / weights.LOCK}" in told(capsys)
    assert weights.state("free") == ABSENT


def test_without_a_network_the_address_and_the_place_are_told(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weights_command.run(["fetch", "alpha", "gamma"], opener=offline) == 1
    first, second = [line for line in told(capsys).splitlines() if line.startswith("failed: ")]
    assert first == (
        f"failed: alpha is not fetched from {HOST}/alpha.pth: no connection (Name or service not known); "
        f"put it by hand at {room / 'alpha.pth'}, or copy it with ff-bench weights fetch alpha --from DIR"
    )
    assert "put models/gamma of it by hand at" in second


def test_an_answer_of_the_server_is_told(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    del publisher.content["/alpha.pth"]
    assert command(publisher, "fetch", "alpha", "free") == 1
    assert "the server answers 404 Not Found" in told(capsys)
    assert weights.path("free").is_file()


def test_only_https(tmp_path: Path) -> None:
    with pytest.raises(download.Failed, match="not https"):
        download.download("http://a.example/b", tmp_path / "b", size=None, progress=lambda *_: None)
    with pytest.raises(download.Failed, match=r"leads to http://a\.example/b, which is not https"):
        download.SecureRedirects().redirect_request(
            Request("https://a.example"), io.BytesIO(), 302, "", None, "http://a.example/b"
        )


def test_two_programs_do_not_fetch_into_one_folder(room: Path, publisher: Publisher) -> None:
    with files.lock(room), pytest.raises(download.Failed, match="another process works on"):
        fetching.fetch(MANIFEST["alpha"], opener=publisher.open, progress=lambda *_: None)


def test_progress_counts_from_what_is_here(room: Path, publisher: Publisher) -> None:
    (room / ".alpha.part").write_bytes(ALPHA[:100])
    seen: list[tuple[int, int | None]] = []
    fetching.fetch(
        MANIFEST["alpha"], opener=publisher.open, progress=lambda done, whole: seen.append((done, whole))
    )
    assert seen[0] == (100, len(ALPHA))
    assert seen[-1] == (len(ALPHA), len(ALPHA))


def test_noncommercial_weights_are_named_or_allowed(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(publisher, "fetch") == 0
    out = told(capsys)
    assert "left out: limited is not for commercial use (CC BY-NC 4.0), name it or add --noncommercial" in out
    assert weights.state("limited") == ABSENT
    with pytest.raises(UsageError, match=r"^limited is not for .*: ff-bench weights fetch limited$"):
        command(publisher, "fetch", "motion_smoothness")
    assert command(publisher, "fetch", "limited") == 0
    assert "limited, licence CC BY-NC 4.0: " in told(capsys)
    weights.path("limited").unlink()
    assert command(publisher, "fetch", "motion_smoothness", "--noncommercial") == 0
    assert weights.state("limited") == VERIFIED


# folders of other programs


def test_an_offline_machine_copies_from_the_caches_of_other_programs(
    tmp_path: Path, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "vbench"
    for name, content in (
        ("dino_model/alpha.pth", b""),  # VBench asks only whether it exists
        ("torch/hub/checkpoints/alpha.pth", ALPHA),
        ("raft_model/models/gamma.pth", BETA),
        ("clip/pretrained.zip", FREE),
    ):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    assert weights_command.run(["fetch", "--from", str(other)], opener=offline) == 0
    assert weights.path("alpha").read_bytes() == ALPHA
    assert [weights.state(name) for name in ("alpha", "gamma", "free")] == [VERIFIED, VERIFIED, UNVERIFIED]
    assert f"copied from {other / 'torch/hub/checkpoints/alpha.pth'}" in told(capsys)
    assert lock(room)["free"]["url"] == str(other / "clip/pretrained.zip")


def test_an_archive_in_the_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "models.zip").write_bytes(MODELS)
    assert weights_command.run(["fetch", "gamma", f"--from={tmp_path / 'usb'}"], opener=offline) == 0
    assert weights.path("gamma").read_bytes() == BETA


def test_what_is_wrong_in_the_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "alpha.pth").write_bytes(b"<html>")
    words = ["fetch", "alpha", "free", "--from", str(tmp_path / "usb")]
    assert weights_command.run(words, opener=offline) == 1
    err = told(capsys)
    assert f"alpha is not copied: {tmp_path / 'usb/alpha.pth'}: what came is a web page, not weights" in err
    assert f"free is not copied: there is no free.zip or pretrained.zip in {tmp_path / 'usb'}" in err


# listing, verifying, the command line


def test_the_list(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "alpha.pth").write_bytes(ALPHA)
    assert cli.main(["weights", "list"]) == 0
    head, alpha, *_, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "file", "size", "licence", "state", "serves"]
    assert "here unverified" in alpha and "subject_consistency" in alpha
    assert json.loads(last) == {
        "folder": str(room),
        "states": {"alpha": UNVERIFIED, "gamma": ABSENT, "free": ABSENT, "limited": ABSENT},
    }


def test_verifying_reads_again_and_records_what_no_source_states(
    room: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "alpha.pth").write_bytes(ALPHA)
    (room / "free.zip").write_bytes(FREE)
    assert cli.main(["weights", "verify"]) == 0
    out = capsys.readouterr().out
    assert digest(ALPHA)[:16] in out and "its publisher" in out and "no public source states one" in out
    assert lock(room)["free"]["sha256"] == digest(FREE)
    before = (room / "alpha.pth").stat()
    wrong = bytearray(ALPHA)
    wrong[60] ^= 1
    (room / "alpha.pth").write_bytes(wrong)
    os.utime(room / "alpha.pth", ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk would do it
    assert weights.state("alpha") == VERIFIED
    assert cli.main(["weights", "verify", "alpha"]) == 1
    assert f"has sha256 {digest(bytes(wrong))} instead of {digest(ALPHA)}" in capsys.readouterr().out
    assert weights.state("alpha") == DAMAGED
    assert command(publisher, "fetch", "alpha") == 0
    assert weights.state("alpha") == VERIFIED


def test_verifying_sees_a_change_since_first_sight(room: Path) -> None:
    (room / "free.zip").write_bytes(FREE)
    assert cli.main(["weights", "verify"]) == 0
    (room / "free.zip").write_bytes(archive(free=SECRET[1:1000]))
    assert cli.main(["weights", "verify"]) == 1


def test_metrics_and_families_name_weights() -> None:
    def names(*words: str) -> list[str]:
        return [one.name for one in weights_command.select(words)]

    assert names() == list(MANIFEST)
    assert names("dynamic_degree", "alpha") == ["alpha", "gamma"]
    assert names("vbench_long") == list(MANIFEST)
    assert names("temporal_flickering") == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["list", "fetch", "verify"]),
        (["lsit"], ["weights=lsit", "'list'"]),
        (["list", "alhpa"], ["weights=alhpa", "'alpha'"]),
        (["fetch", "dynamic_degre"], ["weights=dynamic_degre", "'dynamic_degree'"]),
        (["list", "--from", "x"], ["weights list", "--from"]),
        (["fetch", "--form", "x"], ["--form", "'--from'"]),
        (["fetch", "--noncommercial=1"], ["--noncommercial=1"]),
        (["fetch", "--from"], ["--from needs a folder"]),
        (["fetch", "--from", "nowhere"], ["--from=nowhere", "folder"]),
        (["fetch", "--from="], ["--from=", "folder"]),
    ],
)
def test_wrong_command_lines(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("content", ["{broken", "[1]", '{"free": 1}'])
def test_a_broken_note_of_digests_is_told(
    room: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "free.zip").write_bytes(FREE)
    (room / weights.LOCK).write_text(content)
    assert cli.main(["weights", "verify"]) == 2
    assert "remove it, then ff-bench weights verify" in capsys.readouterr().err


def test_the_doctor_tells_dimension_by_dimension(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("timm", "pyiqa")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in absent else object())
    (room / "gamma.pth").write_bytes(BETA)
    (room / "free.zip").write_bytes(FREE[:-5])
    rows = {name: rest for name, *rest in doctor._scoring()}
    assert rows["vbench_long.temporal_flickering"] == ["ok", "needs no weights", ""]
    assert rows["vbench_long.dynamic_degree"] == ["ok", "gamma", ""]
    assert rows["vbench_long.subject_consistency"] == [
        "unavailable", "lacks weights alpha and libraries timm",
        "pip install 'ff-bench[vbench]'; ff-bench weights fetch alpha",
    ]  # fmt: skip
    assert rows["vbench_long.background_consistency"][1] == "lacks weights free (damaged) and libraries timm"
    assert rows["vbench_long.imaging_quality"][2] == "pip install --no-deps pyiqa (not for commercial use)"
    (room / "gamma.pth").write_bytes(FREE)
    rows = {name: rest for name, *rest in doctor._scoring()}
    assert rows["vbench_long.dynamic_degree"] == ["ok", "gamma (another file)", ""]
