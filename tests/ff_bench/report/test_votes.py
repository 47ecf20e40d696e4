"""Blind comparison: what the page must not tell, votes there and back, and what wrong vote files are told."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ff_bench import cli, runs, video
from ff_bench.errors import UsageError
from ff_bench.report import make, read_rows
from ff_bench.report.blind import strip_tags, write_blind
from ff_bench.report.comparison import Table
from ff_bench.report.statistics import bootstrap
from ff_bench.report.summary import summarise
from ff_bench.report.trials import Key, draw, read_key
from ff_bench.report.videos import Shown, collect
from ff_bench.report.winrates import OVERALL, tables

POLICIES = ("full", "h2o", "sliding_window")
VOTER = "0123456789ab"


@pytest.fixture(scope="module")
def found(run_folder: Path) -> list[Table]:
    return summarise(read_rows([run_folder]))


@pytest.fixture(scope="module")
def shown(run_folder: Path) -> dict[str, Shown]:
    return collect(runs.find([run_folder]))


@pytest.fixture(scope="module")
def blind(found: list[Table], shown: dict[str, Shown], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a blind page."""
    out = tmp_path_factory.mktemp("blind")
    page, key = write_blind(out, found, shown=shown, most=200)
    assert (page.name, key) == ("blind.html", next(out.glob("blind-key-*.json")))
    return out


@pytest.fixture(scope="module")
def policies(shown: dict[str, Shown]) -> dict[str, str]:
    """Return the policy that made each video."""
    return {video_id: video.manifest.identity["policy"]["name"] for video_id, video in shown.items()}


@pytest.fixture(scope="module")
def key(blind: Path) -> Key:
    found = read_key(next(blind.glob("blind-key-*.json")))
    assert found is not None
    return found


