"""Rows: one number of one video per row. Schema, append, read, tables, and where a number was made."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff_bench import __version__, csv_shape, masking, row_cells, runs, seals
from ff_bench.errors import UsageError

if TYPE_CHECKING:
    import pandas

LOGGER = logging.getLogger(__name__)
SCHEMA = 1
COLUMNS = (
    "schema", "video_id", "model", "checkpoint", "policy", "policy_fields", "protocol", "budget_tokens",
    "frames", "prompt_set", "prompt_id", "seed", "metric", "version", "clip", "t0", "t1", "value", "unit",
    "status", "reason",
)  # fmt: skip
PROVENANCE = (
    "protocol_fields", "pinned", "budget_asked", "length_asked", "latent_frames", "prefix_frames", "fps",
    "steps", "dtype", "batch", "prompt_text", "prompt_sha256", "prompt_list_sha256", "reference",
    "higher_is_better", "frames_sha256", "device", "hardware", "host", "torch", "code_version", "scored_on",
    "scored_by", "settings", "weights",
)  # fmt: skip
KEY = ("video_id", "metric", "version", "clip")
TABLES = (".parquet", ".csv")
STATUSES = ("ok", "undefined", "unavailable", "failed", "skipped")
PACKAGES = (
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "av",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "matplotlib",
    "pyarrow",
    "diffusers",
    "transformers",
    "huggingface-hub",
    "torchvision",
    "timm",
    "open-clip-torch",
)


def append(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines, each by one write, so that a kill or a full disk can tear the last line only.

    Raises:
        OSError: where the disk does not take a line; none is written after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        if end and os.pread(handle, 1, end - 1) != b"\n":
            os.write(handle, b"\n")
        for item in items:
            line = memoryview((json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n").encode())
            while line:  # a disk that fills up takes a beginning and refuses the rest when asked again
                line = line[os.write(handle, line) :]
    finally:
        os.close(handle)


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn line is left out, a missing file is empty."""
    if not path.is_file():
        return []
    items = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(item, dict):
            items.append(item)
    return items


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of one video, sorted; of a metric that was computed again, the last ones only."""
    return _scores(folder)[0]


def marks_of(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return which (metric family, version) is complete, with what it rests on: reference and signals."""
    return _scores(folder)[1]


def _scores(folder: Path) -> tuple[list[dict[str, Any]], dict[tuple[str, int], dict[str, Any]]]:
    """Read the rows and marks of one video: a metric begins, yields rows, is done.

    A metric whose rows are not those that its mark seals is not done, and its numbers are not told.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    marks: dict[tuple[str, int], dict[str, Any]] = {}
    for item in read(folder / runs.ROWS):
        family = (str(item.get("begin", item.get("done"))), _whole(item.get("version")))
        if "begin" in item:
            marks.pop(family, None)
            rows = {key: row for key, row in rows.items() if _family(row) != family}
        elif "done" in item:
            marks[family] = item
        elif item.get("schema") == SCHEMA and seals.is_row(item, STATUSES):
            rows[tuple(item[name] for name in KEY)] = item
    for family in [family for family, mark in marks.items() if "seal" in mark]:
        own = {key: row for key, row in rows.items() if _family(row) == family}
        if marks[family]["seal"] != seals.seal(own.values(), COLUMNS):
            LOGGER.warning("%s: %s: %s", folder, family[0], seals.EDITED)
            marks.pop(family)
            rows.update({key: seals.spoiled(row) for key, row in own.items()})
    order = sorted(rows.values(), key=lambda row: (row["metric"], row["version"], row["clip"]))
    return order, marks


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1


def _family(row: Mapping[str, Any]) -> tuple[str, int]:
    return str(row["metric"]).partition(".")[0], row["version"]


def table(folders: Iterable[Path]) -> pandas.DataFrame:
    """Read the rows of many videos into one table with the columns of the schema, provenance last."""
    import pandas

    return (
        frame(row for folder in folders for row in rows_of(folder))
        if folders
        else pandas.DataFrame(columns=[*COLUMNS, *PROVENANCE])
    )


def read_table(path: Path) -> pandas.DataFrame:
    """Read a table of rows that another run or machine wrote, .parquet or .csv.

    Raises:
        UsageError: for a file that is no table of rows, or of another schema.
    """
    import pandas

    try:
        wrong = csv_shape.fault(path, COLUMNS) if path.suffix == ".csv" else ""
        if wrong:
            raise UsageError(f"RUNS={path} is not allowed: {wrong}, give rows of ff-bench")
        found = pandas.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"RUNS={path} is not allowed: it cannot be read as a table ({error})") from None
    found.columns = found.columns.map(str)
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UsageError(f"RUNS={path} is not allowed: it has no column {missing[0]}, give rows of ff-bench")
    if not (found["schema"] == SCHEMA).all():
        raise UsageError(f"RUNS={path} is not allowed: its rows are not of schema {SCHEMA}")
    wrong = row_cells.wrong(found, STATUSES)
    if wrong:
        raise UsageError(f"RUNS={path} is not allowed: {wrong}")
    even = found.reindex(columns=[*COLUMNS, *PROVENANCE])
    empty = [name for name in even if name not in row_cells.COUNTED and even[name].isna().all()]
    return even.astype(dict.fromkeys(empty, object))  # of numbers, where a column of words is empty


def _read_csv(path: Path) -> pandas.DataFrame:
    """Read a table whose words stay words: an id of digits is no number, a policy called `null` is there."""
    import pandas

    texts = dict.fromkeys((name for name in COLUMNS if name not in row_cells.NUMBERS), str)
    return pandas.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])


def frame(rows: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make a table of rows, columns in the order of the schema; missing ones are empty."""
    import pandas

    made = pandas.DataFrame(list(rows))
    made = made.reindex(columns=[*COLUMNS, *PROVENANCE])
    for name in ("value", "t0", "t1", "budget_tokens"):
        made[name] = pandas.to_numeric(made[name])
    return made


def strip_provenance(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Keep what must be equal for the same result: no cost, no provenance, sorted by key (Law 3)."""
    kept = rows[~rows["metric"].astype(str).str.startswith("cost.")]
    return kept[list(COLUMNS)].sort_values(list(KEY), kind="stable").reset_index(drop=True)


def write_tables(rows: pandas.DataFrame, folder: Path) -> list[Path]:
    """Write rows.parquet and rows.csv by temporary name and rename.

    Returns:
        The two paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parquet, csv = folder / "rows.parquet", folder / "rows.csv"
    texts = [name for name in rows.columns if rows[name].dtype == object]
    even = rows.astype({name: "string" for name in texts})
    with runs.temporary(parquet) as part:
        even.to_parquet(part, index=False, compression="zstd")
    with runs.temporary(csv) as part:
        rows.to_csv(part, index=False)
    return [parquet, csv]


def environment(device: str) -> dict[str, Any]:
    """Say where and by what a number is made: versions, device, hardware, host class, command.

    Args:
        device: torch device in use, such as cpu or cuda:0.
    """
    return {
        "device": device,
        "hardware": hardware(device),
        "host": f"{platform.system().lower()}-{platform.machine()}-{os.cpu_count()}cpu",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "argv": masking.words([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "code_version": code_version(),
    }


@lru_cache(maxsize=4)
def hardware(device: str) -> str:
    """Name the processor or the accelerator."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the version of this package, with commit and '+changed' where it runs from a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return __version__
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = "+changed" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{__version__}-{commit}{changed}" if commit else __version__


def _git(root: Path, *words: str) -> str:
    command: Sequence[str] = ("git", "-C", str(root), *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
