"""KV-cache policies for autoregressive video diffusion: pure torch, usable without the harness."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.base import Policy

POLICIES = MappingProxyType(
    {
        "full": "policies.full:Full",
        "full_eps": "policies.full_eps:FullEps",
        "random": "policies.random:Random",
        "sliding_window": "policies.sliding_window:SlidingWindow",
        "attention_sink": "policies.attention_sink:AttentionSink",
        "streaming_llm": "policies.streaming_llm:StreamingLLM",
        "h2o": "policies.h2o:H2O",
        "h2o_lift": "policies.h2o_lift:H2OLift",
        "expected_attention": "policies.expected_attention:ExpectedAttention",
        "triattention": "policies.triattention:TriAttention",
        "keydiff": "policies.keydiff:KeyDiff",
        "knorm": "policies.knorm:Knorm",
        "tova": "policies.tova:Tova",
        "snapkv": "policies.snapkv:SnapKV",
        "rkv": "policies.rkv:RKV",
        "flowcache": "policies.flowcache:FlowCache",
        "future_forcing": "policies.future_forcing:FutureForcing",
        "keepkv": "policies.keepkv:KeepKV",
        "ema_sink": "policies.ema_sink:EmaSink",
        "rolling_anchor": "policies.rolling_anchor:RollingAnchor",
        "recompute": "policies.recompute:Recompute",
        "infinity_rope": "policies.infinity_rope:InfinityRope",
        "deep_forcing": "policies.deep_forcing:DeepForcing",
        "memrope": "policies.memrope:MemRope",
        "rolling_sink": "policies.rolling_sink:RollingSink",
        "forcing_kv": "policies.forcing_kv:ForcingKV",
        "dummy_forcing": "policies.dummy_forcing:DummyForcing",
        "pyramid_forcing": "policies.pyramid_forcing:PyramidForcing",
        "relax_forcing": "policies.relax_forcing:RelaxForcing",
        "tempcache": "policies.tempcache:TempCache",
        "working_set": "policies.working_set:WorkingSet",
    }
)
WRAPPERS = MappingProxyType(
    {
        "cam": "policies.wrap_merges:CaM",
        "d2o": "policies.wrap_merges:D2O",
        "adakv": "policies.wrap_budgets:AdaKV",
        "pyramidkv": "policies.wrap_budgets:PyramidKV",
    }
)
"""What goes around a policy, the innermost first: merges, then budgets."""
GROUP = "ff_bench.policies"


def names() -> list[str]:
    """Return the names of the policies of this package."""
    return list(POLICIES)


def check_wrappers(names: Sequence[str]) -> None:
    """Reject unknown wrappers and two of one kind.

    Raises:
        ValueError: With the value and what is allowed.
    """
    for name in names:
        if name not in WRAPPERS:
            raise ValueError(f"policy.wrap is '{name}'; allowed: {', '.join(WRAPPERS)}")
    kinds = [WRAPPERS[name].partition(":")[0] for name in names]
    if len(set(kinds)) < len(kinds):
        raise ValueError(
            f"policy.wrap is [{','.join(names)}]; allowed: at most one merge (cam, d2o) and one budget "
            "(adakv, pyramidkv)"
        )


def load(name: str) -> type[Policy]:
    """Return the policy class of that name: of this package, of an installed entry point, or of a .py path.

    Raises:
        ValueError: If there is none; the sentence names the nearest match.
    """
    if name in POLICIES:
        module, _, attribute = POLICIES[name].partition(":")
        return _checked(name, getattr(importlib.import_module(module), attribute))
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return _checked(name, entry.load())
    if name.endswith(".py"):
        return _from_file(Path(name))
    near = difflib.get_close_matches(name, POLICIES, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"policy is '{name}'; allowed: {', '.join(POLICIES)}, or the path of a .py file{hint}")


def _checked(name: str, found: object) -> type[Policy]:
    from policies.base import Policy
    from policies.declared import check_class

    if not (inspect.isclass(found) and issubclass(found, Policy)):
        raise ValueError(f"policy '{name}' is {found!r}; allowed: a subclass of policies.base.Policy")
    try:
        check_class(found)
    except ValueError as error:
        raise ValueError(f"policy '{name}': {error}") from None
    return found


def _from_file(path: Path) -> type[Policy]:
    """Return the one policy class that a file defines."""
    if not path.is_file():
        raise ValueError(f"policy is '{path}'; there is no such file")
    module = _run(path)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "checked_score")
    ]
    if len(own) != 1:
        raise ValueError(f"policy '{path}' defines {len(own)} policy classes; allowed: exactly one")
    return _checked(str(path), own[0])


def _run(path: Path) -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location(f"policy_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"policy is '{path}'; it cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"policy is '{path}'; it cannot be imported: {type(error).__name__}: {reason}{line}"
        ) from error
    return module
