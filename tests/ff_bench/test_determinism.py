"""Equal runs are equal, whatever order, number of workers or interruption: the third law of the design."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from torch import Tensor

import policies
from ff_bench import generate, pipeline, records, runs
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.mini.backbone import Mini
from ff_bench.noise import Draws, OwnDraws, UpstreamDraws
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context
from scripts.endurance import Tiny
from tests.ff_bench.tiny import CHUNK, PROMPTS, tiny_model

PLAIN = (
    "prompts=some.txt", "length=12f", "steps=1", "device=cpu", "limit=null", "save=[record]", "budget=7f",
    "protocol.prefix=none", "metrics=[flicker,guards]",
)  # fmt: skip
POLICIES = ("h2o", "random", "sliding_window", "future_forcing")
CLIENT = "import sys; from ff_bench.cli import main; sys.exit(main())"


@pytest.fixture
def tiny(clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch) -> Mini:
    """Stand in an empty directory with a tiny network in the place of the embedded one."""
    model = tiny_model()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    Path("some.txt").write_text("\n".join(PROMPTS) + "\n")
    return model


def configs(folder: str, names: tuple[str, ...] = POLICIES) -> list[RunConfig]:
    return [compose([*PLAIN, f"policy={name}", f"runs_dir={folder}"]).config for name in names]


def rows_below(folder: str) -> pandas.DataFrame:
    return records.strip_provenance(records.table([path.parent for path in Path(folder).rglob(runs.ROWS)]))


def digests(folder: str) -> dict[str, str]:
    found = (runs.read_manifest(path.parent) for path in Path(folder).rglob(runs.MANIFEST))
    return {manifest.video_id: manifest.frames_sha256 for manifest in found if manifest is not None}


def test_the_order_of_configurations_does_not_matter(tiny: Mini) -> None:
    pipeline.execute(configs("straight"))
    for number in range(2):
        mixed = list(POLICIES)
        random.Random(number).shuffle(mixed)
        pipeline.execute(configs(f"mixed{number}", tuple(mixed)))
        assert digests(f"mixed{number}") == digests("straight")
        assert rows_below(f"mixed{number}").equals(rows_below("straight"))
    assert len(digests("straight")) == 2 * len(POLICIES)


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(tiny: Mini) -> None:
    """Stopped behind a video, then behind the scores of half of it; what was made before stays."""
    pipeline.execute(configs("straight", POLICIES[:2]))
    asked = configs("resumed", POLICIES[:2])
    first = runs.videos(asked[1])[0]
    generate.generate(first.config, [first])
    made = (first.folder / runs.RECORD).stat().st_mtime_ns
    pipeline.execute(asked[1:])
    rows = first.folder / runs.ROWS
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:3])[:-9])
    pipeline.execute(asked)
    assert (first.folder / runs.RECORD).stat().st_mtime_ns == made
    assert digests("resumed") == digests("straight")
    assert rows_below("resumed").equals(rows_below("straight"))


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(clean: Path) -> None:
    Path("some.txt").write_text("\n".join(PROMPTS) + "\n")
    for workers in (1, 2, 3):
        words = ["-m", "policy=h2o,random", *PLAIN, f"workers={workers}", f"runs_dir=w{workers}"]
        subprocess.run([sys.executable, "-c", CLIENT, *words], check=True, capture_output=True, timeout=300)
        assert digests(f"w{workers}") == digests("w1")
        assert rows_below(f"w{workers}").equals(rows_below("w1"))


# -- noise ----------------------------------------------------------------------------------------------


class Noted(Draws):
    """Draws of another kind, with what was handed out."""

    def __init__(self, inner: Draws) -> None:
        self.inner, self.given = inner, dict[tuple[str, int, int], Tensor]()

    def initial(self, span) -> Tensor:  # type: ignore[no-untyped-def]
        drawn = self.inner.initial(span)
        self.given["initial", span.chunk, span.step] = drawn.clone()
        return drawn

    def fresh(self, span) -> Tensor:  # type: ignore[no-untyped-def]
        drawn = self.inner.fresh(span)
        self.given["fresh", span.chunk, span.step] = drawn.clone()
        return drawn


class Renoised(Tiny):
    """A model that adds noise behind every pass, as the distilled ones do."""

    renoises = True


def given(kind: str, policy: str, seed: int = 3) -> dict[tuple[str, int, int], Tensor]:
    """Return the noise of a rollout of five chunks and two steps under a policy."""
    model = Renoised()
    whole = policies.load(policy).is_full
    context = Context(
        policies.load(policy)(), model.shape, Budget(None) if whole else Budget(6 * 64, 0, CHUNK),
        Protocol(position="absolute"), capacity_tokens=15 * 64, seed=seed,
    )  # fmt: skip
    torch.manual_seed(len(policy))  # the global generator has no say
    draws: Draws = OwnDraws(PROMPTS[:1], [seed], model.latent_shape)
    if kind == "upstream":
        draws = UpstreamDraws(
            seed, 15, model.latent_shape, prefix_frames=0, dtype=torch.float32, device="cpu"
        )
    noted = Noted(draws)
    for _ in rollout(model, context, Take(PROMPTS[:1], [seed], 15, 2, draws=noted)):
        torch.rand(7)
    return noted.given


@pytest.mark.parametrize("kind", ["own", "upstream"])
def test_noise_is_the_same_under_every_policy(kind: str) -> None:
    expected = given(kind, "full")
    assert len(expected) == 5 + 5 * 2
    names = [name for name in policies.names() if name != "full"]
    for name in names:
        found = given(kind, name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name
    other = given(kind, "full", seed=4)
    assert not any(torch.equal(other[key], expected[key]) for key in expected)


def test_own_noise_does_not_depend_on_batch_or_order() -> None:
    shape = (4, 8, 8)
    spans = [step.spans[0] for turn in tiny_model().turns(9, steps=2) for step in turn.passes[:-1]]
    both = OwnDraws(PROMPTS, [5, 6], shape)
    turned = OwnDraws(PROMPTS[::-1], [6, 5], shape)
    for span in spans:
        alone = OwnDraws(PROMPTS[1:], [6], shape)
        assert torch.equal(both.fresh(span)[1:], alone.fresh(span))
    for span in reversed(spans):
        assert torch.equal(both.initial(span), turned.initial(span).flip(0))


def test_upstream_noise_of_two_videos_is_not_mixed() -> None:
    """Each video has a generator of its own, as if it were the first after its seed was set."""
    spans = [step.spans[0] for turn in tiny_model().turns(9, steps=2) for step in turn.passes[:-1]]

    def draws(seed: int) -> UpstreamDraws:
        return UpstreamDraws(seed, 9, (4, 8, 8), prefix_frames=0, dtype=torch.float32, device="cpu")

    alone = [
        [draws(seed).initial(spans[0]), *map(one.fresh, spans)]
        for seed, one in ((1, draws(1)), (2, draws(2)))
    ]
    first, second = draws(1), draws(2)
    mixed = [[one.initial(spans[0])] for one in (first, second)]
    for span in spans:
        mixed[1].append(second.fresh(span))
        mixed[0].append(first.fresh(span))
    for one, other in zip(alone, mixed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
