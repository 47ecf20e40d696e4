"""Numbers that papers print, as rows with their source: one CSV per paper beside this file.

Columns of a file, one line per printed number:

| column | meaning |
|---|---|
| `paper` | arXiv id, or repository@commit where there is no paper |
| `table` | as the paper numbers it |
| `block` | rows that compete for the bold of a column; empty for a row that is not ranked |
| `model` | our name of the model where we have it; `all` for a mean over models |
| `method` | `native`, `full`, our name of the policy where we have it, else the paper's; fields in brackets |
| `seconds` | length of the videos; empty where not stated |
| `budget_frames` | latent frames of context; empty where not stated |
| `metric` | our name of the metric, else one of `OTHERS` |
| `printed` | the number as it is printed |
| `value` | the same in our unit: a share for VBench, bytes for memory |
| `mark` | `bold` as printed; `best` where the source shows no bold and the number is the best of its block |
| `n_prompts` | prompts behind it; empty where not stated |
| `prompt_list` | the list, by our name where it is one of ours |
| `clips` | consistencies of VBench-Long and sums over them: `fused` (`--dev_flag`), `in_clip`, `unknown` |
| `note` | what else a reader must know: second-hand, legibility, device |

Source: arXiv 2605.30083v1 (HTML), 2512.05081 (scan), 2609.19729 (second-hand), 2605.13111v1 (HTML),
2603.21366 (text of its repository), 2603.27469 (second-hand); Dwell-Jing/commit-forcing@5ed6592, RESULTS.md.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import StringIO
from types import MappingProxyType

from ff_bench import metrics
from ff_bench.errors import UsageError, nearest, not_one_of, out_of_range
from ff_bench.metrics.base import Measure
from ff_bench.metrics.vbench_long import DIMENSIONS

PAPERS: Mapping[str, str] = {
    "future_forcing": "Future Forcing",
    "deep_forcing": "Deep Forcing",
    "recency_forcing": "Recency Forcing",
    "pyramid_forcing": "Pyramid Forcing",
    "relax_forcing": "Relax Forcing",
    "commit_forcing": "Commit Forcing",
    "kv_quantisation": "KV quantisation study",
}
"""File of each paper and the name of what it proposes."""
COLUMNS = (
    "paper", "table", "block", "model", "method", "seconds", "budget_frames", "metric", "printed", "value",
    "mark", "n_prompts", "prompt_list", "clips", "note",
)  # fmt: skip
_NUMBERS = ("seconds", "budget_frames", "n_prompts", "value")
MARKS = ("", "bold", "best")
CLIPS = ("", "fused", "in_clip", "unknown")
WHOLE_VIDEO = "vbench"
"""Family of VBench's scores of whole short videos, which are not cut into clips."""
OTHERS: Mapping[str, Measure] = MappingProxyType({
    **{
        f"{WHOLE_VIDEO}.{name}": Measure("1", True, f"VBench's {name} of whole videos.", dimension.label, 4)
        for name, dimension in DIMENSIONS.items()
    },
    "vbench_long.average": Measure("1", True, "Mean of the columns of a paper's own table.", "average", 4),
    "vlm.visual_stability": Measure("1", True, "Stability as a language model sees it.", "stability", 4),
    "stationarity.w1_unrotated": Measure(
        "1", False, "Normalised W1 distance of queries of two frames before rotation.", "W1 unrotated", 3
    ),
    "stationarity.w1_rotated": Measure(
        "1", False, "Normalised W1 distance of queries of two frames after rotation.", "W1 rotated", 3
    ),
    "cost.kernel_saving": Measure("1", True, "Share of seconds that a kernel saves.", "kernel saves", 3),
})  # fmt: skip
"""What papers print and this package does not measure."""
_SCALES = (1.0, 0.01, 1e9)  # as it is, per cent, GB
_LIMITS = {"1": 1.0, "dB": 100.0, "fps": 1e4, "s": 1e6, "bytes": 1e12}
_MOST_W1 = 2.0  # standard deviations


@dataclass(frozen=True)
class Row:
    """One printed number; see the columns above."""

    paper: str
    table: str
    block: str
    model: str
    method: str
    seconds: float | None
    budget_frames: float | None
    metric: str
    printed: str
    value: float
    mark: str
    n_prompts: int | None
    prompt_list: str
    clips: str
    note: str

    @property
    def key(self) -> tuple[object, ...]:
        """What may stand once."""
        return (
            self.paper, self.table, self.block, self.model, self.method, self.seconds, self.budget_frames,
            self.metric,
        )  # fmt: skip

    @property
    def measure(self) -> Measure:
        """Description of its metric."""
        found = measure(self.metric)
        if found is None:
            raise ValueError(f"metric '{self.metric}' is not known")
        return found

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return -1 if self.measure.higher_is_better is False else 1


@lru_cache(maxsize=256)  # the search among installed packages takes a while
def measure(metric: str) -> Measure | None:
    """Return the description of a metric of ours or of `OTHERS`."""
    return OTHERS.get(metric) or metrics.measure(metric)


