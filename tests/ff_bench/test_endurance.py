"""A long video costs per chunk what a short one does: nothing that is held grows, no position is too far."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import policies
from ff_bench import generate, latents, runs, video
from ff_bench.compose import compose
from ff_bench.models.base import Decoder
from ff_bench.models.mini.backbone import Mini
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Protocol
from policies.checking.stream import BUDGET, SHAPE, tensors
from policies.context import Context
from policies.rope import Rope
from scripts.endurance import Tiny
from tests.ff_bench.tiny import CHUNK, PROMPTS, tiny_network

MANY = 2000
WARM = 16


def python_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_thousand_chunks_hold_what_two_hundred_do() -> None:
    """A thing left behind per chunk would be 1800 of them."""
    model = Tiny()
    context = Context(
        policies.load("h2o")(), model.shape, Budget(5 * 64, 0, CHUNK), Protocol(position="absolute")
    )
    take = Take(PROMPTS[:1], [0], 3 * MANY, 1, decode=False)
    held: list[tuple[object, ...]] = []
    blocks = []
    for chunk in rollout(model, context, take):
        assert chunk.summary["context_tokens"] == min(5 * 64, CHUNK * (chunk.number + 1))
        assert len(chunk.summary["kept"][0]) <= 2 * 5 * 64
        if chunk.number in (200, MANY - 1):
            held.append((chunk.summary["kv_bytes"], chunk.summary["state_bytes"], open_files()))
            blocks.append(python_blocks())
    assert held[0] == held[1]
    assert blocks[1] - blocks[0] < MANY // 4


def stream(name: str, chunks: int) -> Iterator[Context]:
    """Run a policy over `chunks` chunks of a model of noise; give its caches after each."""
    context = Context(policies.load(name)(), SHAPE, BUDGET, Protocol(position="frame_rank"), seed=7)
    parts = [tensors(SHAPE, batch=1, number=number) for number in range(8)]
    for chunk in range(chunks):
        context.start_chunk(chunk, chunk * SHAPE.chunk_frames)
        for level in (1.0, 0.0):
            context.start_pass(torch.full((1, SHAPE.chunk_frames), level), commit=level == 0)
            for layer in range(SHAPE.layers):
                context.attend(layer, *parts[(chunk + 3 * layer) % len(parts)])
        context.finish_chunk()
        yield context


@pytest.mark.parametrize("name", [name for name in policies.names() if not policies.load(name).is_full])
def test_no_policy_holds_more_the_longer_it_runs(name: str) -> None:
    most, blocks = [0, 0], []
    for number, context in enumerate(stream(name, 4 * WARM)):
        summary = context.summary()
        held = (summary["kv_bytes"], summary["state_bytes"])
        assert all(isinstance(part, int) for part in held)
        if number < WARM:
            most = [max(pair) for pair in zip(most, held, strict=True)]  # type: ignore[type-var]
        assert all(now <= before for now, before in zip(held, most, strict=True))  # type: ignore[operator]
        if number in (WARM, 4 * WARM - 1):
            blocks.append(python_blocks())
    assert blocks[1] - blocks[0] < 24 * WARM  # what is warmed up late counts too


# -- positions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [1000, 1030, 30_000, 345_600, 1_300_000])
def test_near_frames_turn_against_each_other_by_their_distance_however_late(far: int) -> None:
    wan = Rope((44, 42, 42), (1e4, 1e4, 1e4), "interleaved")
    late, early = (wan.time_angles(torch.tensor(time)) for time in (far, far - 7))
    exact = 7 * 1e4 ** (-torch.arange(0, 44, 2, dtype=torch.float64) / 44)
    turned = torch.polar(torch.ones(22), late) * torch.polar(torch.ones(22), early).conj()
    assert float((turned - torch.polar(torch.ones(22).double(), exact)).abs().max()) < 1e-4


def test_angles_of_a_thousand_frames_stay_as_they_were() -> None:
    """Videos of earlier versions are repeated bit for bit."""
    times = torch.arange(1025)
    plain = (times[:, None] * 1000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)).float()
    assert torch.equal(SHAPE.rope.time_angles(times), plain)


def test_a_token_that_cannot_be_counted_is_refused() -> None:
    context = Context(policies.load("random")(), SHAPE, BUDGET, Protocol(position="absolute"))
    last = (2**31 - 1) // SHAPE.chunk_tokens  # chunks that can be counted
    for chunk in (last - 1, last):
        context.start_chunk(chunk, chunk * SHAPE.chunk_frames)
        context.start_pass(torch.zeros(1, SHAPE.chunk_frames), commit=True)
        if chunk < last:
            for layer in range(SHAPE.layers):
                context.attend(layer, *tensors(SHAPE, batch=1, number=layer))
            context.finish_chunk()
    with pytest.raises(ValueError, match=f"token {(last + 1) * SHAPE.chunk_tokens - 1} .*2147483646"):
        context.attend(0, *tensors(SHAPE, batch=1, number=0))


# -- files ----------------------------------------------------------------------------------------------


class Watched(Mini):
    """Remembers which pictures are still held, and counts open files, while it decodes."""

    def __init__(self) -> None:
        super().__init__(tiny_network(), "watched")
        self.pictures: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []
        self.files: list[int] = []
        self.fails_at = sys.maxsize

    def decoder(self) -> Decoder:
        inner = super().decoder()

        def decode(latent: Tensor) -> Tensor:
            if len(self.pictures) == self.fails_at:
                raise MemoryError("no more")
            self.alive.append(sum(one() is not None for one in self.pictures))
            self.files.append(open_files())
            made = inner(latent)
            self.pictures.append(weakref.ref(made))
            return made

        return decode


@pytest.fixture
def watched(clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch) -> Watched:
    model = Watched()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    return model


def specs(*words: str) -> list[runs.VideoSpec]:
    Path("some.txt").write_text("\n".join(PROMPTS) + "\n")
    plain = ("prompts=some.txt", "policy=sliding_window", "length=45f", "steps=1", "device=cpu", "limit=null")
    asked = compose([*plain, "budget=512", "protocol.prefix=none", "save=[record,video]", *words]).config
    return runs.videos(asked)


def test_pictures_are_written_and_let_go(watched: Watched) -> None:
    before, both = open_files(), specs("batch=2")
    generate.generate(both[0].config, both)
    assert len(watched.alive) == 15
    assert max(watched.alive) <= 1  # the chunk before
    assert len(set(watched.files[1:])) == 1
    assert watched.files[-1] <= before + 2 * 4  # a lock, a record, a preview and a trace for each
    assert open_files() == before
    for spec in both:
        manifest = runs.read_manifest(spec.folder)
        assert manifest is not None and runs.is_finished(spec.folder)
        frames = video.read_record(spec.folder / runs.RECORD)
        assert video.frames_sha256(frames) == manifest.frames_sha256
        assert len(list(video.decode(spec.folder / runs.VIDEO))) == len(frames) == manifest.frames


def test_a_line_of_the_trace_does_not_grow(watched: Watched) -> None:
    (spec, _) = specs("length=360f")
    generate.generate(spec.config, [spec])
    lines = (spec.folder / runs.TRACE).read_text().splitlines()
    assert len(lines) == 120
    assert np.mean([len(line) for line in lines[-20:]]) < 1.1 * np.mean([len(line) for line in lines[10:30]])


def test_a_video_that_fails_half_way_leaves_the_one_that_was_there(watched: Watched) -> None:
    (spec, _) = specs("overwrite=true")
    generate.generate(spec.config, [spec])
    before = {path.name: path.read_bytes() for path in spec.folder.iterdir()}
    watched.pictures.clear()
    watched.fails_at = 7
    with pytest.raises(MemoryError):
        generate.generate(spec.config, [spec])
    assert {path.name: path.read_bytes() for path in spec.folder.iterdir()} == before
    assert runs.is_finished(spec.folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_latents_in_pieces_are_the_file_of_all(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(9, 16, 4, 6).to(dtype)
    with latents.recording(tmp_path / "a.safetensors", 9) as take:
        for piece in whole.split(3):
            take(piece)
    assert (tmp_path / "a.safetensors").read_bytes() == save({"latents": whole})
    with (
        pytest.raises(ValueError, match="the video has 3 latent frames, not 9"),
        latents.recording(tmp_path / "b.safetensors", 9) as take,
    ):
        take(whole[:3])
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
