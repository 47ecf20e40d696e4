"""`ff-bench verify`, rehearsed on tiny random weights; each judgement on cases that must fail."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from ff_bench import verify
from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.models.wan import synthesis
from ff_bench.models.wan.member import Member
from ff_bench.verify import parts, rollouts, upstream
from ff_bench.verify.finding import Finding, guarded
from ff_bench.verify.rollouts import Made

FAKE = """
import sys
import torch

class Part(torch.nn.Module):
    def load_state_dict(self, weights):
        assert weights and all(name.startswith("model.") for name in weights), list(weights)[:3]

class CausalInferencePipeline(torch.nn.Module):
    def __init__(self, config, device):
        super().__init__()
        assert config.denoising_step_list == [1000, 750, 500, 250] and config.timestep_shift == 5.0, config
        self.generator, self.text_encoder, self.vae = Part(), Part(), Part()

    def inference(self, noise, text_prompts, return_latents):
        answer = torch.load("answer.pt")
        assert text_prompts == [answer["prompt"]] and noise.dtype == torch.bfloat16
        if answer["latents"] is None:
            raise RuntimeError("flash-attn is not installed")
        assert noise.shape == (1, *answer["latents"].shape), noise.shape
        video = answer["pictures"].permute(0, 3, 1, 2)[None] / 255
        return video, answer["latents"][None]
"""


class Rehearsal:
    """A folder with the files of a tiny member, and what the whole command said about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        member = compose(["model=self_forcing"]).config.model.fields
        assert isinstance(member, Member)
        self.words = [
            *synthesis.write(folder / "files", member, synthesis.TINY), "device=cpu", "dtype=float32",
            f"runs_dir={folder / 'runs'}",
        ]  # fmt: skip
        self.member = synthesis.resized(member, self.words)

    def request(self) -> verify.Request:
        return verify.Request(tuple(self.words), quick=True)

    @cached_property
    def window(self) -> Made:
        return rollouts.make(verify.composed(self.request(), length="21f", noise="upstream"))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> Iterator[Rehearsal]:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("verify")
        patched.setenv("FF_BENCH_CACHE", str(folder / "cache"))
        patched.chdir(folder)
        yield Rehearsal(folder)