def scale(metric: str) -> float:
    """Return the factor from our unit to what papers print: 100 for shares of VBench, GB for bytes."""
    found = measure(metric)
    if found is not None and found.unit == "bytes":
        return 1e-9
    return 100.0 if metric.startswith(("vbench", "vlm.", "cost.kernel_saving")) else 1.0


@lru_cache(maxsize=1)
def load() -> tuple[Row, ...]:
    """Read every paper's numbers.

    Raises:
        UsageError: Where a file does not keep to the columns above.
    """
    folder = files("ff_bench.report.published")
    return tuple(
        row
        for name in PAPERS
        for row in read(folder.joinpath(f"{name}.csv").read_text(encoding="utf-8"), f"{name}.csv")
    )


def read(text: str, source: str) -> list[Row]:
    """Read and check the numbers of one file.

    Args:
        text: CSV with the columns above.
        source: Name of the file, for errors.

    Raises:
        UsageError: For other columns, an unknown metric, a value out of range or unlike what is printed, a
            number that stands twice, or a `best` that is not.
    """
    lines = csv.DictReader(StringIO(text))
    if tuple(lines.fieldnames or ()) != COLUMNS:
        raise UsageError(f"{source}: columns must be {', '.join(COLUMNS)}")
    rows: list[Row] = []
    seen: dict[tuple[object, ...], int] = {}
    for number, line in enumerate(lines, start=2):
        row = _row(line, f"{source} line {number}")
        if row.key in seen:
            raise UsageError(f"{source} line {number}: the same cell stands in line {seen[row.key]} already")
        seen[row.key] = number
        rows.append(row)
    _check_best(rows, source)
    return rows


def _row(line: Mapping[str, str | None], where: str) -> Row:
    cells = {name: text or "" for name, text in line.items() if name is not None}
    if None in line or None in line.values():
        raise UsageError(f"{where}: a line must have {len(COLUMNS)} cells")
    for name in ("paper", "table", "model", "method", "metric", "printed", "value"):
        if not cells[name]:
            raise UsageError(f"{where}: {name} is empty")
    for name, allowed in (("mark", MARKS), ("clips", CLIPS)):
        if cells[name] not in allowed:
            raise not_one_of(f"{where}: {name}", cells[name], allowed)
    return Row(
        **{name: cells[name] for name in COLUMNS if name not in _NUMBERS},
        seconds=_positive(cells, "seconds", where),
        budget_frames=_positive(cells, "budget_frames", where),
        n_prompts=_count(cells, where),
        value=_value(cells, where),
    )


def _positive(cells: Mapping[str, str], name: str, where: str) -> float | None:
    if not cells[name]:
        return None
    number = _number(cells[name], f"{where}: {name}")
    if number <= 0:
        raise out_of_range(f"{where}: {name}", cells[name], "above 0, or empty")
    return number


def _count(cells: Mapping[str, str], where: str) -> int | None:
    number = _positive(cells, "n_prompts", where)
    if number is not None and number != int(number):
        raise out_of_range(f"{where}: n_prompts", cells["n_prompts"], "a whole number, or empty")
    return None if number is None else int(number)


def _value(cells: Mapping[str, str], where: str) -> float:
    metric, known = cells["metric"], measure(cells["metric"])
    if known is None:
        near = nearest(metric, [*OTHERS, *_ours()])
        hint = f"; did you mean '{near}'?" if near else ""
        raise UsageError(f"{where}: metric={metric} is known to nobody here{hint}")
    value = _number(cells["value"], f"{where}: value")
    printed = _number(cells["printed"], f"{where}: printed")
    limit = _MOST_W1 if metric.startswith("stationarity.") else _LIMITS.get(known.unit, float("inf"))
    if not 0 <= value <= limit:
        raise out_of_range(f"{where}: value", cells["value"], f"between 0 and {limit:g} for {metric}")
    if not any(abs(value - factor * printed) <= 1e-9 * max(1.0, abs(value)) for factor in _SCALES):
        raise UsageError(
            f"{where}: value={value:g} is not printed={printed:g}, nor a hundredth of it, nor GB of it"
        )
    return value


def _number(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise out_of_range(field, text, "a number") from None


def _ours() -> list[str]:
    return [name for family in metrics.names() for name in metrics.load(family).measures]


def _check_best(rows: Sequence[Row], source: str) -> None:
    """A derived mark must be true; a printed one is the paper's."""
    for rivals in blocks(rows).values():
        top = max(row.sign * row.value for row in rivals)
        for row in rivals:
            if row.mark == "best" and row.sign * row.value != top:
                raise UsageError(
                    f"{source}: {row.table} {row.method} {row.metric} {row.printed} is not the best"
                )


def blocks(rows: Iterable[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    """Group the ranked rows by what competes: paper, table, block, metric; in the order of the rows."""
    found: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if row.block:
            found.setdefault((row.paper, row.table, row.block, row.metric), []).append(row)
    return found
