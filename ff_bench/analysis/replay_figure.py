"""Figures of replays: error over time, what is held, overlap; and a scatter against the quality of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from ff_bench.analysis.replay import MEASURES
from ff_bench.analysis.replay_text import WORDS, means
from ff_bench.report.style import legend_above, look, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ff_bench.analysis.prediction import Agreement

_WIDTH = 6.8
_SCATTER = ("error", "recall_ahead", "coverage", "coverage_again")


def draw(rows: pd.DataFrame, overlap: pd.DataFrame, *, chunk_seconds: float) -> Figure:
    """Draw one budget: error over time, every measure, and the overlap of kept sets; inside `paper_style`.

    Args:
        rows: tidy rows of one budget.
        overlap: of the same budget.
        chunk_seconds: video seconds of a chunk.
    """
    table = means(rows).droplevel(0)
    policies = [str(name) for name in table.index]
    figure = new_figure(2.7 + 0.13 * (len(policies) // 3 + 1), _WIDTH)
    panels = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.15, 1.25, 1)})
    handles = []
    errors = rows[rows["measure"] == "error"]
    for policy, variant in _variants(policies):
        shown = _shown(policy, policies, variant)
        own = errors[errors["policy"] == policy].groupby("chunk")["value"].mean()
        (line,) = panels[0].plot(own.index * chunk_seconds, own, **{**shown, "marker": ""})
        handles.append(line)
    panels[0].set(xlabel="seconds of video", title="relative error of attention")
    panels[0].set_ylim(bottom=0)
    _measures(panels[1], table, policies)
    _overlap(panels[2], overlap, policies)
    legend_above(figure, handles, policies)
    return figure


def _measures(panel: Axes, table: pd.DataFrame, policies: Sequence[str]) -> None:
    shown = [measure for measure in MEASURES if measure in table and measure != "error"]
    for policy, variant in _variants(policies):
        drawn = _shown(policy, policies, variant)
        panel.plot(
            [table[measure].to_dict()[policy] for measure in shown], range(len(shown)),
            **{**drawn, "linestyle": "", "marker": drawn["marker"] or "*"},
        )  # fmt: skip
    panel.set_yticks(range(len(shown)), [WORDS[measure] for measure in shown])
    panel.invert_yaxis()
    panel.set(xlabel="share", title="what is held", xlim=(-0.02, 1.02))


def _overlap(panel: Axes, overlap: pd.DataFrame, policies: Sequence[str]) -> None:
    panel.set_title("overlap of kept sets (Jaccard)")
    panel.grid(False)
    values = [[1.0 if one == other else float("nan") for other in policies] for one in policies]
    if len(overlap):
        means_of = overlap.groupby(["policy", "other"])["jaccard"].mean().reset_index()
        for pair in means_of.to_dict("records"):
            place, beside = policies.index(pair["policy"]), policies.index(pair["other"])
            values[place][beside] = values[beside][place] = float(pair["jaccard"])
    panel.imshow(values, vmin=0, vmax=1, cmap="Greys")
    for place, row in enumerate(values):
        for beside, value in enumerate(row):
            if place != beside and value == value:
                panel.text(
                    beside, place, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=4.5,
                    color="white" if value > 0.5 else "black",
                )  # fmt: skip
    panel.set_yticks(range(len(policies)), [_short(name) for name in policies], fontsize=5)
    panel.set_xticks(range(len(policies)), [_short(name) for name in policies], rotation=90, fontsize=5)


def scatter(joined: pd.DataFrame, found: Sequence[Agreement], *, label: str) -> Figure:
    """Draw the quality of videos against measures of their replays, a point per policy and budget.

    Args:
        joined: of `prediction.points`.
        found: correlations, told in the titles.
        label: of the quality, with its unit.
    """
    by_policy = joined.groupby(["budget_tokens", "policy"]).mean(numeric_only=True).reset_index()
    shown = [measure for measure in _SCATTER if measure in by_policy]
    told = {one.measure: one for one in found}
    policies = sorted(set(by_policy["policy"]))
    figure = new_figure(2.3 + 0.13 * (len(policies) // 3 + 1), _WIDTH)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    handles = {}
    for panel, measure in zip(panels, shown, strict=True):
        for policy, variant in _variants(policies):
            own = by_policy[by_policy["policy"] == policy]
            each = joined[joined["policy"] == policy]
            drawn = _shown(policy, policies, variant)
            drawn |= {"linestyle": "", "marker": drawn["marker"] or "*"}
            faint = {**drawn, "markersize": 1.6, "alpha": 0.35, "markeredgewidth": 0}
            panel.plot(each[measure], each["quality"], **faint)
            (handles[policy],) = panel.plot(own[measure], own["quality"], **{**drawn, "markersize": 4.5})
        one = told.get(measure)
        panel.set_title(f"ρ {one.spearman:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" if one else "")
        panel.set_xlabel(WORDS[measure])
        panel.xaxis.set_major_locator(MaxNLocator(3))
    panels[0].set_ylabel(label)
    legend_above(figure, list(handles.values()), list(handles))
    return figure


def _variants(policies: Sequence[str]) -> list[tuple[str, int]]:
    """Number the policies of one name that differ in fields."""
    counts: dict[str, int] = {}
    found = []
    for policy in policies:
        name = policy.partition(":")[0]
        found.append((policy, counts.get(name, 0)))
        counts[name] = counts.get(name, 0) + 1
    return found


def _shown(policy: str, policies: Sequence[str], variant: int) -> dict[str, Any]:
    return look(policy.partition(":")[0], [name.partition(":")[0] for name in policies], variant=variant)


def _short(name: str) -> str:
    head, _, fields = name.partition(":")
    short = "_".join(part[:4] for part in head.split("_"))
    return short + (f":{fields.rpartition('=')[2][:4]}" if fields else "")