def states(said: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(said.strip().splitlines()[-1])["checks"]
    return found


def test_the_whole_command(rehearsal, capsys) -> None:
    assert verify.run([*rehearsal.words, "--quick"]) == 0
    said = capsys.readouterr().out
    found = states(said)
    assert set(found.values()) == {"PASS", "SKIP"}
    assert [name for name, state in found.items() if state == "SKIP"] == ["against upstream"]
    assert {"weights", "VAE weights", "text encoder", "VAE chunk by chunk", "21 frames",
            "short rollout: not frozen", "time and memory", "cost of Table 1"} <= set(found)  # fmt: skip
    assert "largest difference to one call 0 (0 of 255)" in said
    assert "context rule roll21" in said
    assert "self_forcing: PASS" in said


def test_broken_files_fail_alone(rehearsal, capsys, tmp_path) -> None:
    weights = torch.load(rehearsal.member.vae.path, weights_only=True)
    weights["decoder.head.2.bias"] += float("nan")
    torch.save(weights, tmp_path / "Wan2.1_VAE.pth")
    words = [word for word in rehearsal.words if "vae" not in word and "tokenizer" not in word]
    words += [f"model.vae.path={tmp_path / 'Wan2.1_VAE.pth'}", f"model.tokenizer.path={tmp_path / 'none'}"]
    assert verify.run([*words, "--quick"]) == 1
    said = capsys.readouterr().out
    found = states(said)
    assert found["weights"] == found["VAE weights"] == "PASS"
    assert found["tokenizer files"] == found["text encoder"] == found["VAE"] == "FAIL"
    assert 'hf download Wan-AI/Wan2.1-T2V-1.3B --include "google/umt5-xxl/*"' in said
    assert "is damaged: 1 tensors hold NaN or infinity, the first is decoder.conv_out.bias" in said
    assert "self_forcing: FAIL: tokenizer files, text encoder, VAE, training window" in said


def test_a_file_is_compared_with_the_name_that_the_hub_gave_it(rehearsal, tmp_path) -> None:
    content = Path(rehearsal.member.vae.path).read_bytes()
    digest = parts.digest(Path(rehearsal.member.vae.path))
    cases = ((digest, "PASS", "as the hub names it"), ("0" * 64, "FAIL", "get it again"))
    for blob, state, sentence in cases:
        (tmp_path / blob).write_bytes(content)
        link = tmp_path / f"{state}.pth"
        link.symlink_to(tmp_path / blob)
        member = replace(rehearsal.member, vae=replace(rehearsal.member.vae, path=str(link)))
        (finding,) = [one for one in parts.check_files(member) if one.name == "VAE weights"]
        assert finding.state == state
        assert sentence in finding.seen


# -- against the original ---------------------------------------------------------------------------


def repository(folder: Path, made: Made, *, apart: float, pictures: np.ndarray | None = None) -> Path:
    """A checkout whose pipeline answers with our latents, `apart` of their spread away from them."""
    (folder / "pipeline").mkdir(parents=True)
    (folder / "pipeline" / "__init__.py").write_text(FAKE)
    (folder / "configs").mkdir()
    (folder / "configs" / "default_config.yaml").write_text("denoising_step_list: []\n")
    (folder / "configs" / "self_forcing_dmd.yaml").write_text(
        "denoising_step_list: [1000, 750, 500, 250]\ntimestep_shift: 5.0\n"
    )
    ours = made.latents.float()
    latents = None if pictures is None else ours + apart * ours[:3].std()
    shown = None if pictures is None else torch.from_numpy(pictures)
    answer = {"prompt": made.manifest.identity["prompt"], "latents": latents, "pictures": shown}
    torch.save(answer, folder / "answer.pt")
    return folder


def test_the_original_agrees_or_not(rehearsal, tmp_path) -> None:
    made = rehearsal.window
    near = repository(tmp_path / "near", made, apart=0.01, pictures=made.frames)
    found = list(upstream.check(made, near, python=None))
    assert [finding.state for finding in found] == ["PASS", "PASS"]
    assert "0.010 of the spread" in found[0].seen
    assert "PSNR 100.0 dB" in found[1].seen
    theirs = upstream.Theirs(made.latents.float() * 1.5, made.frames)
    assert [finding.state for finding in upstream.compare(made, theirs, "x")] == ["FAIL", "PASS"]
    short = upstream.Theirs(made.latents[:18].float(), made.frames)
    assert [finding.state for finding in upstream.compare(made, short, "x")] == ["FAIL"]


def test_the_original_breaks(rehearsal, tmp_path) -> None:
    made = rehearsal.window
    broken = repository(tmp_path / "broken", made, apart=0)
    (finding,) = guarded("upstream", lambda: upstream.check(made, broken, python=sys.executable))
    assert finding.state == "FAIL"
    assert finding.seen == "the original ended with code 1: RuntimeError: flash-attn is not installed"


def test_upstream_is_skipped_where_there_is_none(rehearsal) -> None:
    (finding,) = upstream.check(rehearsal.window, None, python=None)
    assert (finding.state, finding.seen) == ("SKIP", "no --upstream DIR was given")


def test_python_of_a_checkout(tmp_path) -> None:
    assert upstream.python_of(tmp_path) == sys.executable
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert upstream.python_of(tmp_path) == str(own)


# -- judgements -------------------------------------------------------------------------------------


def judged(frames: np.ndarray) -> dict[str, str]:
    return {one.name.split("not ")[1]: one.state for one in rollouts.judge_pictures(frames, 16, "x")}


def test_black_empty_and_frozen_seconds_are_found() -> None:
    moving = np.random.default_rng(0).integers(0, 255, (160, 8, 8, 3), dtype=np.uint8)
    assert judged(moving) == {"black": "PASS", "empty": "PASS", "frozen": "PASS"}
    black, grey, frozen, short = (moving.copy() for _ in range(4))
    black[60:80] = 0
    assert judged(black) == {"black": "FAIL", "empty": "FAIL", "frozen": "FAIL"}
    grey[70:130] = np.arange(60, dtype=np.uint8)[:, None, None, None] + 90
    assert judged(grey) == {"black": "PASS", "empty": "FAIL", "frozen": "PASS"}
    frozen[50:70] = frozen[50]
    assert judged(frozen) == {"black": "PASS", "empty": "PASS", "frozen": "FAIL"}
    short[50:60] = short[50]  # ten pictures are less than a second
    assert judged(short) == {"black": "PASS", "empty": "PASS", "frozen": "PASS"}


def test_latents_that_are_no_video_fail(rehearsal) -> None:
    made = rehearsal.window
    for latents in (torch.zeros_like(made.latents), made.latents / 0):
        (finding,) = rollouts.check_window(replace(made, latents=latents), "21 frames")
        assert finding.state == "FAIL"


def test_cost_of_the_first_table(rehearsal) -> None:
    made = rehearsal.window
    line = {"prefix": False, "seconds": 1.5, "decode_seconds": 0.5, "kv_bytes": 2**30}
    slow = {**line, "seconds": 100.0}
    found = list(rollouts.check_cost(replace(made, trace=[slow, slow, *[line] * 10])))
    assert "8.00 pictures/s, 1.50 s a chunk of which 0.50 s decode, keys and values 1.0 GiB" in found[0].seen
    # 3 x 128 videos of 30 s and as many of 60 s at twice the time that they play: 69,120 s.
    assert "about 19 h 12 min" in found[1].seen
    assert "768 videos" in found[1].seen


def test_psnr() -> None:
    black, white = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    assert parts.psnr(black, black) == 100
    assert parts.psnr(black, white) == pytest.approx(0)
    assert parts.psnr(black + 1, black) == pytest.approx(48.13, abs=0.01)


def test_an_error_is_a_finding() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("one", "PASS", "")
        raise KeyError("two")

    assert [(one.name, one.state) for one in guarded("both", check)] == [("one", "PASS"), ("both", "FAIL")]


# -- the command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "verify needs a model: ff-bench verify model=NAME"),
        (["self_forcing"], "not 'self_forcing'; name a model as model=NAME"),
        (["model=self_forcing", "--quik"], "did you mean '--quick'"),
        (["model=self_forcing", "--quick=1"], "verify takes no --quick=1"),
        (["model=self_forcing", "--upstream"], "--upstream needs a value"),
        (["model=self_forcing", "--upstream=/nowhere/at/all"], "it must be a checkout of the original"),
        (["model=self_forcing", "policy=h2o"], "policy is not allowed: verify sets it itself"),
        (["model=self_forcing", "length=9f"], "length is not allowed: verify sets it itself"),
        (["model=mini"], "model=mini has nothing to verify"),
        (["model=self_forcin"], "self_forcing"),
    ],
)
def test_wrong_words(words: list[str], sentence: str, clean) -> None:
    with pytest.raises(UsageError) as caught:
        verify.run(words)
    assert sentence in str(caught.value)
    assert not list(clean.iterdir())


def test_flags(tmp_path) -> None:
    asked = verify.read(["--upstream", str(tmp_path), "model=krea_14b", "--quick", "--python=python3"])
    assert asked == verify.Request(("model=krea_14b",), tmp_path.resolve(), "python3", quick=True)
