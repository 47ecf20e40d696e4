"""Recordings hold what a rollout attends with; replays measure what a direct computation measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ff_bench import runs
from ff_bench.analysis import asking, greedy, recording, replay, replay_request
from ff_bench.analysis.recording import Choice
from ff_bench.analysis.replay import Entry, Plan, Replayed, jaccard, recall_top, relative_error
from ff_bench.analysis.streams import Setting, Stream, truths
from ff_bench.models.base import Attend
from ff_bench.models.mini.backbone import Mini
from ff_bench.quantities import Budget
from tests.ff_bench.tiny import tiny_model, tiny_network

FRAMES = 18
BUDGET = 448
"""Seven latent frames: dropped from the third chunk on."""
WORDS = ["length=18f", "steps=1", "protocol.prefix=none", "protocol.recent=192"]
BOTH = Choice((0, 1), (0, 1))
NAMES = ("random", "sliding_window", "h2o")


class Telling(Mini):
    """The tiny model, with what it attends with written down."""

    def __init__(self) -> None:
        super().__init__(tiny_network(), "telling")
        self.given: list[tuple[int, int, bool, Tensor, Tensor, Tensor]] = []

    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        def told(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            parts = (queries[0].clone(), keys[0].clone(), values[0].clone())
            self.given.append((first_frame, layer, cache_only, *parts))
            return attend(layer, queries, keys, values)

        return super().denoise(
            latent, noise, conditioning, told, first_frame=first_frame, cache_only=cache_only
        )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    spec = video(tmp_path_factory.mktemp("runs"))
    return Setting(BOTH, recording.record(tiny_model, spec, BOTH), seed=0)


def video(folder: Path, *words: str) -> runs.VideoSpec:
    return runs.videos(asking.full_cache([*WORDS, f"runs_dir={folder}", *words]))[0]


def plan(*names: str, has_reference: bool = False, words: tuple[str, ...] = ()) -> Plan:
    full = asking.full_cache([*WORDS, *words])
    budget = str(BUDGET)
    entries = tuple(replay_request.entry(name, budget, [*WORDS, *words], full) for name in names)
    reference = replay_request.entry("random", budget, [*WORDS, *words], full).config
    return Plan(full, entries, 2, (reference,) * has_reference)


@pytest.fixture(scope="module")
def replayed(setting: Setting) -> Replayed:
    return replay.replay(setting, plan(*NAMES, has_reference=True))


def mean(found: Replayed, policy: str, measure: str) -> float:
    values = [row["value"] for row in found.rows if row["policy"] == policy and row["measure"] == measure]
    return float(np.mean(values))


@pytest.mark.parametrize("noisy", [0, 1])
def test_a_recording_holds_what_the_model_attends_with(noisy: int, tmp_path: Path) -> None:
    model, choice = Telling(), Choice((1,), (1,), noisy)
    spec = video(tmp_path)
    made = recording.record(lambda: model, spec, choice)
    for piece in made.pieces:
        tensors = made.load(piece, "cpu")
        assert len(tensors) == 3 * (1 + noisy)
        assert piece.levels == (1.0,) * noisy
        for ahead, is_clean in (("", True), ("noisy0.", False))[: 1 + noisy]:
            (given,) = (one[3:] for one in model.given if one[:3] == (piece.first, 1, is_clean))
            for name, tensor in zip(("queries", "keys", "values"), given, strict=True):
                assert torch.equal(tensors[ahead + name][0, 0], tensor[1])
    held = sum(x.nbytes for piece in made.pieces for x in made.load(piece, "cpu").values())
    assert held == choice.nbytes(spec.config.facts, latent_frames=FRAMES, dtype="float32")


def test_a_finished_recording_is_read_and_an_unfinished_one_made_again(tmp_path: Path) -> None:
    spec = video(tmp_path)
    first = recording.record(tiny_model, spec, BOTH)

    def refuse() -> Mini:
        raise AssertionError("nothing is to be generated")

    again = recording.record(refuse, spec, BOTH)
    assert again == first
    (first.folder / recording.MANIFEST).unlink()
    with pytest.raises(AssertionError):
        recording.record(refuse, spec, BOTH)


def test_query_heads_come_along_with_their_key_head() -> None:
    whole = replace(tiny_model().shape, query_heads=6, heads=2)
    assert Choice((0,), (1,)).shape(whole).query_heads == 3


def test_a_window_is_off_by_what_direct_attention_says(setting: Setting, replayed: Replayed) -> None:
    """The last chunk under a sliding window, in float64 and without a line of the package's attention."""
    rope = setting.shape.rope
    pieces = setting.recording.pieces
    loaded = [setting.recording.load(piece, "cpu") for piece in pieces]
    keys, values = (torch.cat([one[name] for one in loaded], 2).double() for name in ("keys", "values"))
    queries = loaded[-1]["queries"].double()
    token = torch.arange(keys.shape[2])
    angles = rope.angles(token // 64, token % 64 // 8, token % 8).double()

    def turned(x: Tensor, part: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        a, b, cos, sin = x[..., :half], x[..., half:], part.cos(), part.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    logits = turned(queries, angles[-192:]) @ turned(keys, angles).mT / 8
    true = logits.softmax(-1) @ values
    start = keys.shape[2] - 192 - BUDGET
    near = logits[..., start:].softmax(-1) @ values[:, :, start:]
    expected = (near - true).square().sum((2, 3)).sqrt() / true.square().sum((2, 3)).sqrt()
    mass = logits.softmax(-1).sum(2)
    recall = mass[..., start:-192].sum(-1) / mass[..., :-192].sum(-1)
    for measure, values_of in (("error", expected), ("recall", recall)):
        for row in replayed.rows:
            if (row["policy"], row["measure"], row["chunk"]) == ("sliding_window", measure, 5):
                assert row["value"] == pytest.approx(values_of[row["layer"], row["head"]].item(), rel=1e-3)


def test_what_a_policy_keeps_depends_on_no_other(setting: Setting, replayed: Replayed) -> None:
    alone = replay.replay(setting, plan("h2o"))
    assert alone.rows == [row for row in replayed.rows if row["policy"] == "h2o"]


def test_a_budget_above_the_video_drops_nothing_and_is_exact(setting: Setting) -> None:
    full = asking.full_cache(WORDS)
    bound = replay_request.entry("h2o", "7f", WORDS, full).config
    entry = Entry("h2o", replace(bound, budget=Budget("30f", 30 * 64)))
    assert not replay.replay(setting, Plan(full, (entry,), 2)).rows
    found = truths(setting, full)
    stream = Stream(setting, entry.config, replay.generate.make_policy(entry.config))
    for piece, truth in zip(setting.recording.pieces, found, strict=True):
        assert torch.equal(stream.step(piece, setting.recording.load(piece, "cpu")), truth.outputs)


def test_measuring_starts_when_slots_have_gone(replayed: Replayed) -> None:
    assert {row["chunk"] for row in replayed.rows} == {3, 4, 5}


def test_the_reference_that_knows_the_future_errs_least(replayed: Replayed) -> None:
    errors = {name: mean(replayed, name, "error") for name in (*NAMES, greedy.NAME)}
    assert min(errors, key=lambda name: errors[name]) == greedy.NAME


def test_every_share_is_one(replayed: Replayed) -> None:
    assert all(0 <= row["value"] <= 1 + 1e-6 for row in replayed.rows if row["measure"] != "error")


def test_a_protocol_that_observes_all_passes_sees_the_recorded_noisy_one(tmp_path: Path) -> None:
    words = ("protocol.passes=all",)
    choice = Choice((0, 1), (0, 1), 1)
    made = recording.record(tiny_model, video(tmp_path, *words), choice)
    stream = Stream(
        Setting(choice, made, seed=0), plan("h2o", words=words).entries[0].config,
        replay.generate.make_policy(plan("h2o", words=words).entries[0].config),
    )  # fmt: skip
    stream.step(made.pieces[0], made.load(made.pieces[0], "cpu"))
    assert stream.context.caches[0].slot_state("mass").sum() == pytest.approx(2 * 2 * 192, rel=1e-4)


def test_error_is_relative_over_rows_and_groups() -> None:
    true = torch.ones(1, 4, 3, 2)
    off = true.clone()
    off[:, 1] += 1.0  # the second query head of the first group
    found = relative_error(off, true, 2)
    assert found[0].tolist() == pytest.approx([0.5**0.5, 0.0])


def test_recall_top_counts_the_largest_and_jaccard_shares() -> None:
    mass = torch.tensor([[[0.1, 0.4, 0.3, 0.2]]])
    kept = torch.tensor([[[False, True, False, True]]])
    assert recall_top(mass, kept, 2).item() == 0.5
    assert jaccard(kept, torch.tensor([[[True, True, False, True]]])) == pytest.approx(2 / 3)
