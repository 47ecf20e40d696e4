"""Prompt sets of papers: what is fetched is what the manifest says, and what is drawn is the same everywhere.

No test leaves this machine: an opener stands in for the addresses.
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import contextmanager
from dataclasses import replace
from email.message import Message
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_bench import cli, prompt_sets, prompts, prompts_command
from ff_bench.config import conf_dir
from ff_bench.errors import UsageError
from ff_bench.models.facts import facts
from ff_bench.prompt_sets import ABSENT, HERE, OTHER, Listed
from ff_bench.report.notes import other_lists

LINES = "".join(f"a scene with {number} birds\n" for number in range(30)).encode()
HOST = "https://publisher.example"
BIRDS = Listed(
    "birds", 30, hashlib.sha256(LINES).hexdigest(), (f"{HOST}/old/list.txt", f"{HOST}/list.txt"),
    "someone/birds@1234567 list.txt", "Apache-2.0", "birds",
)  # fmt: skip
FEW = Listed("few", 3, "", (), "lines by someone", "Apache-2.0", "few birds", "birds", (4, 0, 29))


class Publisher:
    """Content by address; an address without content cannot be reached."""

    def __init__(self) -> None:
        self.content = {f"{HOST}/list.txt": LINES}
        self.asked: list[str] = []

    @contextmanager
    def open(self, request: Request):
        self.asked.append(request.full_url)
        if request.full_url not in self.content:
            raise URLError("no such host")
        answer = io.BytesIO(self.content[request.full_url])
        answer.status, answer.headers = 200, Message()  # type: ignore[attr-defined]
        yield answer


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of prompts and a manifest of two small sets."""
    monkeypatch.setenv("FF_BENCH_PROMPTS", str(tmp_path / "prompts"))
    monkeypatch.setattr(prompt_sets, "manifest", lambda: {"birds": BIRDS, "few": FEW})
    return tmp_path / "prompts"


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def _load(name: str) -> prompts.PromptSet:
    return prompts.load(name, conf_dir() / "prompts", model=facts("self_forcing"))


def _states(printed: str) -> dict[str, str]:
    return dict(json.loads(printed.splitlines()[-1])["states"])


def test_manifest_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sets = prompt_sets.manifest()
    assert len(sets) == 6
    for name, one in sets.items():
        own = prompt_sets.base(name)
        assert len(own.sha256) == 64
        assert own.urls
        assert all(url.startswith("https://") for url in own.urls)
        assert one.licence
        assert bool(one.of) == bool(one.places) == (not one.sha256)
        if one.of:
            assert one.prompts == len(set(one.places))
            assert list(one.places) == sorted(one.places)
            assert 0 <= one.places[0] <= one.places[-1] < own.prompts
    assert not set(sets) & set(prompts.set_files(conf_dir() / "prompts"))


