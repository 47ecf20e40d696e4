"""The cards of the player: one video with its scores, their course over time and what its cache kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ff_bench.report import choice, web
from ff_bench.report.choice import Group
from ff_bench.report.comparison import Column, Line, Table, name_text
from ff_bench.report.curves import Curve, curves
from ff_bench.report.kept import strip
from ff_bench.report.style import colour
from ff_bench.report.tables import heading
from ff_bench.report.videos import Shown

EMBED_BYTES = 2 * 2**20
"""A video up to this size may be embedded."""
EMBED_TOTAL = 12 * 2**20
"""All embedded videos of a page stay below this size; the rest is linked by relative path."""


@dataclass
class Room:
    """How many bytes of videos the page may still embed."""

    left: int = EMBED_TOTAL


def player(table: Table, shown: Mapping[str, Shown], out: Path, *, room: Room) -> dict[str, object]:
    """Return what the player of one table shows.

    Videos of the prompts to look at first are embedded first.

    Args:
        table: The comparison.
        shown: Finished videos by id.
        out: Folder of the page.
        room: What may still be embedded.
    """
    found, column = choice.groups(table, shown), choice.headline(table)
    picks = choice.picks(found, column)
    first = [place for chosen in picks.values() for place in chosen.values()]
    order = dict.fromkeys([*first, *range(len(found))])
    cards = {place: _cards(table, found[place], out, room) for place in order}
    groups = [
        {
            "place": place,
            "name": group.name,
            "budget": group.told,
            "standing": _standing(group, column),
            "prompt": group.videos[0][1].prompt,
            "videos": cards[place],
        }
        for place, group in enumerate(found)
    ]
    places = {(group.told, group.pair): place for place, group in enumerate(found)}
    return {
        "groups": groups,
        "menu": [
            (told, [group for group in groups if group["budget"] == told])
            for told in dict.fromkeys(group.told for group in found)
        ],
        "picks": picks,
        "first": next(iter(picks.values()))["worst"] if picks else 0,
        "headline": heading(column) if column else "",
        "fps": float(str(table.key["fps"])),
        "places": places,
    }


def _standing(group: Group, column: Column | None) -> str:
    numbers = choice.standing(group, column) if column else None
    if column is None or numbers is None:
        return ""
    digits = column.measure.digits
    return f"{numbers[0]:.{digits}f}, spread {numbers[1]:.{digits}f}"


def _cards(table: Table, group: Group, out: Path, room: Room) -> list[dict[str, object]]:
    drawn = curves(table, [line for line, _ in group.videos], group.pair)
    return [
        _card(table, line, video, curves=own, group=group, out=out, room=room)
        for (line, video), own in zip(group.videos, drawn, strict=True)
    ]


def _card(
    table: Table, line: Line, video: Shown, *, curves: Sequence[Curve], group: Group, out: Path, room: Room
) -> dict[str, object]:
    path = video.viewing
    size = path.stat().st_size if path is not None else 0
    embedded = path is not None and not video.is_foreign and size <= min(EMBED_BYTES, room.left)
    room.left -= size if embedded else 0
    scores = [
        (heading(column), f"{line.values[column.metric][group.pair]:.{column.measure.digits}f}")
        for column in table.columns
        if group.pair in line.values[column.metric] and not column.metric.startswith("cost.")
    ]
    return {
        "name": name_text(line),
        "colour": colour(line.policy, [other.policy for other in table.lines]),
        "source": "" if path is None else web.video_data(path) if embedded else web.link(path, out),
        "file": Path(video.manifest.source["path"]).name if video.is_foreign else "",
        "obstacle": video.obstacle,
        "scores": scores,
        "curves": curves,
        "kept": strip(video),
    }
