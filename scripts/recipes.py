"""The commands that `scripts/torture.py` breaks, and what may befall each."""

from __future__ import annotations

from dataclasses import dataclass

from faults import RUNNER, WORKER

FOLDER, VIDEOS = "FOLDER", "VIDEOS"
"""What stands in words for the folder of a story, and for a folder of videos that somebody else has made."""
TINY = ("length=3s", "steps=1", "protocol.prefix=none", "device=cpu")
SHARED = (
    "-m", "policy=full,h2o", "limit=2", "prompts=orbit", "budget=6f", *TINY,
    "metrics=[flicker,fidelity,cost]", "score_minutes=1", f"runs_dir={FOLDER}",
)  # fmt: skip
PREFIXED = (
    "-m", "policy=random,h2o", "ids=[2]", "prompts=orbit", "budget=6f", "length=9s", "steps=1",
    "protocol.prefix=first_lap", "device=cpu", "stages=[generate]", f"runs_dir={FOLDER}",
)  # fmt: skip
"""Two policies that begin with the same six seconds, which the first of them makes and keeps."""
ANALYSED = ("prompts=orbit", "limit=2", *TINY, f"runs_dir={FOLDER}")
DISK_AND_PROCESS = ("kill", "terminate", "interrupt", "memory", "full_disk", "short_writes", "read_only")
CODEC = ("codec", "codec_kill")
DEVICE = ("gpu", "gpu_memory", "absent_gpu")
GENERATING = (*CODEC, *DEVICE, "stuck")


@dataclass(frozen=True)
class Recipe:
    """A command that is broken.

    Attributes:
        name: for people.
        words: of the command line; FOLDER stands for the story's folder, VIDEOS for videos made elsewhere.
        kinds: faults that it may meet.
        places: processes that they may strike.
        after: recipe whose undisturbed folder it starts from, or empty.
        is_exact: whether its report shows nothing but what must be equal to the byte.
    """

    name: str
    words: tuple[str, ...]
    kinds: tuple[str, ...]
    places: tuple[str, ...] = (RUNNER,)
    after: str = ""
    is_exact: bool = False


IN_WORKERS = (RUNNER, WORKER, WORKER)
RECIPES = (
    Recipe("generate", (*SHARED, "stages=[generate]"), (*DISK_AND_PROCESS, *GENERATING)),
    Recipe(
        "score", (*SHARED, "stages=[score]"), (*DISK_AND_PROCESS, "hang", "absent_gpu"), after="generate"
    ),
    Recipe(
        "report", ("report", FOLDER, f"out={FOLDER}/reports/torture"), DISK_AND_PROCESS,
        after="score", is_exact=True,
    ),
    Recipe("sweep", SHARED, (*DISK_AND_PROCESS, *GENERATING, "hang")),
    Recipe(
        "workers", (*SHARED, "stages=[generate,score]", "workers=2"),
        (*DISK_AND_PROCESS, *GENERATING, "hang"), IN_WORKERS,
    ),
    Recipe("prefix", PREFIXED, (*DISK_AND_PROCESS, *GENERATING)),
    Recipe(
        "prefix-workers", (*PREFIXED, "workers=2"), (*DISK_AND_PROCESS, *GENERATING), IN_WORKERS
    ),
    Recipe(
        "foreign",
        (
            "score", VIDEOS, f"out={FOLDER}", "metrics=[flicker,drift,guards]", "device=cpu",
            "score_minutes=1",
        ),
        (*DISK_AND_PROCESS, *CODEC, "hang", "absent_gpu"),
    ),
    Recipe(
        "replay",
        (
            "replay", "policies=[random,h2o]", "budgets=[6f]", "layers=[0,1]", "heads=[0,1]", "stride=16",
            "ahead=4", *ANALYSED, f"out={FOLDER}/reports/replay",
        ),
        (*DISK_AND_PROCESS, *DEVICE, "stuck"), is_exact=True,
    ),
    Recipe(
        "stationarity",
        ("stationarity", "lags=1..2", "rows=8", *ANALYSED, f"out={FOLDER}/reports/stationarity"),
        (*DISK_AND_PROCESS, *DEVICE), is_exact=True,
    ),
    Recipe(
        "challenge",
        ("challenge", "h2o", "workers=2", "budget=6f", f"runs_dir={FOLDER}", f"out={FOLDER}/reports/h2o"),
        (*DISK_AND_PROCESS, *CODEC, "gpu_memory", "stuck"), IN_WORKERS,
    ),
)  # fmt: skip
ORDER = (
    "generate", "score", "workers", "foreign", "prefix", "replay", "generate", "score", "workers",
    "stationarity", "prefix-workers", "sweep", "generate", "score", "foreign", "challenge", "workers",
    "report",
)  # fmt: skip
"""Recipes of stories in turn; reports and challenges take the longest."""