def content_of(page: Path) -> dict[str, Any]:
    """Return what the blind page holds."""
    held = re.search(r'id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    assert held is not None
    found: dict[str, Any] = json.loads(held.group(1))
    return found


def write_votes(path: Path, key: Key, choices: dict[str, str], voter: str = VOTER) -> Path:
    """Write a vote file as the page does."""
    lines = "\n".join([key.digest, voter, *(f"{trial} {choice} 900" for trial, choice in choices.items())])
    votes = [{"trial": trial, "choice": choice, "ms": 900} for trial, choice in choices.items()]
    content = {"format": "ff-bench votes", "version": 1, "assignment": key.digest, "voter": voter}
    content |= {"votes": votes, "checksum": f"{zlib.crc32(lines.encode()):08x}"}
    path.write_text(json.dumps(content))
    return path


def prefer(key: Key, policies: dict[str, str], order: tuple[str, ...]) -> dict[str, str]:
    """Vote for the policy that comes first in an order."""
    return {
        trial.trial: "left"
        if order.index(policies[trial.left]) < order.index(policies[trial.right])
        else "right"
        for trial in key.trials
    }


def test_every_two_policies_meet_once_per_prompt(
    key: Key, shown: dict[str, Shown], policies: dict[str, str]
) -> None:
    met = [tuple(sorted((policies[trial.left], policies[trial.right]))) for trial in key.trials]
    assert len(key.trials) == 6  # three pairs of policies, two prompts
    assert {pair: met.count(pair) for pair in met} == dict.fromkeys(
        [("full", "h2o"), ("full", "sliding_window"), ("h2o", "sliding_window")], 2
    )
    prompts = {video_id: shown.prompt for video_id, shown in shown.items()}
    assert all(prompts[trial.left] == prompts[trial.right] for trial in key.trials)


def test_equal_videos_give_equal_trials_and_few_are_spread_evenly(
    key: Key, found: list[Table], shown: dict[str, Shown], policies: dict[str, str]
) -> None:
    assert draw(found, shown, most=200) == key
    few = draw(found, shown, most=3)
    assert len({frozenset((policies[trial.left], policies[trial.right])) for trial in few.trials}) == 3


def test_the_page_does_not_tell_who_made_what(
    blind: Path,
    key: Key,
    found: list[Table],
    shown: dict[str, Shown],
    policies: dict[str, str],
    run_folder: Path,
    tmp_path: Path,
) -> None:
    text = (blind / "blind.html").read_text()
    told = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for word in (*POLICIES[1:], *policies, "full-", "policy", str(run_folder), "mini/"):
        assert word not in told, word
    content = content_of(blind / "blind.html")
    assert content["assignment"] == key.digest
    assert set(content) == {"assignment", "trials", "videos"}
    assert {name for trial in content["trials"] for name in trial} == {
        "trial",
        "prompt",
        "left",
        "right",
        "fps",
    }
    assert len(content["videos"]) == 6
    again = content_of(write_blind(tmp_path, found, shown=shown, most=200)[0])
    assert not set(again["videos"]) & set(content["videos"])  # names come from nothing that is known


def test_large_videos_lie_beside_the_page_under_neutral_names(
    found: list[Table], shown: dict[str, Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ff_bench.report.blind.EMBED_TOTAL", 1000)
    page, _ = write_blind(tmp_path, found, shown=shown, most=200)
    sources = content_of(page)["videos"]
    for name, source in sources.items():
        assert re.fullmatch(r"blind/[0-9a-f]{16}/[0-9a-f]{16}\.mp4", source)
        assert source.endswith(f"{name}.mp4")
        assert (tmp_path / source).is_file()


def test_copies_keep_the_pictures_and_lose_the_tags(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    plain, tagged = video.write_video(tmp_path / "plain.mp4", frames, 8, scale=1), tmp_path / "tagged.mp4"
    with av.open(str(plain)) as old, av.open(str(tagged), "w") as new:
        new.metadata["title"] = new.metadata["comment"] = "made by h2o"
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    assert b"made by h2o" in tagged.read_bytes()
    strip_tags(tagged, tmp_path / "neutral.mp4")
    assert b"h2o" not in (tmp_path / "neutral.mp4").read_bytes()
    np.testing.assert_array_equal(
        [*video.decode(tmp_path / "neutral.mp4")], [*video.decode(plain)], strict=True
    )
    with pytest.raises(UsageError, match="cannot read"):
        strip_tags(write_text(tmp_path / "no.mp4", "no video"), tmp_path / "x.mp4")


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_votes_become_the_win_rates_that_they_say(
    blind: Path, key: Key, found: list[Table], policies: dict[str, str], tmp_path: Path
) -> None:
    choices = prefer(key, policies, ("h2o", "full", "sliding_window"))
    path = write_votes(tmp_path / "v.json", key, choices)
    (table,) = tables(found, [path], [blind])
    rates = {line.policy: line.cells[OVERALL].mean for line in table.lines}
    assert {policy: rate and rate.mean for policy, rate in rates.items()} == {
        "full": 0.5, "h2o": 1.0, "sliding_window": 0.0
    }  # fmt: skip
    assert all(rate and (rate.pairs, rate.prompts) == (2, 2) for rate in rates.values())
    heads = [column.measure.label for column in table.columns]
    assert heads == ["win rate", "over full", "over h2o", "over sliding_window†"]
    h2o = next(line for line in table.lines if line.policy == "h2o")
    assert [h2o.cells[column.metric].pairs for column in table.columns] == [2, 2, 0, 2]
    assert "6 votes of 1 voter, 0 of them ties" in table.notes[0]


def test_ties_count_half_and_voters_are_averaged_within_a_prompt(
    blind: Path, key: Key, found: list[Table], policies: dict[str, str], tmp_path: Path
) -> None:
    ours = prefer(key, policies, ("h2o", "full", "sliding_window"))
    ties = {trial.trial: "tie" for trial in key.trials}
    paths = [
        write_votes(tmp_path / "a.json", key, ours),
        write_votes(tmp_path / "b.json", key, ties, voter="b" * 12),
    ]
    (table,) = tables(found, paths, [blind])
    h2o = next(line for line in table.lines if line.policy == "h2o")
    assert dict(h2o.values[OVERALL]) == {pair: 0.75 for pair in h2o.values[OVERALL]}
    for first in table.lines:  # what one wins the other loses
        for place, second in enumerate(table.lines):
            own = first.values[table.columns[1 + place].metric]
            back = second.values[table.columns[1 + table.lines.index(first)].metric]
            assert all(own[pair] + back[pair] == pytest.approx(1) for pair in own)


def test_the_interval_is_that_of_the_bootstrap_over_prompts(
    blind: Path,
    key: Key,
    found: list[Table],
    shown: dict[str, Shown],
    policies: dict[str, str],
    tmp_path: Path,
) -> None:
    first = sorted({video.prompt for video in shown.values()})[0]
    choices = {  # h2o wins on the first prompt, loses on the other
        trial.trial: "left"
        if (policies[trial.left] == "h2o") == (shown[trial.left].prompt == first)
        else "right"
        for trial in key.trials
        if "h2o" in (policies[trial.left], policies[trial.right])
    }
    (table,) = tables(found, [write_votes(tmp_path / "v.json", key, choices)], [blind])
    h2o = next(line for line in table.lines if line.policy == "h2o")
    assert sorted(h2o.values[OVERALL].values()) == [0, 1]
    assert h2o.cells[OVERALL].mean == bootstrap(h2o.values[OVERALL])
    assert h2o.cells[OVERALL].mean.half_width == pytest.approx(0.5)


def test_the_command_makes_the_page_and_reads_votes(
    blind: Path,
    key: Key,
    policies: dict[str, str],
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    choices = prefer(key, policies, POLICIES)
    votes = [write_votes(blind / f"{voter}.json", key, choices, voter=voter * 12) for voter in "ab"]
    words = ["report", str(run_folder), f"out={out}", "--blind", f"votes={votes[0]},{votes[1]}"]
    assert cli.main(words) == 0  # the key lies beside the votes
    told = capsys.readouterr().out
    assert f"blind   {out / 'blind.html'}" in told
    assert "12 votes of 2 voters" in told
    assert (out / key.file_name).read_text() == key.text
    assert "over sliding_window†" in (out / "index.html").read_text()
    assert "votes.win_rate" in (out / "summary.csv").read_text()
    assert "win rate" in (out / "summary.tex").read_text()


def test_one_policy_cannot_be_compared(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no two policies"):
        make([next((run_folder / "mini").glob("h2o*"))], tmp_path / "out", blind=9)
    assert not [*(tmp_path / "out").glob("*.html")]
