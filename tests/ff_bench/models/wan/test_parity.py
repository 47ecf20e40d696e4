"""The family against recordings of the originals: every case, and mistakes that must show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ff_bench.models.wan import network as network_module
from ff_bench.models.wan import recordings, seeded
from ff_bench.models.wan.backbone import rope_of
from ff_bench.models.wan.network import RMSNorm, WanNetwork
from ff_bench.models.wan.recordings import Case, Recording
from policies.rope import Rope
from scripts import check_parity

FILE = Path(__file__).parent / "data" / "parity.safetensors"
CASES = (
    "infinite/I_local6_sink1", "longlive/L_local6_sink3", "longlive_inf/LI_local6_sink3",
    "reward/R_local9_sink3", "rolling/RF_36", "sf/A_global", "sf/B_local6", "sf/C_local6_sink1",
    "sf/C3_local6_sink3", "sf/D_framewise", "sf/E_i2v_first", "sf/F_extend", "sf/G_firstframe_ind",
    "sf/Q_quick2", "sf/H_batch2", "sf/A_global_bf16",
)  # fmt: skip
LEAST_MISTAKE = 1e-3


@lru_cache
def recording() -> Recording:
    return recordings.read_small(FILE)


def case_of(name: str) -> Case:
    return next(case for case in recording().cases if f"{case.rule.variant}/{case.name}" == name)


def network_of(case: Case) -> WanNetwork:
    return check_parity.build(recording(), case.dtype)


def test_every_recorded_case_is_compared() -> None:
    assert sorted(f"{case.rule.variant}/{case.name}" for case in recording().cases) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_calls_give_the_recorded_flow(name: str) -> None:
    case = case_of(name)
    assert sum(call.flow is not None for call in case.calls) >= 2
    assert check_parity.forced_error(network_of(case), case) <= check_parity.TOLERANCE[case.dtype]


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("bf16")])
def test_the_rollout_gives_the_recorded_latents(name: str) -> None:
    case = case_of(name)
    assert check_parity.free_error(network_of(case), case) <= 2e-5


def test_the_rollout_in_bfloat16_begins_as_recorded() -> None:
    """Roundings grow from chunk to chunk, so that the first one alone is compared."""
    case = case_of("sf/A_global_bf16")
    latents = check_parity.free_latents(network_of(case), case)
    assert latents.dtype == torch.bfloat16
    difference = (latents[:, :3].float() - case.latents[:, :3].float()).abs().max()
    assert difference <= check_parity.TOLERANCE[torch.bfloat16]


# -- mistakes ---------------------------------------------------------------------------------------------


class Swapped(Rope):
    """Rows where columns belong."""

    def angles(self, time: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return super().angles(time, column, row)


BASES = (10000.0, 10000.0, 10000.0)
ROPES = {
    "halves instead of neighbours": Rope((12, 10, 10), BASES, layout="half"),
    "rows and columns swapped": Swapped((12, 10, 10), BASES, layout="interleaved"),
    "another split of the channels": Rope((16, 8, 8), BASES, layout="interleaved"),
    "another base of time": Rope((12, 10, 10), (5000.0, *BASES[1:]), layout="interleaved"),
}


@pytest.mark.parametrize("mistake", ROPES)
def test_a_wrong_rotation_shows(mistake: str) -> None:
    case = case_of("sf/A_global")
    assert check_parity.forced_error(network_of(case), case, ROPES[mistake]) > LEAST_MISTAKE


def per_head(norm: RMSNorm, x: Tensor) -> Tensor:
    heads = x.unflatten(-1, (-1, 32)).float()
    return (heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + 1e-6)).flatten(-2) * norm.weight


def masked(network: WanNetwork, embeddings: Tensor) -> list[tuple[Tensor, Tensor]]:
    text = network.text_embedding(embeddings[:, : seeded.PROMPT_ROWS])
    return [block.cross_attn.text_kv(text) for block in network._blocks()]


def sines_first(timestep: Tensor, channels: int) -> Tensor:
    return recorded_sinusoid(timestep, channels).roll(channels // 2, -1)


recorded_sinusoid = network_module.sinusoid
MISTAKES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "norm of each head": (RMSNorm, "forward", per_head),
    "padding of the text masked": (WanNetwork, "text_kv", masked),
    "sines before cosines": (network_module, "sinusoid", sines_first),
    "gate left out": (network_module, "gated", lambda z, branch, gate: z + branch),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_network_shows(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(target, name, wrong)
    case = case_of("sf/A_global")
    assert check_parity.forced_error(network_of(case), case) > LEAST_MISTAKE


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sf/B_local6", {"local": 9}),
        ("sf/C_local6_sink1", {"sink": 0}),
        ("infinite/I_local6_sink1", {"variant": "sf"}),
        ("longlive/L_local6_sink3", {"variant": "longlive_inf"}),
        ("rolling/RF_36", {"local": -1, "steps": (1000.0, 800.0, 600.0, 400.0, 100.0)}),
    ],
)
def test_a_wrong_context_rule_shows(name: str, changes: dict[str, object]) -> None:
    case = case_of(name)
    wrong = replace(case, rule=replace(case.rule, **changes))
    assert check_parity.free_error(network_of(case), wrong) > LEAST_MISTAKE


def test_the_sink_that_decays_is_seen() -> None:
    """A plain sink of relative positions differs from the moving average by less than other mistakes."""
    case = case_of("reward/R_local9_sink3")
    plain = replace(case, rule=replace(case.rule, variant="longlive_inf"))
    assert check_parity.free_error(network_of(case), plain) > 10 * check_parity.TOLERANCE[torch.float32]


# -- the command and the small copy -----------------------------------------------------------------------


def test_the_command_prints_a_row_per_case_and_fails_on_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = case_of("sf/Q_quick2")
    told = {"fine": replace(recording(), cases=(case,))}
    told["wrong"] = replace(recording(), cases=(replace(case, latents=case.latents + 1e-3),))
    monkeypatch.setattr(check_parity, "read_small", lambda path: told[path.stem])
    assert check_parity.main(["fine.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fine"] is True
    assert check_parity.main(["fine.safetensors", "wrong.safetensors"]) == 1
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    assert [row["fine"] for row in rows] == [True, False]


def test_a_small_copy_holds_what_does_not_follow_from_seeds(tmp_path: Path) -> None:
    case = case_of("sf/A_global_bf16")  # every noisy call of it is kept
    whole = replace(recording(), cases=(case,))
    recordings.write_small(tmp_path / "copy.safetensors", [whole])
    again = recordings.read_small(tmp_path / "copy.safetensors")
    assert again.size == whole.size
    assert again.cases[0].rule == case.rule
    assert again.cases[0].inputs.same(case.inputs)
    assert torch.equal(again.cases[0].latents, case.latents)
    for call, other in zip(again.cases[0].calls, case.calls, strict=True):
        assert (call.first, call.is_clean) == (other.first, other.is_clean)
        assert torch.equal(call.x, other.x)
        assert call.flow is None if other.flow is None else torch.equal(call.flow, other.flow)


def test_inputs_and_weights_of_other_seeds_are_refused(tmp_path: Path) -> None:
    case = case_of("sf/A_global_bf16")
    other = replace(case, inputs=replace(case.inputs, noise=case.inputs.noise + 1))
    with pytest.raises(ValueError, match="inputs of case A_global_bf16 are not those of its seeds"):
        recordings.write_small(tmp_path / "copy", [replace(recording(), cases=(other,))])
    weights = seeded.random_weights(recording().size, seed=1)
    with pytest.raises(ValueError, match="weights of a recording are not those of its seed"):
        recordings.write_small(tmp_path / "copy", [replace(recording(), weights=weights)])


def test_the_rotation_is_that_of_the_released_heads() -> None:
    assert rope_of(128) == Rope((44, 42, 42), BASES, layout="interleaved")
    assert rope_of(32) == Rope((12, 10, 10), BASES, layout="interleaved")
