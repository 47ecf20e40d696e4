"""The commands of the console script: the first word without '=' names one, `run` where there is none."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ff_bench import __version__, failures
from ff_bench.bars import Bars
from ff_bench.compose import CONFIG, Sweep, compose, expand, offer_policies, sentences, session
from ff_bench.errors import UsageError, nearest, not_one_of, shown
from ff_bench.remarks import remarks

if TYPE_CHECKING:
    from ff_bench import pipeline

FLAGS = (
    "--dry-run", "--version", "--help", "--hydra-help", "--cfg", "--resolve", "--package", "--multirun",
    "--info", "--config-dir", "--shell-completion",
)  # fmt: skip

REPORT_OPTIONS = ("out", "baseline", "margin", "metrics", "tracker", "blind", "votes")
WANDB, BLIND = "--wandb", "--blind"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are sentences."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        flag = next((word for word in message.split() if word.startswith("-")), "")
        near = nearest(flag, FLAGS) if flag else ""
        hint = f"; did you mean '{near}'?" if near and near != flag else ""
        raise UsageError(f"{message}; flags are {', '.join(FLAGS)}{hint}")


def dispatch(words: Sequence[str]) -> int:
    """Run the command that the words name.

    Returns:
        The exit code.

    Raises:
        UsageError: with one sentence for the user.
    """
    first = words[0] if words else ""
    if not first or "=" in first or first[0] in "-+~":
        return run(words)
    if first not in COMMANDS:
        error = not_one_of("command", first, COMMANDS)
        raise UsageError(f"{error}; settings are written key=value")
    return COMMANDS[first](words[1:])


def run(words: Sequence[str]) -> int:
    """Generate, score and report one configuration or, with -m, every one."""
    flags = _parser().parse_intermixed_args(list(words))
    if flags.version:
        print(f"ff-bench {__version__}")
        return 0
    if flags.help or flags.hydra_help or flags.info or flags.shell_completion:
        return _hydra_page(flags)
    sweep = expand(flags.overrides, multirun=flags.multirun, config_dir=flags.config_dir)
    if flags.cfg:
        return _hydra_page(flags)
    configs = [job.config for job in sweep.jobs]
    if flags.dry_run or any(config.dry_run for config in configs):
        from ff_bench import launcher, plan

        print(plan.describe(plan.make(configs, slots=launcher.width(sweep))))
        for sentence in [*remarks(configs), *_left_out(sweep)]:
            print(f"note: {sentence}")
        return 0
    return _execute(sweep)


def _execute(sweep: Sweep) -> int:
    from ff_bench import launcher

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    bars = Bars()
    try:
        outcome = launcher.execute(sweep, bars)
    finally:
        bars.close()
    if outcome.summary:
        print(outcome.summary)
        print()
    for sentence in [*remarks(job.config for job in sweep.jobs), *_left_out(sweep)]:
        print(f"note: {sentence}")
    if outcome.report is not None:
        print(f"report  {outcome.report}")
    for path in outcome.tables:
        print(f"rows    {path}")
    for place in outcome.tracked:
        print(f"tracker {place}")
    for sentence in failures.summarise(outcome.failures):
        print(f"failed: {sentence}")
    if outcome.failures:
        print(f"{len(outcome.failures)} failed; the same command tries them again")
    print(json.dumps(_last_line(sweep, outcome)))
    return 1 if outcome.failures else 0


def _left_out(sweep: Sweep) -> list[str]:
    return [f"left out: {sentence}" for sentence in sweep.left_out]


def _last_line(sweep: Sweep, outcome: pipeline.Outcome) -> dict[str, object]:
    return {
        "jobs": len(sweep.jobs),
        "videos": int(outcome.rows["video_id"].nunique()),
        "rows": len(outcome.rows),
        "failed": len(outcome.failures),
        "left_out": len(sweep.left_out),
        "report": str(outcome.report) if outcome.report else None,
        "tables": [str(path) for path in outcome.tables],
    }


def report(words: Sequence[str]) -> int:
    """Make one report over any number of run folders.

    `report RUNS... [out=DIR] [baseline=POLICY] [metrics=NAME,...] [margin=NUMBER]
    [--blind | blind=PAIRS] [votes=FILE,...] [tracker=NAME] [tracker.FIELD=...] [--wandb]`.
    """
    from ff_bench import pipeline, report_options

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    tracking = [word for word in words if word.partition("=")[0].partition(".")[0] == "tracker"]
    tracking += ["tracker=wandb"] if WANDB in words else []
    others = [word for word in words if word not in (WANDB, BLIND, *tracking)]
    paths = [Path(word) for word in others if "=" not in word]
    options = dict(word.split("=", 1) for word in others if "=" in word)
    for key in options:
        if key not in REPORT_OPTIONS:
            raise not_one_of("report", key, REPORT_OPTIONS)
    if not paths:
        raise UsageError("report needs RUNS: folders of runs such as runs, or runs/mini/h2o-equal")
    out = Path(options["out"]) if "out" in options else None
    asked = report_options.read(options, is_blind=BLIND in words)
    tracker = compose(tracking).config.tracker if tracking else None
    page, summary, tracked = pipeline.report_over(paths, out=out, asked=asked, tracker=tracker)
    print(f"{summary}\n\nreport  {page}")
    if asked.blind:
        print(f"blind   {page.with_name('blind.html')}")
    for place in tracked:
        print(f"tracker {place}")
    print(json.dumps({"report": str(page)}))
    return 0


def ls(words: Sequence[str]) -> int:
    """List what there is: `ff-bench ls models|policies|metrics|prompts|experiments|runs [PATH]`."""
    from ff_bench import listing

    print(listing.describe(list(words)))
    return 0


def doctor(words: Sequence[str]) -> int:
    """Say what this machine can run and how to get what is missing."""
    from ff_bench import doctor as examination

    if words:
        raise UsageError(f"doctor takes nothing, not '{shown(words[0])}'")
    text, is_sound = examination.describe()
    print(text)
    return 0 if is_sound else 1


def verify(words: Sequence[str]) -> int:
    """Check the weights of a model: `verify model=NAME [--upstream DIR] [--quick]`."""
    from ff_bench.verify import run as examine

    return examine(words)


def weights(words: Sequence[str]) -> int:
    """List, get or check what scoring networks load: `weights list|fetch|verify [NAMES|METRIC ...]`."""
    from ff_bench.weights_command import run as command

    return command(words)


def prompts(words: Sequence[str]) -> int:
    """List, get or check the prompt sets of papers: `prompts list|fetch|verify [NAMES ...] [--from DIR]`."""
    from ff_bench.prompts_command import run as command

    return command(words)


def score(words: Sequence[str]) -> int:
    """Score videos that were not made here: `score VIDEOS... [prompts=FILE.csv] [metrics=[...]] ...`."""
    from ff_bench.score_command import run as command

    return command(words)


def audit_published(words: Sequence[str]) -> int:
    """Judge the bold cells of published tables: `audit-published [PAPER ...] [--csv FILE] ...`."""
    from ff_bench.audit_command import run as command

    return command(words)


def stationarity(words: Sequence[str]) -> int:
    """Measure how much queries move before and after rotation: `stationarity [KEY=VALUE ...]`."""
    from ff_bench.stationarity_command import run as command

    return command(words)


def replay(words: Sequence[str]) -> int:
    """Replay policies on recorded queries, keys and values: `replay policies=[...] budgets=[...] ...`."""
    from ff_bench.replay_command import run as command

    return command(words)


def check_policy(words: Sequence[str]) -> int:
    """Examine whether a policy does what every policy must: `check-policy NAME|FILE [policy.FIELD=...]`."""
    from ff_bench.check_policy_command import run as command

    return command(words)


def challenge(words: Sequence[str]) -> int:
    """Compare one's own policy with the others: `challenge FILE|NAME [policy.FIELD=...] [minutes=10] ...`."""
    from ff_bench.challenge_command import run as command

    return command(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "report": report,
    "score": score,
    "ls": ls,
    "doctor": doctor,
    "verify": verify,
    "weights": weights,
    "prompts": prompts,
    "audit-published": audit_published,
    "stationarity": stationarity,
    "replay": replay,
    "check-policy": check_policy,
    "challenge": challenge,
}


def _parser() -> Parser:
    parser = Parser(prog="ff-bench", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument(
        "--info",
        "-i",
        const="all",
        nargs="?",
        choices=["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
    )
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    return parser


def _hydra_page(flags: argparse.Namespace) -> int:
    """Let Hydra print what it prints well: help, configurations, search path, tab completion."""
    from hydra._internal.utils import get_args_parser

    with session(flags.config_dir) as hydra, sentences(hydra, flags.overrides):
        if flags.help:
            hydra.app_help(config_name=CONFIG, args_parser=get_args_parser(), args=flags)
        elif flags.hydra_help:
            hydra.hydra_help(config_name=CONFIG, args_parser=get_args_parser(), args=flags)
        elif flags.cfg:
            words = offer_policies(flags.overrides)
            hydra.show_cfg(CONFIG, words, flags.cfg, package=flags.package, resolve=flags.resolve)
        elif flags.info:
            hydra.show_info(flags.info, config_name=CONFIG, overrides=flags.overrides)
        else:
            hydra.shell_completion(config_name=CONFIG, overrides=flags.overrides)
    return 0
