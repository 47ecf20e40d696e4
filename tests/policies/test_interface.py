"""Loading by name, errors in one sentence, numbers of the trace, and the example of the documentation."""

from __future__ import annotations

import dataclasses
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from stream import BUDGET, CHUNKS, SHAPE, make, run, tensors

import policies
from policies.base import Budget, Policy, Protocol
from policies.context import Context
from policies.positions import NOTHING

DOCUMENT = Path(__file__).parents[2] / "docs" / "policies.md"


def example() -> str:
    """Return the policy that the documentation prints in full."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if "class KeyDiff" in block)


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    path = tmp_path / "key_diff.py"
    path.write_text(example(), encoding="utf-8")
    policy = policies.load(str(path))
    assert policy.name == "key_diff"
    stream = run(policy())
    for cache in stream.context.caches:
        assert cache.size == BUDGET.tokens
        assert bool((cache.tokens.diff(dim=-1) > 0).all())


def test_every_policy_has_a_section() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in policies.names() if f"### {name}\n" not in text] == []


def test_unknown_names_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"policy is 'h20'; allowed: full, .*did you mean 'h2o'\?"):
        policies.load("h20")
    with pytest.raises(ValueError, match="there is no such file"):
        policies.load(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="defines 0 policy classes; allowed: exactly one"):
        policies.load(str(tmp_path / "empty.py"))


@pytest.mark.parametrize(
    "fields,sentence",
    [
        ({"lam": 1.5}, "policy.lam is 1.5; allowed: 0 to 1"),
        ({"tau": -2.0}, "policy.tau is -2.0; allowed: -1 to 1"),
        ({"horizon": 0}, "policy.horizon is 0; allowed: 1 or more"),
        ({"merge": "mean"}, "policy.merge is 'mean'; allowed: value, affine, none"),
        ({"profile": "mean"}, "policy.profile is 'mean'; allowed: pooled, rows"),
    ],
)
def test_wrong_fields_get_one_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make("future_forcing", **fields)


def test_wrong_budgets_get_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"budget\.sink is -1; allowed: 0 or more tokens"):
        Budget(10, sink=-1)
    with pytest.raises(ValueError, match=r"budget\.tokens is 0"):
        Budget(0)
    with pytest.raises(ValueError, match="sink 8 \\+ recent 8 do not fit into 10 tokens"):
        Budget(10, sink=8, recent=8)
    with pytest.raises(ValueError, match="sink 8 \\+ recent 24 leave less than one latent frame"):
        Context(make("h2o"), SHAPE, Budget(36, sink=8, recent=24), Protocol())
    with pytest.raises(ValueError, match=r"context\.capacity_tokens is None"):
        Context(make("full"), SHAPE, Budget(None), Protocol())
    with pytest.raises(ValueError, match=r"protocol\.unit is 'patch'; allowed: token, frame"):
        Protocol(unit="patch")
    with pytest.raises(ValueError, match=r"protocol\.query_stride is 0"):
        Protocol(query_stride=0)


def test_a_wrong_score_or_plan_is_said() -> None:
    class Half(Policy):
        name, source = "half", "test"

        def score(self, cache, step):
            return cache.tokens[..., :3].float()

    class Greedy(Half):
        def score(self, cache, step):
            return cache.tokens.float()

        def plan(self, caches):
            return torch.full((SHAPE.layers, SHAPE.heads), 100)

    with pytest.raises(ValueError, match=r"policy 'half': score is torch.float32 \(1, 2, 3\)"):
        run(Half())
    with pytest.raises(ValueError, match="plan exceeds 64 tokens"):
        run(Greedy())


def test_a_plan_gives_layers_their_own_size() -> None:
    class Pyramid(policies.load("h2o")):
        def plan(self, caches):
            return torch.tensor([[80, 80], [48, 48]])

    stream = run(Pyramid())
    assert [cache.size for cache in stream.context.caches] == [80, 48]


class Uneven(policies.load("h2o")):  # type: ignore[misc]
    """Another number of slots in every head, the sum at the budget."""

    sizes = (44, 84)
    widest_head = 1.5

    def plan(self, caches):
        return torch.tensor([self.sizes, self.sizes[::-1]])


@pytest.mark.parametrize("position", ["absolute", "contiguous", "frame_rank"])
def test_heads_of_their_own_size_do_as_they_would_alone(position: str) -> None:
    protocol = Protocol(position=position)
    uneven = run(Uneven(), Budget(64, sink=8, recent=24), protocol)
    assert [cache.size for cache in uneven.context.caches] == [84, 84]
    assert sum(cache.nbytes() for cache in uneven.context.caches) == 2 * 4 * 16 * 2 * (44 + 84)
    for size in Uneven.sizes:
        alone = run(make("h2o"), Budget(size, sink=8, recent=24), protocol)
        for layer, cache in enumerate(uneven.context.caches):
            head = (Uneven.sizes if layer == 0 else Uneven.sizes[::-1]).index(size)
            held = cache.tokens[0, head]
            assert int((held < NOTHING).sum()) == size
            if position == "absolute":  # elsewhere the chunk stands behind the longest head
                assert torch.equal(held[:size], alone.context.caches[layer].tokens[0, head])
                for one, other in zip(uneven.outputs[layer::2], alone.outputs[layer::2], strict=True):
                    torch.testing.assert_close(one[:, head], other[:, head])
    assert uneven.context.summary()["kept"][0][CHUNKS - 1] == 1.0


def test_sizes_per_head_are_refused_where_they_cannot_be() -> None:
    class Merging(policies.load("future_forcing")):
        plan = Uneven.plan
        sizes = Uneven.sizes
        widest_head = 1.5

    class Wide(Uneven):
        sizes = (28, 100)

    with pytest.raises(ValueError, match="merges, its plan must be the same for all heads"):
        run(Merging())
    with pytest.raises(ValueError, match="plan gives a head 100 tokens; allowed: 96"):
        run(Wide())
    with pytest.raises(ValueError, match=r"sizes per head need protocol\.share=head and unit=token"):
        run(Uneven(), protocol=Protocol(share="layer"))
    with pytest.raises(ValueError, match="sink 8 \\+ recent 40 do not fit into 44 tokens of a head"):
        run(Uneven(), Budget(64, sink=8, recent=40))


def test_a_chunk_must_be_committed() -> None:
    context = Context(make("h2o"), SHAPE, BUDGET, Protocol())
    context.start_chunk(0, 0)
    context.start_pass(torch.zeros(1, 3), commit=False)
    context.attend(0, *tensors(SHAPE, batch=1, number=0))
    with pytest.raises(ValueError, match="chunk 0: 0 of 2 layers were committed"):
        context.finish_chunk()


@pytest.mark.parametrize("name", policies.names())
def test_the_summary_holds_plain_numbers(name: str) -> None:
    stream = run(make(name), batch=2)
    summary = stream.context.summary()
    kept = summary.pop("kept")
    assert all(isinstance(value, int | float) for value in summary.values())
    caches = stream.context.caches
    size = sum(sum(cache.held) for cache in caches) / sum(cache.heads for cache in caches)
    assert summary["context_tokens"] == size
    assert summary["context_tokens_max"] == max(cache.size for cache in caches)
    assert summary["kv_bytes"] == 2 * 2 * 2 * 2 * size * 16 * 4  # K and V, layers, batch, heads
    assert len(kept) == 2 and set(kept[0]) <= set(range(CHUNKS))
    assert sum(kept[0].values()) * SHAPE.chunk_tokens == pytest.approx(size, abs=0.01)
    assert kept[0][CHUNKS - 1] == 1.0 and 0 not in kept[0].values()
    assert stream.context.policy_seconds >= 0
    stream.context.reset_policy_seconds()
    assert stream.context.policy_seconds == 0


def test_distances_of_a_window() -> None:
    absolute = run(
        make("attention_sink"), Budget(64, sink=24), Protocol(position="absolute")
    ).context.summary()
    contiguous = run(
        make("streaming_llm"), Budget(64, sink=24), Protocol(position="contiguous")
    ).context.summary()
    assert absolute["max_distance"] == 17 and absolute["beyond_window"] > 0
    assert contiguous["max_distance"] == 10 and contiguous["beyond_window"] == 0


def test_full_eps_moves_the_first_values_by_one_unit() -> None:
    full, moved = run(make("full"), Budget(None)), run(make("full_eps"), Budget(None))
    for a, b in zip(full.context.caches, moved.context.caches, strict=True):
        first = slice(0, SHAPE.chunk_tokens)
        assert torch.equal(
            torch.nextafter(a.values[:, :, first], torch.tensor(torch.inf)), b.values[:, :, first]
        )
        assert torch.equal(a.keys, b.keys)
        assert torch.equal(a.values[:, :, SHAPE.chunk_tokens :], b.values[:, :, SHAPE.chunk_tokens :])
    assert not all(torch.equal(a, b) for a, b in zip(full.outputs, moved.outputs, strict=True))


def test_random_is_a_reservoir() -> None:
    kept = torch.zeros(CHUNKS)
    for seed in range(40):
        stream = run(make("random"), Budget(64), passes=1, seed=seed)
        for chunk, held in stream.context.summary()["kept"][0].items():
            kept[chunk] += held
    share = kept / 40
    assert float((share - 64 / (CHUNKS * SHAPE.chunk_tokens)).abs().max()) < 0.05


def test_random_draws_for_each_video_of_a_batch() -> None:
    both = run(make("random"), batch=2, seed=[3, 4])
    for element, seed in enumerate((3, 4)):
        alone = run(make("random"), seed=seed)
        for one, other in zip(alone.context.caches, both.context.caches, strict=True):
            assert torch.equal(one.tokens[0], other.tokens[element])
    assert not torch.equal(both.context.caches[0].tokens[0], both.context.caches[0].tokens[1])


def test_future_forcing_state_is_what_it_says() -> None:
    policy = make("future_forcing", window=5)
    stream = run(policy)
    held = sum(
        tensor.nbytes
        for cache in stream.context.caches
        for tensor in cache.stats.values()
        if isinstance(tensor, torch.Tensor)
    )
    assert held == policy.held_nbytes(SHAPE, 1)


@pytest.mark.parametrize(
    "fields", [{"profile": "rows"}, {"row_reduction": "sum"}, {"window": 7, "horizon": 1}]
)
def test_future_forcing_options_run(fields: dict[str, object]) -> None:
    stream = run(make("future_forcing", **fields), protocol=Protocol(position="frame_rank"))
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


def test_a_model_that_uses_autocast_or_gradients_changes_nothing() -> None:
    plain = run(make("future_forcing"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run(make("future_forcing"))
    graded = run(make("future_forcing"), edit=lambda x: x.clone().requires_grad_())
    for other in (cast, graded):
        assert all(torch.equal(a, b) for a, b in zip(plain.outputs, other.outputs, strict=True))
    assert not graded.context.caches[0].values.requires_grad


def test_a_rotation_can_be_trained_through() -> None:
    x = torch.randn(5, 16, requires_grad=True)
    for layout in ("half", "interleaved"):
        rope = dataclasses.replace(SHAPE.rope, layout=layout)
        angles = rope.angles(torch.arange(5), torch.tensor(1), torch.tensor(2))
        turned = rope.rotate(x, angles)
        torch.testing.assert_close(turned.detach(), rope.rotate(x.detach(), angles))
        (gradient,) = torch.autograd.grad(turned.square().sum(), x)
        torch.testing.assert_close(gradient, 2 * x)  # a rotation keeps the norm


def test_installed_policies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="mine", value="policies.h2o:H2O", group=policies.GROUP)
    wrong = EntryPoint(name="wrong", value="policies.base:Budget", group=policies.GROUP)
    monkeypatch.setattr(policies, "entry_points", lambda group: [entry, wrong])
    assert policies.load("mine").name == "h2o"
    with pytest.raises(
        ValueError, match=r"policy 'wrong' is .*allowed: a subclass of policies\.base\.Policy"
    ):
        policies.load("wrong")
