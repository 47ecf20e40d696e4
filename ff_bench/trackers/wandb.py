"""Weights & Biases: one W&B run per configuration, online or in files under `runs_dir/wandb/`."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ff_bench.checks import choice, text, whole
from ff_bench.trackers.checks import check_common
from ff_bench.trackers.preview import shrink
from ff_bench.trackers.readings import COLUMNS, Comparison, Job, Scored, Video, slashed

LOGGER = logging.getLogger(__name__)
MODES = ("online", "offline", "disabled")
VIDEOS = ("preview", "all", "none")
INIT_SECONDS = 30
"""How long the server may take to open a run before it goes on offline."""
MEGABYTE = 10**6
SMALL = 2 * MEGABYTE
"""Bytes up to which a preview is the video itself."""


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings.

    Raises:
        UsageError: Which is wrong and what is allowed.
    """
    check_common(settings)
    text("tracker.project", settings["project"])
    if settings["entity"] is not None:
        text("tracker.entity", settings["entity"])
    choice("tracker.mode", settings["mode"], MODES)
    choice("tracker.videos", settings["videos"], VIDEOS)
    whole("tracker.previews", settings["previews"], low=1, high=10**4)
    whole("tracker.curves", settings["curves"], low=0, high=10**4)
    whole("tracker.megabytes", settings["megabytes"], low=1, high=10**5)


