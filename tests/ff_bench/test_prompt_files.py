"""Prompts that say more than one text: switches at times, and a start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ff_bench import cli, prompts, runs
from ff_bench.compose import compose
from ff_bench.config import conf_dir, texts
from ff_bench.errors import UsageError
from ff_bench.models.facts import facts
from ff_bench.prompts import PromptSpec
from ff_bench.remarks import remarks
from ff_bench.runs import VideoSpec

pytestmark = pytest.mark.usefixtures("bare")
SWITCH = [["20s", "a dog"], ["1m30s", "two dogs"]]


def _write(folder: Path, *rows: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _load(folder: Path, *rows: Any, model: str = "self_forcing") -> tuple[PromptSpec, ...]:
    return prompts.load(str(_write(folder, *rows)), conf_dir() / "prompts", model=facts(model)).prompts


def _spec(path: Path, *words: str) -> VideoSpec:
    return runs.videos(compose(["model=self_forcing", f"prompts={path}", *words]).config)[0]


def test_switches_are_times_and_texts(tmp_path: Path) -> None:
    (prompt,) = _load(tmp_path, {"id": "a", "prompt": "a cat", "switch": SWITCH})
    assert prompt.switches == ((20.0, "a dog"), (90.0, "two dogs"))
    assert prompt.later == ("a dog", "two dogs")
    assert texts([prompt]) == ("a cat", "a dog", "two dogs")


def test_a_plain_prompt_is_what_it_was(tmp_path: Path) -> None:
    plain, empty = _load(tmp_path, {"prompt": "a cat"}, {"prompt": "a hen", "switch": [], "start": None})
    assert plain.sha256 == hashlib.sha256(b"a cat").hexdigest()
    assert plain.id == f"a-cat-{plain.sha256[:8]}"
    assert (empty.switches, empty.start, empty.start_sha256) == ((), None, "")
    listed = prompts.load(str(tmp_path / "mine.jsonl"), tmp_path, model=facts("self_forcing"))
    assert listed.sha256 == prompts.list_sha256(["a cat", "a hen"])
    assert not {"switches", "start_sha256"} & set(_spec(tmp_path / "mine.jsonl").identity)


def test_a_start_is_beside_the_prompts_and_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "first.png").write_bytes(b"one")
    row = {"prompt": "a cat", "start": "first.png"}
    (prompt,) = _load(tmp_path, row)
    assert prompt.start == tmp_path / "first.png"
    assert prompt.start_sha256 == hashlib.sha256(b"one").hexdigest()
    first = _spec(tmp_path / "mine.jsonl")
    assert first.identity["start_sha256"] == prompt.start_sha256
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "first.png").write_bytes(b"one")
    assert _spec(_write(tmp_path / "other", row)).video_id == first.video_id
    (tmp_path / "first.png").write_bytes(b"two")
    assert _spec(tmp_path / "mine.jsonl").video_id != first.video_id


def test_ids_and_digests_tell_prompts_apart_by_switches_and_starts(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text(name)
    rows: list[dict[str, Any]] = [{"prompt": "a cat"}, {"prompt": "a cat", "switch": SWITCH}]
    rows += [{"prompt": "a cat", "switch": SWITCH[:1]}, {"prompt": "a cat", "start": "a.png"}]
    rows += [{"prompt": "a cat", "start": "b.png"}]
    found = _load(tmp_path, *rows)
    assert len({prompt.id for prompt in found}) == 5
    assert len({prompt.sha256 for prompt in found}) == 3, "a start is a file, not a text"
    path = tmp_path / "mine.jsonl"
    assert len({_spec(path, f"ids=[{place}]").video_id for place in range(5)}) == 5
    assert _spec(path, "ids=[1]").identity["switches"] == [[20.0, "a dog"], [90.0, "two dogs"]]
    json.dumps(_spec(path, "ids=[1]").identity)
    known = facts("longlive")
    lists = {prompts.load(str(_write(tmp_path, row)), tmp_path, model=known).sha256 for row in rows}
    assert len(lists) == 5


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"switch": "20s"}, "20s"),
    ({"switch": ["20s", "a dog"]}, "20s"),
    ({"switch": [["20s"]]}, "20s"),
    ({"switch": [["20s", ""]]}, "20s"),
    ({"switch": [["20s", 3]]}, "20s"),
    ({"switch": [[20, "a dog"]]}, "seconds and minutes"),
    ({"switch": [["soon", "a dog"]]}, "soon"),
    ({"switch": [["0s", "a dog"]]}, "after the beginning"),
    ({"switch": [["20s", "a dog"], ["20s", "a hen"]]}, "after the one at 20s"),
    ({"switch": [["20s", "a dog"], ["10s", "a hen"]]}, "10s"),
    ({"switch": [["20s", "a\u0007dog"]]}, "control"),
    ({"switch": {"20s": "a dog"}}, "switch"),
    ({"start": "nowhere.png"}, "nowhere.png"),
    ({"start": "first.gif"}, "first.gif"),
    ({"start": ""}, "start"),
    ({"start": 3}, "start"),
    ({"start": "folder.png"}, "folder.png"),
    ({"start": "~nobody-of-this-name/a.png"}, "nobody"),
    ({"start": "\u0000.png"}, "start"),
]


@pytest.mark.parametrize(("more", "told"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_followed_is_one_sentence(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "first.gif").write_text("")
    with pytest.raises(UsageError, match=r"mine\.jsonl") as caught:
        _load(tmp_path, {"prompt": "a hen"}, {"prompt": "a cat", **more})
    assert told in str(caught.value)
    assert " 2" in str(caught.value)


@pytest.mark.parametrize("more", [{"switch": SWITCH}, {"start": "a.png"}])
def test_the_embedded_model_follows_neither(
    clean: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any]
) -> None:
    (clean / "a.png").write_text("")
    _write(clean, {"prompt": "orbit", **more})
    assert cli.main(["prompts=mine.jsonl"]) == 2
    assert "model=mini" in capsys.readouterr().err


def test_chunks_denoised_jointly_follow_switches_only(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    assert _load(tmp_path, {"prompt": "a cat", "switch": SWITCH}, model="rolling_forcing")[0].switches
    with pytest.raises(UsageError, match=r"model=rolling_forcing: prompt 1 has a start"):
        _load(tmp_path, {"prompt": "a cat", "start": "a.png"}, model="rolling_forcing")


def test_a_csv_file_holds_neither(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,switch,start\na cat,,\n")
    assert prompts.load(str(tmp_path / "a.csv"), tmp_path, model=facts("longlive")).prompts[0].start is None
    (tmp_path / "a.csv").write_text("prompt,start\na cat,first.png\n")
    with pytest.raises(UsageError, match=r"'start' .*jsonl"):
        prompts.load(str(tmp_path / "a.csv"), tmp_path, model=facts("longlive"))


@pytest.mark.parametrize(("time", "is_told"), [("1.5s", False), ("1.55s", True), ("2.5s", True)])
def test_a_switch_inside_the_last_chunk_is_remarked(tmp_path: Path, time: str, is_told: bool) -> None:
    """Nine latent frames: the last chunk begins with latent frame 6, whose last picture is at 1.5 s."""
    path = _write(tmp_path, {"prompt": "a cat", "switch": [[time, "a dog"]]})
    words = ["model=self_forcing", "policy=native", f"prompts={path}", "length=9f"]
    assert any("before a switch" in told for told in remarks([compose(words).config])) is is_told


def test_a_switch_behind_the_end_is_remarked(tmp_path: Path) -> None:
    path = _write(tmp_path, {"prompt": "a cat", "switch": SWITCH})
    words = ["model=self_forcing", "policy=native", f"prompts={path}"]
    assert any("ends before a switch of 1 of 1" in told for told in remarks([compose(words).config]))
    assert not any("switch" in told for told in remarks([compose([*words, "length=2m"]).config]))
