"""ff-bench: under a cache budget, which KV-cache policy keeps a long video consistent, and at what cost?

`ff_bench.run(policy="future_forcing", budget="1k", length="24s")` does what the command line does and returns
the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

__version__ = "0.1.0"
__all__ = ["run"]


def run(*, overrides: Sequence[str] = (), **settings: object) -> pandas.DataFrame:
    """Run one configuration in this process and return its rows.

    Args:
        overrides: settings as on the command line, for dotted keys: ``["policy.lam=0.3"]``.
        settings: fields of the configuration; a mapping sets fields within: ``protocol={"prefix": "none"}``.

    Returns:
        One row per video, metric and clip; columns as in `ff_bench.records.COLUMNS`.

    Raises:
        ValueError: for an unknown field or value, with what is allowed.
    """
    from ff_bench import compose, pipeline

    words = [*compose.overrides_of(settings), *overrides]
    return pipeline.run(compose.compose(words).config)
