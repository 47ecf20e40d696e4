"""Videos that were not made here: what files hold, what is said of them, resuming scores, shared tables."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from ff_bench import cli, foreign, foreign_files, probe, records, runs
from ff_bench.errors import UsageError
from ff_bench.foreign_files import Place, collect
from ff_bench.report import joining
from ff_bench.report.summary import groups, summarise

SIDES = (32, 48)
KINDS = {
    ".mp4": ("libx264", "yuv420p"), ".webm": ("libvpx-vp9", "yuv420p"), ".avi": ("mjpeg", "yuvj420p"),
    ".mkv": ("ffv1", "bgr0"), ".gif": ("gif", "rgb8"), ".wmv": ("wmv2", "yuv420p"),
    ".ts": ("libx264", "yuv420p"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))


def make(
    path: Path,
    *,
    frames: int = 20,
    fps: Fraction | int = 16,
    sides: tuple[int, int] = SIDES,
    shade: int = 0,
    times: list[int] | None = None,
    faststart: bool = False,
) -> Path:
    """Write a moving pattern with the codec that goes with the ending of the path; times in milliseconds."""
    codec, pixels = KINDS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = sides
        stream.pix_fmt = pixels
        down, across = np.mgrid[: sides[0], : sides[1]]
        for number in range(frames):
            image = np.stack([across * 3 + number * 5 + shade, down * 2, across + down], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def score(*words: str) -> int:
    return cli.main(["score", *words, "metrics=[flicker]", "stages=[score]"])


def last_line(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def rows_below(folder: Path) -> list[dict]:
    found = [path.parent for path in sorted(folder.rglob(runs.ROWS))]
    return [row for place in found for row in records.rows_of(place)]


# what a file holds


@pytest.mark.parametrize("ending", sorted(KINDS))
@pytest.mark.parametrize("fps", [16, Fraction(24000, 1001)])
def test_frames_are_counted_and_steady_rates_exact(tmp_path: Path, ending: str, fps: Fraction | int) -> None:
    if ending == ".gif" and fps != 16:
        pytest.skip("times of a GIF are hundredths of a second")
    found = probe.examine(make(tmp_path / f"a{ending}", fps=fps))
    assert (found.frames, found.height, found.width, found.is_variable) == (20, *SIDES, False)
    assert found.fps == fps


def test_decoding_twice_gives_the_same_frames(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv")
    frames = np.stack(list(probe.decode(path)))
    assert probe.examine(path).frames_sha256 == hashlib.sha256(frames.tobytes()).hexdigest()


def test_a_variable_rate_becomes_its_average(tmp_path: Path) -> None:
    times = [0, 63, 125, 313, 375, 438, 500, 563, 750, 813]
    found = probe.examine(make(tmp_path / "a.mkv", frames=10, times=times))
    assert found.is_variable and found.fps == pytest.approx(9 / 0.813, rel=0.01)


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".avi", ".mkv", ".gif", ".wmv"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_file_that_breaks_off_is_never_taken_for_whole(tmp_path: Path, ending: str, share: float) -> None:
    whole = make(tmp_path / f"whole{ending}", frames=40, faststart=ending == ".mp4")
    part = cut(whole, tmp_path / f"part{ending}", share)
    try:
        found = probe.examine(part)
    except probe.Broken:
        return
    assert found.frames == 40  # only what follows the last frame is missing


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "empty"), ("text.mp4", "cannot be read"), ("sound.mp4", "only audio"),
        ("slow.mkv", "0.5 frames per second"), ("none.mp4", "no such file"), ("cut.mp4", "its index"),
    ],
)  # fmt: skip
def test_a_broken_file_says_why(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "text.mp4":
        path.write_text("no video\n" * 100)
    elif name == "sound.mp4":
        sound(path)
    elif name == "slow.mkv":
        make(path, frames=3, fps=Fraction(1, 2))
    elif name == "cut.mp4":
        cut(make(tmp_path / "whole.mp4"), path, 0.5)
    with pytest.raises(probe.Broken, match=reason):
        probe.examine(path)


# what names and folders say


@pytest.mark.parametrize(
    ("stem", "name", "seed"),
    [
        ("a_b", "a_b", 0), ("cat-3", "cat", 3), ("cat_s12", "cat", 12), ("clip-0001", "clip-0001", 0),
        ("7", "7", 0), ("x" * 80, "x" * 80, 0),
    ],
)  # fmt: skip
def test_names_give_ids_and_seeds(stem: str, name: str, seed: int) -> None:
    place = Place(Path(f"/r/m/{stem}.mp4"), Path("/r"))
    assert (place.id, place.seed, place.policy) == (name, seed, "m")


def test_odd_names_become_fit_and_stay_different() -> None:
    names = ["a b", "a  b", "'a'\"b\"", "видео", "клип", "<script>", "x" * 200, "../..", "a\nb"]
    fit = [foreign_files.name_of(name) for name in names]
    assert len(set(fit)) == len(names)
    assert all(foreign_files.FIT.fullmatch(name) for name in fit)


def test_folders_are_searched_without_hidden_files_and_our_own_videos(clean: Path) -> None:
    for name in ("b/2.MP4", "b/1.webm", "a.mkv", ".x.mp4", ".h/y.mp4", "notes.txt", "run/video.mp4"):
        (clean / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (clean / "in" / name).touch()
    (clean / "in" / "run" / runs.MANIFEST).touch()
    found = collect(["in", "in/a.mkv"])
    assert [place.relative for place in found.places] == ["a.mkv", "b/1.webm", "b/2.MP4"]
    assert found.ignored == 3 and found.name == "in"
    assert [place.policy for place in found.places] == ["in", "b", "b"]


def test_a_named_file_may_have_any_ending(clean: Path) -> None:
    make(clean / "a.mkv").rename(clean / "a.bin")
    assert score("a.bin") == 0


def test_one_stem_in_two_files_stays_two_videos(clean: Path) -> None:
    for name in ("m/a.mp4", "m/a.webm", "n/a.mp4"):
        make(clean / "in" / name)
    assert score("in", "out=out") == 0
    rows = [row for row in rows_below(clean / "out") if row["clip"] == -1]
    assert len({(row["policy"], row["prompt_id"]) for row in rows}) == len(rows) == 3


# the table of prompts


def write(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
    return path


def test_a_table_says_what_videos_are(clean: Path) -> None:
    make(clean / "in" / "a 1.mkv")
    make(clean / "in" / "full.mkv", shade=9)
    prompt = 'A <b>cat</b>, "it\'s" ../../etc'
    write(
        clean / "in" / "t.csv",
        {"file": "a 1.mkv", "prompt": prompt, "model": "theirs", "policy": "p/q", "seed": 4,
         "budget_tokens": 100, "reference": "full.mkv"},
        {"file": "full.mkv", "prompt": prompt, "model": "theirs", "policy": "full"},
    )  # fmt: skip
    words = ("prompts=in/t.csv", "out=out", "stages=[score]", "metrics=[fidelity]")
    assert cli.main(["score", "in", *words]) == 0
    rows = {row["policy"]: row for row in rows_below(clean / "out") if row["metric"] == "fidelity.psnr"}
    row = rows["p/q"]
    assert (row["prompt_text"], row["model"], row["seed"], row["budget_tokens"]) == (prompt, "theirs", 4, 100)
    assert row["status"] == "ok" and row["reference"] and row["prompt_set"] == "t"
    assert rows["full"]["status"] == "undefined"
    assert {path.parents[3] for path in clean.rglob(runs.ROWS)} == {clean / "out" / "foreign"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"file": "b.mp4", "prompt": "x"}], ["row 1", "b.mp4", "did you mean"]),
        ([{"prompt": "x"}], ["row 1", "file"]),
        ([{"file": "a.mp4", "promt": "x"}], ["promt", "prompt"]),
        ([{"file": "a.mp4", "seed": "-1"}], ["row 1", "seed", "-1"]),
        ([{"file": "a.mp4", "id": "../x"}], ["row 1", "../x"]),
        ([{"file": "a.mp4", "prompt": "x\x07"}], ["row 1", "control"]),
        ([{"file": "a.mp4", "reference": "none.mp4"}], ["row 1", "none.mp4"]),
        ([{"file": "a.mp4", "prompt": "x"}, {"file": "in/a.mp4", "prompt": "y"}], ["row 2", "a.mp4"]),
        ([{"file": "a.mp4", "prompt": "x"}, {"file": "c.mp4", "prompt": "x"}], ["seed", "ids"]),
        ([{"file": "a.mp4", "model": "mini"}], ["mini", "prompt"]),
    ],
)
def test_a_wrong_table_is_one_sentence(
    clean: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, object]], words: list[str]
) -> None:
    for name in ("a.mp4", "c.mp4"):
        (clean / "in").mkdir(exist_ok=True)
        (clean / "in" / name).touch()
    write(clean / "t.csv", *rows)
    assert score("in", "prompts=t.csv", "out=out") == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words) and told.count("\n") == 1
    assert not (clean / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["VIDEOS"]), (["nowhere"], ["nowhere"]), (["in", "ouput=x"], ["ouput", "out"]),
        (["in", "metrics=[cost]"], ["cost", "trace"]), (["in", "metrics=[world]"], ["world", "truth"]),
        (["in", "metrics=[flikker]"], ["flikker", "'flicker'"]), (["in", "stages=[generate]"], ["generate"]),
        (["in", "prompts=t.txt"], ["t.txt", ".csv"]), (["in", "prompts=t.csv"], ["t.csv"]),
        (["in", "model="], ["model"]), (["in", "out=in/a.mp4"], ["out", "file"]), (["empty"], ["no video"]),
        (["in", "metrics.vbench_long.modes=[fast]"], ["modes", "fast"]),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_sentence(
    clean: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: list[str]
) -> None:
    for folder in ("in", "empty"):
        (clean / folder).mkdir()
    (clean / "in" / "a.mp4").touch()
    assert cli.main(["score", *words]) == 2
    sentence = capsys.readouterr().err
    assert all(word in sentence for word in told) and sentence.count("\n") == 1


# scores


def test_the_same_command_computes_nothing(
    clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(clean / "in" / "a_b c.mp4")
    assert score("in", "out=out") == 0
    before = {path: path.read_bytes() for path in (clean / "out").rglob("*.json*")}
    monkeypatch.setattr(probe, "examine", None)
    monkeypatch.setattr(probe, "decode", None)
    assert score("in", "out=out") == 0
    assert {path: path.read_bytes() for path in (clean / "out").rglob("*.json*")} == before
    assert last_line(capsys)["failed"] == 0


def test_a_metric_that_comes_later_is_computed_alone(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    assert score("in", "out=out") == 0
    assert cli.main(["score", "in", "out=out", "metrics=[flicker,drift]", "stages=[score]"]) == 0
    (path,) = (clean / "out").rglob(runs.ROWS)
    begun = [item["begin"] for item in records.read(path) if "begin" in item]
    assert begun == ["flicker", "drift"]


def test_a_broken_file_is_a_row_and_the_others_go_on(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(clean / "in" / "good.mp4")
    (clean / "in" / "bad.mp4").touch()
    for _ in range(2):
        assert score("in", "out=out") == 1
        assert last_line(capsys)["broken"] == 1
    rows = rows_below(clean / "out")
    (row,) = [row for row in rows if row["metric"] == "error"]
    assert (row["status"], row["reason"]) == ("failed", "the file is empty")
    assert any(row["metric"].startswith("flicker") and row["status"] == "ok" for row in rows)
    assert sum(len(records.read(path)) for path in (clean / "out").rglob("bad*/rows.jsonl")) == 1


def test_a_name_that_is_no_text_is_a_failed_row(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    os.rename(clean / "in" / "a.mp4", os.fsencode(clean / "in") + b"/\xff\n.mp4")
    assert score("in", "out=out") == 1
    (row,) = rows_below(clean / "out")
    assert "UTF-8" in row["reason"]


def test_a_file_that_changed_replaces_what_it_was(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    assert score("in", "out=out") == 0
    (clean / "in" / "a.mp4").write_bytes(make(clean / "b.mp4", shade=50).read_bytes())
    assert score("in", "out=out") == 0
    folders = [path.parent for path in (clean / "out").rglob(runs.ROWS)]
    assert sorted(foreign.is_superseded(folder) for folder in folders) == [False, True]
    assert len(runs.find([clean / "out"])) == 1


def test_a_longer_list_renames_the_list_of_finished_rows(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    assert score("in", "out=out") == 0
    make(clean / "in" / "b.mp4")
    assert score("in", "out=out") == 0
    rows = rows_below(clean / "out")
    assert len({row["video_id"] for row in rows}) == 2
    assert len({row["prompt_list_sha256"] for row in rows}) == 1


def test_overwrite_scores_again(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    for word in ("overwrite=false", "overwrite=true"):
        assert score("in", "out=out", word) == 0
    (path,) = (clean / "out").rglob(runs.ROWS)
    assert sum("begin" in item for item in records.read(path)) == 1


def test_odd_sides_and_a_single_frame_have_their_reasons(clean: Path) -> None:
    make(clean / "in" / "odd.mkv", sides=(33, 47))
    make(clean / "in" / "one.mp4", frames=1)
    words = ("metrics=[vbench_long,flicker]", "metrics.vbench_long.modes=[compat,strict]", "stages=[score]")
    chosen = "metrics.vbench_long.dimensions=[temporal_flickering]"
    assert cli.main(["score", "in", "out=out", chosen, *words]) == 0
    rows = {(row["prompt_id"], row["metric"]): row for row in rows_below(clean / "out") if row["clip"] == -1}
    assert "even" in rows["odd", "vbench_long.compat.temporal_flickering"]["reason"]
    assert rows["odd", "vbench_long.strict.temporal_flickering"]["status"] == "ok"
    assert rows["one", "flicker.temporal_flickering"]["status"] == "undefined"


# tables


def row(policy: str, *, checkpoint: str = foreign.FOREIGN, **about: object) -> dict[str, object]:
    """One row of a made-up video."""
    facts = {"size": "64x64"} if checkpoint == foreign.FOREIGN else {}
    known = {
        "schema": 1, "model": "mini", "checkpoint": checkpoint, "policy": policy, "policy_fields": "{}",
        "protocol": "equal", "budget_tokens": None, "frames": 80, "fps": 16, "prompt_set": "set",
        "prompt_list_sha256": "a", "prompt_id": "p", "prompt_text": "text", "seed": 0, "version": 1,
        "metric": "flicker.temporal_flickering", "value": 0.5, "status": "ok", "reason": "", "t0": 0.0,
        "clip": -1, "t1": 5.0, "protocol_fields": json.dumps(facts), "steps": 4, "batch": 1,
        "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    if checkpoint == foreign.FOREIGN:
        known |= {"protocol": "foreign", "steps": None, "batch": None, "dtype": "", "device": ""}
        known |= {"prompt_id": "q", "prompt_set": "theirs", "prompt_list_sha256": "b", "fps": 16.0}
    known |= about
    known["video_id"] = f"{policy}{known['frames']}{known['prompt_id']}{checkpoint}"
    return known


OURS = [row(policy, checkpoint="c") for policy in ("full", "h2o")]


def tables(*rows: dict[str, object]) -> list[tuple[dict[str, object], pd.DataFrame]]:
    return [(dict(key), part) for key, part in groups(records.frame([*OURS, *rows]))]


def test_others_join_where_all_that_is_known_agrees() -> None:
    ((key, part),) = tables(row("h2o"), row("full"))
    assert set(part["prompt_id"]) == {"p"} and key["steps"] == 4
    (table,) = summarise(records.frame([*OURS, row("h2o")]), headline=["flicker.temporal_flickering"])
    assert [(line.policy, line.is_foreign) for line in table.lines].count(("h2o", True)) == 1
    assert len(table.lines) == 3 and any(note.startswith("§") for note in table.notes)


@pytest.mark.parametrize(
    "about",
    [
        {"model": "other"}, {"frames": 81}, {"fps": 15.0}, {"prompt_text": "another"}, {"prompt_text": ""},
        {"protocol": "published"}, {"protocol_fields": json.dumps({"size": "66x64"})},
    ],
)  # fmt: skip
def test_others_stay_alone_where_something_differs(about: dict[str, object]) -> None:
    (_, ours), (key, theirs) = tables(row("x", **about))
    assert len(ours) == 2 and len(theirs) == 1 and key["checkpoint"] == foreign.FOREIGN


def test_a_broken_video_stands_with_the_others_of_its_policy() -> None:
    broken = row("x", frames=0, fps=0.0, metric="error", value=None, status="failed", protocol_fields="{}")
    others = [row("x", model="m", prompt_id=name) for name in "ab"]
    *_, (key, theirs) = tables(*others, {**broken, "model": "m", "reason": "empty"})
    assert key["frames"] == 80 and len(theirs) == 3
    *_, (key, theirs) = tables(broken)
    assert key["frames"] == 0 and len(theirs) == 1
    *_, table = summarise(records.frame([*OURS, broken]), headline=["flicker.temporal_flickering"])
    assert "no video could be read" in table.title


def test_tables_of_a_file_join_as_well(tmp_path: Path) -> None:
    made = records.frame([*OURS, row("h2o")])
    parquet, text = records.write_tables(made, tmp_path)
    for path in (parquet, text):
        assert len([*groups(records.read_table(path))]) == 1


def test_a_report_shows_videos_that_browsers_play_and_names_the_others(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(clean / "in" / "<i>" / "a.mp4")
    make(clean / "in" / "n" / "a.mkv", times=[50 * number + 20 * (number % 2) for number in range(20)])
    assert cli.main(["score", "in", "out=out", "metrics=[flicker]"]) == 0
    out = capsys.readouterr().out
    page = Path(json.loads(out.splitlines()[-1])["report"]).read_text(encoding="utf-8")
    assert 'data-source="../../../in/%3Ci%3E/a.mp4"' in page and "<i>" not in page
    assert "browsers do not play ffv1" in page and "variable frame rate" in out
    assert "made elsewhere" in out


def test_a_superseded_video_is_in_no_report(clean: Path) -> None:
    make(clean / "in" / "a.mp4")
    for policy in ("one", "two"):
        assert score("in", "out=out", f"policy={policy}") == 0
    from ff_bench.report import read_rows

    assert set(read_rows([clean / "out"])["policy"]) == {"two"}
    assert joining.is_foreign(read_rows([clean / "out"])).all()


def test_words_that_look_like_settings_are_paths_where_they_exist(clean: Path) -> None:
    make(clean / "a=b.mp4")
    assert score("a=b.mp4", "out=out") == 0
    with pytest.raises(UsageError):
        collect(["c=d.mp4"])