class Wandb:
    """Logs to W&B; a server that cannot be reached at the start of a run means offline, with one warning."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Import the library, which takes a second, and open nothing yet."""
        self._settings = settings
        self._mode = str(settings["mode"])
        self._library: Any = import_module("wandb")
        self._is_known = False
        self._runs: dict[str, Any] = {}
        self._bytes: dict[str, int] = {}
        self._places: dict[str, None] = {}

    @property
    def resumes(self) -> bool:
        """A server has what it was told before; a folder of files begins anew."""
        return self._mode == "online"

    def note(self, job: Job) -> Path:
        """Return the note; what files were told is not what the server was told."""
        return job.root / "wandb" / "told" / f"{self._settings['mode']}-{job.id}.json"

    def begin(self, job: Job) -> None:
        """Open the W&B run of a job, or go on with it, and say which axis curves have."""
        _keep_files_below(job.root / "wandb")
        self._choose_mode()
        run = self._open(job)
        self._runs[job.id] = run
        self._bytes[job.id] = 0
        for axis in ("chunk", "window"):
            run.define_metric(axis, hidden=True, summary="none")
            run.define_metric(f"{axis}/*", step_metric=axis, summary="none")

    def generated(self, job: Job, video: Video) -> None:
        """Log the curves over chunks and, within the limits, the video."""
        if video.place < int(self._settings["curves"]):
            self._log_curves(job, "chunk", video.name, video.chunks)
        kind = self._settings["videos"]
        if video.file is None or kind == "none":
            return
        if kind == "all":
            self._log_video(job, video, video.file)
        elif video.place < int(self._settings["previews"]):
            with tempfile.TemporaryDirectory() as folder:
                is_small = video.file.stat().st_size <= SMALL
                copy = video.file if is_small else shrink(video.file, Path(folder, "preview.mp4"))
                self._log_video(job, video, copy)

    def scored(self, job: Job, scored: Scored, means: Mapping[str, float]) -> None:
        """Log the curves over windows; the means so far are the summary of the run."""
        if scored.place < int(self._settings["curves"]):
            self._log_curves(job, "window", scored.name, scored.windows)
        self._runs[job.id].summary.update({slashed(metric): value for metric, value in means.items()})

    def reported(self, job: Job, comparison: Comparison) -> None:
        """Log the table and the figures of a report."""
        run = self._runs[job.id]
        if comparison.columns:
            run.log({"comparison": self._table(comparison.columns, comparison.rows)})
        for figure in comparison.figures:
            run.log({f"figure/{figure.stem}": self._library.Image(str(figure))})

    def end(self, job: Job, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
        """Log the rows over whole videos and finish the W&B run; raises where the server takes too long."""
        run = self._runs.pop(job.id)
        if rows:
            cells = [[row[name] for name in COLUMNS] for row in rows]
            run.log({"scores": self._table(COLUMNS, cells)})
        run.finish(exit_code=0 if is_whole else 1)
        return self._mode == str(self._settings["mode"])

    def close(self) -> None:
        """Finish what did not end."""
        while self._runs:
            self._runs.popitem()[1].finish(exit_code=1)

    def places(self) -> tuple[str, ...]:
        """Name the project on the server, or the command that sends the files."""
        return tuple(self._places)

    def _choose_mode(self) -> None:
        """Ask once whether there is a key and a server; where not, the run is told to files."""
        if self._is_known or self._mode != "online":
            return
        self._is_known = True
        try:
            has_key = bool(self._library.login(prompt=False))
        except Exception as error:
            LOGGER.debug("no login", exc_info=True)
            self._go_offline(f"the server cannot be reached or refuses the key ({type(error).__name__})")
            return
        if not has_key:
            self._go_offline("there is no API key, 'wandb login' stores one")

    def _go_offline(self, why: str) -> None:
        self._mode = "offline"
        LOGGER.warning("tracker=wandb goes on offline, 'wandb sync' sends the files later: %s", why)

    def _open(self, job: Job) -> Any:
        if self._mode == "online":
            try:
                return self._init(job, job.id)
            except Exception as error:
                LOGGER.debug("no run", exc_info=True)
                self._go_offline(f"the server does not open a run ({type(error).__name__})")
                return self._init(job, f"{job.id}-offline")  # the library keeps the id for itself now
        return self._init(job, job.id)

    def _init(self, job: Job, run_id: str) -> Any:
        wait = 0.8 * float(self._settings["wait"])  # the rest is for what happens around it
        # Nothing of the machine, of the terminal or of the code is sent: rows say what counts.
        settings = self._library.Settings(
            console="off", silent=True, host="", program="ff-bench", disable_code=True, disable_git=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
            init_timeout=INIT_SECONDS, finish_timeout=wait, finish_timeout_raises=True, login_timeout=1,
        )  # fmt: skip
        run = self._library.init(
            project=self._settings["project"], entity=self._settings["entity"], dir=str(job.root.absolute()),
            id=run_id, name=job.name, group=job.group, job_type=job.kind, tags=list(job.tags),
            config=dict(job.config), mode=self._mode, resume="allow" if self.resumes else None,
            reinit="create_new", settings=settings,
        )  # fmt: skip
        folder = job.root / "wandb"
        place = run.project_url if self.resumes else f"wandb sync {folder}/offline-run-*"
        self._places[str(place)] = None
        return run

    def _log_curves(self, job: Job, axis: str, name: str, points: Sequence[Mapping[str, float]]) -> None:
        for point in points:
            curves = {f"{axis}/{slashed(k)}/{name}": value for k, value in point.items() if k != axis}
            self._runs[job.id].log({axis: point[axis], **curves})

    def _log_video(self, job: Job, video: Video, file: Path) -> None:
        """Log a video, if it fits into what is left of the limit."""
        size = file.stat().st_size
        if self._bytes[job.id] + size > int(self._settings["megabytes"]) * MEGABYTE:
            LOGGER.info("%s is left out: tracker.megabytes=%s", file, self._settings["megabytes"])
            return
        self._bytes[job.id] += size
        picture = self._library.Video(str(file), caption=video.caption, format="mp4")
        self._runs[job.id].log({f"video/{video.name}": picture})

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
        cells = [list(row) for row in rows]
        return self._library.Table(columns=list(columns), data=cells, allow_mixed_types=True)


def _keep_files_below(folder: Path) -> None:
    """Keep what the library stores beside its runs out of the home directory, unless the user chose one."""
    for name, own in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data")):
        os.environ.setdefault(name, str(folder.absolute() / own))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
