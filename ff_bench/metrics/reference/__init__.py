"""VBench's own code as a metric: run in its own environment, checked, read back into our rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ff_bench.errors import Unavailable, not_one_of
from ff_bench.metrics import clips
from ff_bench.metrics.base import Measure, Value, Video, whole
from ff_bench.metrics.reference import results, staging

_DOC = {
    "subject_consistency": "VBench's own code: DINO within clips, DINOv2 between clips, fused",
    "background_consistency": "VBench's own code: CLIP within clips, DreamSim between clips, fused",
    "temporal_flickering": "VBench's own code: mean absolute difference of neighbours, no static filter",
    "motion_smoothness": "VBench's own code: AMT-S against the frames it interpolates",
    "dynamic_degree": "VBench's own code: share of clips whose RAFT flow is over the threshold",
    "aesthetic_quality": "VBench's own code: LAION's linear head on CLIP ViT-L/14",
    "imaging_quality": "VBench's own code: MUSIQ trained on SPAQ",
    "overall_consistency": "VBench's own code: cosine of ViCLIP's video and text features, first 32 tokens",
}
_PARTS = {
    "inclip": "within clips", "clip2clip": "between the first frames of clips, raw",
    "mapped": "between clips, on the scale of the other",
}  # fmt: skip


def _measures() -> dict[str, Measure]:
    measures = {}
    for dimension, doc in _DOC.items():
        is_dynamic = dimension == "dynamic_degree"
        name = f"vbench_reference.{dimension}"
        label = dimension.replace("_", " ")
        measures[name] = Measure("1", None if is_dynamic else True, f"{doc}; clips of 2 s.", label, 4)
        for part, words in _PARTS.items() if dimension in results.CONSISTENCY else ():
            measures[f"{name}_{part}"] = Measure("1", True, f"{doc}: the part {words}.", f"{label} {part}", 4)
    return measures


class VBenchReference:
    """VBench-Long 0.1.5 itself, in the environment of `make scorer-env`, one process per video and dimension.

    Source: Vchitect/VBench, PyPI vbench 0.1.5, `VBenchLong` with mode `long_custom_input` and `--dev_flag`.
    Deviates: averages over the clips of a video, not over all clips of all videos; clips are encoded with one
        thread; overall_consistency reads the prompt, not the name of the folder.
    """

    name: ClassVar[str] = "vbench_reference"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, Measure]] = _measures()

    def __init__(
        self,
        dimensions: Sequence[str] = staging.DIMENSIONS,
        python: str | None = None,
        device: str = "cpu",
        timeout: float = 24 * 3600.0,
    ) -> None:
        """Keep the setting.

        Args:
            dimensions: Which to run.
            python: Of the environment, or its folder; None looks for it.
            device: Torch device in that environment.
            timeout: Seconds for one dimension of one video.

        Raises:
            UsageError: For a dimension that VBench does not have or that is not offered here.
        """
        for dimension in dimensions:
            if dimension not in staging.DIMENSIONS:
                raise not_one_of("metrics.vbench_reference.dimensions", dimension, staging.DIMENSIONS)
        self.dimensions = tuple(dimensions)
        self.setting = staging.Setting(
            python=Path(python) if python else None, device=device, timeout=timeout
        )

    @property
    def standing(self) -> str:
        """The environment, or that there is none: rows `unavailable` are made again once it is there."""
        try:
            staging.find_environment(self.setting.python)
        except Unavailable:
            return "no environment"
        return "environment"

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield VBench's numbers per clip and their means; a dimension that fails says why."""
        del reference
        try:
            staging.find_environment(self.setting.python)
        except Unavailable as error:
            yield from self._none(self.dimensions, video, "unavailable", str(error))
            return
        with staging.workplace() as folder:
            staged = staging.stage(folder, video.footage, place=0, prompt=video.prompt, fps=video.fps)
            for dimension in self.dimensions:
                yield from self._dimension(folder, dimension, staged, video)

    def _dimension(
        self, folder: Path, dimension: str, staged: staging.Staged, video: Video
    ) -> Iterator[Value]:
        try:
            told = staging.run(folder, dimension, [staged], self.setting)
            found = results.read(told, dimension, staged)
        except Unavailable as error:
            yield from self._none([dimension], video, "unavailable", str(error))
        except (staging.ReferenceFailed, results.Mismatch) as error:
            yield from self._none([dimension], video, "failed", str(error))
        else:
            yield from _values(dimension, found, video)

    def _none(self, dimensions: Sequence[str], video: Video, status: str, reason: str) -> Iterator[Value]:
        for dimension in dimensions:
            name = f"{self.name}.{dimension}"
            for measure in self.measures:
                if measure == name or measure.startswith(f"{name}_"):
                    yield Value(measure, None, t1=video.seconds, status=status, reason=reason)


def _values(dimension: str, found: Sequence[results.Clip], video: Video) -> Iterator[Value]:
    name = f"{VBenchReference.name}.{dimension}"
    yield whole(name, video, results.mean([clip.score for clip in found]), "no clips")
    length, begins = clips.clip_frames(video.fps), clips.starts(video.count, video.fps)
    for number, (begin, clip) in enumerate(zip(begins, found, strict=True)):
        end = min(begin + length, video.count)
        yield Value(name, clip.score, number, begin / video.fps, end / video.fps)
    if dimension not in results.CONSISTENCY:
        return
    single = "a video of one clip has nothing between clips"
    yield whole(f"{name}_inclip", video, results.mean([clip.inclip for clip in found]), "no clips")
    yield whole(f"{name}_clip2clip", video, results.mean([clip.clip2clip for clip in found]), single)
    yield whole(f"{name}_mapped", video, results.mean([clip.mapped for clip in found]), single)