def test_fetched_set_is_the_published_file(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts_command.run(["fetch"], opener=publisher.open) == 0
    assert publisher.asked == list(BIRDS.urls)  # the second address serves where the first cannot
    assert _states(capsys.readouterr().out) == {"birds": HERE, "few": HERE}
    listed = _load("birds")
    assert [prompt.text for prompt in listed.prompts] == LINES.decode().splitlines()
    assert (listed.name, listed.source, listed.licence) == ("birds", BIRDS.source, BIRDS.licence)
    assert prompts_command.run(["fetch"], opener=publisher.open) == 0
    assert publisher.asked == list(BIRDS.urls)


def test_lines_of_another_set_are_a_list_of_their_own(publisher: Publisher) -> None:
    assert prompts_command.run(["fetch", "few"], opener=publisher.open) == 0
    few = _load("few")
    assert [prompt.text.split()[3] for prompt in few.prompts] == ["4", "0", "29"]
    assert few.sha256 != _load("birds").sha256
    assert {prompt.id for prompt in few.prompts} < {prompt.id for prompt in _load("birds").prompts}


def test_another_file_is_never_taken(
    publisher: Publisher, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.content[f"{HOST}/list.txt"] = LINES + b"one more\n"
    assert prompts_command.run(["fetch", "birds"], opener=publisher.open) == 1
    assert "instead of" in capsys.readouterr().err
    assert not [path for path in room.iterdir() if not path.name.startswith(".lock")]
    (room / "birds.txt").write_text("mine\n")
    assert prompts_command.run(["fetch", "birds"], opener=publisher.open) == 1
    assert prompts_command.run(["verify"]) == 1
    assert _states(capsys.readouterr().out) == {"birds": OTHER, "few": OTHER}
    assert (room / "birds.txt").read_text() == "mine\n"
    with pytest.raises(UsageError, match="remove it"):
        _load("few")


def test_a_folder_serves_where_there_is_no_network(
    tmp_path: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.content.clear()
    assert prompts_command.run(["fetch"], opener=publisher.open) == 1
    assert "--from DIR" in capsys.readouterr().err
    checkout = tmp_path / "checkout" / "deep"
    checkout.mkdir(parents=True)
    (checkout.parent / "list.txt").write_bytes(b"another list of the same name\n")
    (checkout / "list.txt").write_bytes(LINES)
    assert prompts_command.run(["fetch", f"--from={checkout.parent}"], opener=publisher.open) == 0
    assert _states(capsys.readouterr().out) == {"birds": HERE, "few": HERE}


def test_before_fetching_one_sentence_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model=self_forcing", "prompts=few", "--dry-run"]) == 2
    assert "ff-bench prompts fetch few" in capsys.readouterr().err
    assert prompts_command.run(["list"]) == 0
    assert _states(capsys.readouterr().out) == {"birds": ABSENT, "few": ABSENT}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "list, fetch, verify"),
        (["get"], "fetch"),
        (["fetch", "bird"], "did you mean 'birds'"),
        (["fetch", "--form", "x"], "did you mean '--from'"),
        (["fetch", "--from", "nowhere"], "--from=nowhere"),
        (["list", "--from", "."], "takes no --from"),
    ],
)
def test_wrong_words_are_sentences(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prompts", *words]) == 2
    assert told in capsys.readouterr().err


@given(st.integers(1, 15), st.integers(1, 15))
def test_smaller_subsets_are_part_of_larger_ones(one: int, other: int) -> None:
    scenes = _load("scenes")
    small, large = (
        prompts.choose(scenes, ids=None, limit=None, subset=size) for size in sorted((one, other))
    )
    assert len(small) == min(one, other)
    assert set(small) <= set(large)
    assert list(large) == [prompt for prompt in scenes.prompts if prompt in large]


def test_a_subset_hangs_on_the_list_and_covers_it() -> None:
    scenes = _load("scenes")
    first = prompts.choose(scenes, ids=None, limit=None, subset=5)
    assert first == prompts.choose(scenes, ids=None, limit=None, subset=5)
    counts = dict.fromkeys(scenes.prompts, 0)
    for number in range(400):
        listed = replace(scenes, sha256=str(number))
        for prompt in prompts.choose(listed, ids=None, limit=1, subset=4):
            counts[prompt] += 1
    assert min(counts.values()) > 60  # 100 of each expected, standard deviation 8.7
    with pytest.raises(UsageError, match="from 1 to 16"):
        prompts.choose(scenes, ids=None, limit=None, subset=17)


def test_a_subset_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["subset=3", "--dry-run"]) == 0
    assert "videos   3" in capsys.readouterr().out
    assert cli.main(["subset=3", "limit=2", "--dry-run"]) == 2
    assert "limit=2" in capsys.readouterr().err


def test_a_report_says_which_lists_it_keeps_apart() -> None:
    key = {"model": "self_forcing", "frames": 81, "prompt_set": "birds", "prompt_list_sha256": "a" * 64}
    other = {**key, "prompt_list_sha256": "b" * 64}
    longer = {**key, "frames": 480, "prompt_list_sha256": "c" * 64}
    told = other_lists([key, other, key, longer])
    assert told[0] == told[2] == "list of prompts aaaaaaaa: never pooled with birds bbbbbbbb"
    assert told[1] == "list of prompts bbbbbbbb: never pooled with birds aaaaaaaa"
    assert told[3] == ""
