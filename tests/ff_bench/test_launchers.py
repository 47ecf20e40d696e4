"""Sweeps as users start them: twice at once, interrupted, killed, on other launchers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from ff_bench import cli, launcher, records, runs, shipped
from ff_bench.compose import LAUNCHERS, expand
from ff_bench.errors import UsageError

CLIENT = "import sys; from ff_bench.cli import main; sys.exit(main())"
SHORT = [
    "budget=6f", "length=9f", "steps=1", "protocol.prefix=none", "metrics=[flicker,fidelity]", "device=cpu",
    "stages=[generate,score]",
]  # fmt: skip
COUNTED = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from policies.base import Policy


@dataclass
class Counted(Policy):
    """Keep the first slots, and leave a line for each video that is made."""

    name: ClassVar[str] = "counted"
    source: ClassVar[str] = "test"

    def begin(self):
        with Path("made.txt").open("a") as stream:
            stream.write("made\\n")

    def score(self, cache, step):
        return -cache.tokens.float()
'''


def start(*words: str) -> subprocess.Popen[bytes]:
    """Start ff-bench in a session of its own; what it says goes to errors.txt."""
    with Path("errors.txt").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", CLIENT, *words],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def rows_below(folder: str) -> pd.DataFrame:
    return records.strip_provenance(records.table([path.parent for path in Path(folder).rglob(runs.ROWS)]))


def session(leader: int) -> list[str]:
    listed = subprocess.run(
        ["ps", "-s", str(leader), "-o", "stat=,pid="], capture_output=True, text=True, check=False
    )
    return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_makes_nothing_twice(clean: Path) -> None:
    (clean / "counted.py").write_text(COUNTED)
    words = ["-m", "policy=counted.py", "limit=2", *SHORT[1:], "budget=6f,7f"]
    both = [start(*words, "runs_dir=both", more) for more in ("workers=2", "workers=1")]
    assert [process.wait(120) for process in both] == [0, 0], Path("errors.txt").read_text()
    assert len((clean / "made.txt").read_text().splitlines()) == 4
    ended: Counter[tuple[str, str]] = Counter()
    for path in Path("both").rglob(runs.ROWS):
        ended.update((str(path), item["done"]) for item in records.read(path) if "done" in item)
    assert set(ended.values()) == {1}
    assert len(ended) == 8
    assert start(*words, "runs_dir=alone").wait(120) == 0  # not here: a policy of a file stays known
    assert rows_below("both").equals(rows_below("alone"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sessions are listed by ps")
def test_ctrl_c_ends_everything_within_two_seconds(clean: Path) -> None:
    words = ["policy=h2o", "limit=4", "length=60s", "hydra/launcher=gpus", "hydra.launcher.slots=2"]
    process = start(*words)
    until = time.monotonic() + 60
    while len(session(process.pid)) < 4 and time.monotonic() < until:  # parent, two workers, their tracker
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    while session(process.pid) and time.monotonic() < began + 2:
        time.sleep(0.05)
    assert session(process.pid) == []
    told = Path("errors.txt").read_text()
    assert told.startswith("ff-bench: interrupted")
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sessions are listed by /proc")
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_rows(clean: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "kill_sweep.py"
    command = [sys.executable, str(script), "--prompts", "2", "--kills", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["kills"] == 3
    assert last["rows_equal"] and last["complete"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="needs hydra-submitit-launcher")
def test_jobs_of_submitit_have_the_rows_of_a_plain_sweep(clean: Path) -> None:
    words = ["-m", "policy=h2o,full", *SHORT]
    assert cli.main([*words, "runs_dir=plain"]) == 0
    assert start(*words, "runs_dir=jobs", "hydra/launcher=submitit_local").wait(120) == 0
    assert len(rows_below("jobs"))
    assert rows_below("jobs").equals(rows_below("plain"))
    rows = records.table([path.parent for path in Path("jobs").rglob(f"h2o-*/**/{runs.ROWS}")])
    compared = rows[rows["metric"].str.startswith("fidelity.")]
    assert len(compared)
    assert all(compared["reference"])  # though that may have come last
    made = sorted(Path("jobs/.submitit").iterdir())
    assert start(*words, "runs_dir=jobs", "hydra/launcher=submitit_local").wait(120) == 0
    assert sorted(Path("jobs/.submitit").iterdir()) == made  # nothing left, no job


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "ray_aws"])
def test_a_launcher_that_is_not_installed_is_one_sentence(name: str) -> None:
    if find_spec("ray" if name == "ray" else "submitit") is not None:
        pytest.skip("it is installed")
    with pytest.raises(UsageError, match=rf"pip install 'ff-bench\[{LAUNCHERS[name]}\]'"):
        expand([f"hydra/launcher={name}"], multirun=False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra.launcher.slots=0"], "hydra.launcher.slots=0"),
        (["hydra.launcher.retries=99"], "from 0 to 10"),
        (["+hydra.launcher.slot=2"], "did you mean 'hydra.launcher.slots'"),
    ],
)
def test_wrong_fields_of_the_launcher(words: Sequence[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        launcher.slots_of(expand(["hydra/launcher=gpus", "device=cpu", *words], multirun=False))


def test_the_launcher_counts_slots_and_retries() -> None:
    words = ["hydra/launcher=gpus", "device=cpu", "policy=h2o"]
    sweep = expand([*words, "hydra.launcher.slots=3", "hydra.launcher.retries=2"], multirun=False)
    found = launcher.slots_of(sweep)
    assert (found.count, found.retries, found.is_inside) == (3, 2, False)
    assert launcher.slots_of(expand([*words, "workers=5"], multirun=False)).count == 5
    assert launcher.width(expand(["-m", "policy=h2o,random"][1:], multirun=True)) == 1


@pytest.mark.parametrize("name", ["budget_sweep", "policies"])
def test_an_experiment_says_how_to_run_it_and_is_a_sweep(name: str) -> None:
    lines = (shipped.conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    command = next(line for line in lines if not line.startswith("# @"))
    assert command == f"# ff-bench +experiment={name} hydra/launcher=gpus"
    sweep = expand([f"+experiment={name}", "hydra/launcher=gpus"], multirun=False)
    assert sweep.is_multirun
    assert sweep.launcher == "gpus"
    assert len({job.config.policy.label for job in sweep.jobs}) >= 7
