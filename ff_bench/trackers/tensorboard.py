"""TensorBoard: curves, means and tables of a run as event files under `runs_dir/tracker/tensorboard/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff_bench.trackers.checks import check_common
from ff_bench.trackers.readings import COLUMNS, Comparison, Job, Scored, Video, slashed

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

NOTE = "told.json"


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings.

    Raises:
        UsageError: Which is wrong and what is allowed.
    """
    check_common(settings)


class Tensorboard:
    """Writes one folder of events per job, from its beginning each time: events cannot be replaced."""

    resumes = False

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Open nothing yet."""
        self._writers: dict[str, SummaryWriter] = {}
        self._places: dict[str, None] = {}

    def note(self, job: Job) -> Path:
        """Return the note in the folder of the job: whoever deletes the folder gets it again."""
        return self._folder(job) / NOTE

    def begin(self, job: Job) -> None:
        """Start the folder over and write the configuration."""
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = self._folder(job)
        shutil.rmtree(folder, ignore_errors=True)
        self._places[f"tensorboard --logdir {job.root / 'tracker' / 'tensorboard'}"] = None
        self._writers[job.id] = SummaryWriter(log_dir=str(folder))
        told = json.dumps(job.config, indent=2, ensure_ascii=False)
        code = "\n".join(f"    {line}" for line in told.splitlines())  # four spaces: code in Markdown
        self._writers[job.id].add_text("config", code)

    def generated(self, job: Job, video: Video) -> None:
        """Add the curves over chunks."""
        for chunk in video.chunks:
            for name, value in chunk.items():
                if name != "chunk":
                    tag = f"chunk/{name}/{video.name}"
                    self._writers[job.id].add_scalar(tag, value, int(chunk["chunk"]))

    def scored(self, job: Job, scored: Scored, means: Mapping[str, float]) -> None:
        """Add the curves over windows, by the second that a window begins at, and the means so far."""
        writer = self._writers[job.id]
        for window in scored.windows:
            for metric, value in window.items():
                if metric != "window":
                    tag = f"window/{slashed(metric)}/{scored.name}"
                    writer.add_scalar(tag, value, round(window["window"]))
        for metric, value in means.items():
            writer.add_scalar(f"mean/{slashed(metric)}", value, int(means["videos"]))
        writer.flush()

    def reported(self, job: Job, comparison: Comparison) -> None:
        """Add the table and the figures of a report."""
        from matplotlib.image import imread

        writer = self._writers[job.id]
        writer.add_text("comparison", as_markdown(comparison.columns, comparison.rows))
        for figure in comparison.figures:
            writer.add_image(f"figure/{figure.stem}", imread(figure)[..., :3], dataformats="HWC")

    def end(self, job: Job, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
        """Add the rows over whole videos and close the folder."""
        writer = self._writers.pop(job.id)
        if rows:
            writer.add_text("scores", as_markdown(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]))
        writer.close()
        return True

    def close(self) -> None:
        """Close what did not end."""
        while self._writers:
            self._writers.popitem()[1].close()

    def places(self) -> tuple[str, ...]:
        """Say the command that shows it."""
        return tuple(self._places)

    def _folder(self, job: Job) -> Path:
        return job.root / "tracker" / "tensorboard" / job.group / job.folder


def as_markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table in Markdown, which is what TensorBoard shows texts as."""
    lines = [columns, ["---"] * len(columns), *rows]
    texts = [[_cell(value) for value in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
