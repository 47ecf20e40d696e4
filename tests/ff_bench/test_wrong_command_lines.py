"""Wrong command lines: one sentence with field and value, exit code 2, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ff_bench import cli

# words of the command line, what the sentence must contain
WRONG: list[tuple[list[str], list[str]]] = [
    # commands and flags
    (["reprot"], ["reprot", "report"]),
    (["policy"], ["policy", "report"]),
    (["--dryrun"], ["--dryrun", "--dry-run"]),
    (["--cfg", "jobs"], ["jobs", "job"]),
    (["--config-dir=nowhere"], ["--config-dir", "nowhere"]),
    (["policy=h2o", "8k"], ["8k", "key=value"]),
    (["report"], ["RUNS"]),
    (["report", "nowhere"], ["RUNS", "nowhere"]),
    (["report", ".", "ouput=x"], ["ouput", "out"]),
    (["report", "."], ["RUNS", "no finished video"]),
    (["ls"], ["models", "runs"]),
    (["ls", "polices"], ["polices", "policies"]),
    (["ls", "policies", "more"], ["more"]),
    (["ls", "runs", "nowhere"], ["nowhere"]),
    (["doctor", "please"], ["doctor", "please"]),
    # keys
    (["polcy=h2o"], ["polcy", "h2o", "policy"]),
    (["bugdet=4k"], ["bugdet", "4k", "'budget'"]),
    (["+extra=1"], ["extra", "1"]),
    (["~seed"], ["seed", "missing"]),
    (["policy.lamda=0.3"], ["policy.lamda", "0.3", "'policy.lam'"]),
    (["policy=h2o", "policy.lam=0.3"], ["policy.lam", "0.3"]),
    (["+policy.lamda=0.3"], ["policy.lamda", "policy.lam"]),
    (["protocol.sinks=1c"], ["protocol.sinks", "1c", "'protocol.sink'"]),
    (["budget.tokens=8"], ["budget.tokens", "8"]),
    (["hydra.nothing=1"], ["hydra.nothing"]),
    (["+experiment=nothing"], ["experiment", "nothing"]),
    (["runs_dir=${nothing}"], ["nothing"]),
    (["prompts=it's"], ["prompts", "it's"]),
    # choices of groups
    (["policy=future_forcin"], ["policy", "future_forcin", "'future_forcing'"]),
    (["policy=[h2o,full]"], ["policy", "[h2o,full]"]),
    (["policy={name:h2o}"], ["policy", "name:h2o"]),
    (["policy=null"], ["policy", "null"]),
    (["policy=h2o,full"], ["policy", "h2o,full", "-m"]),
    (["policy=nowhere.py"], ["policy", "nowhere.py"]),
    (["policy.name=full"], ["policy.name", "full"]),
    (["model=self_forcin"], ["model", "self_forcin", "'self_forcing'"]),
    (["model=base"], ["model", "base", "causvid"]),
    (["model=base/wan"], ["model", "base/wan", "causvid"]),
    (["model.name=self_forcing"], ["model.name", "self_forcing", "model=self_forcing"]),
    (["model.architecture=wan"], ["model.architecture", "wan"]),
    (["model.layers=2"], ["model.layers", "2"]),
    (["protocol=equel"], ["protocol", "equel", "'equal'"]),
    (["tracker=wand"], ["tracker", "wand", "none"]),
    (["metrics=[wrold]"], ["metrics", "wrold", "'world'"]),
    (["metrics=[]"], ["metrics"]),
    # budget
    (["budget=8kk"], ["budget", "8kk", "'8k'"]),
    (["budget=2GB"], ["budget", "2GB", "'2GiB'"]),
    (["budget=0"], ["budget", "=0"]),
    (["budget=-1"], ["budget", "-1"]),
    (["budget=1.5"], ["budget", "1.5"]),
    (["budget=0%"], ["budget", "0%"]),
    (["budget=101%"], ["budget", "101%"]),
    (["budget=100"], ["budget", "100", "256"]),
    (["budget=255"], ["budget", "255", "256"]),
    (["budget=null"], ["budget", "null"]),
    (["budget=true"], ["budget", "true"]),
    (["budget=[1k]"], ["budget", "[1k]"]),
    (["budget=fulll"], ["budget", "fulll", "'full'"]),
    (["-m", "policy=glob(*)", "budget=1k,2kk"], ["budget", "2kk"]),
    (["policy=full", "budget=8kk"], ["budget", "8kk"]),
    # length
    (["length=0s"], ["length", "0s"]),
    (["length=0f"], ["length", "0f"]),
    (["length=-5s"], ["length", "-5s"]),
    (["length=0.01s"], ["length", "0.01s"]),
    (["length=60"], ["length", "60", "60s"]),
    (["length=1:30"], ["length", "1:30"]),
    (["length=1441m"], ["length", "1441m"]),
    (["length="], ["length"]),
    # prompts, ids, limit, seed
    (["prompts=orbti"], ["prompts", "orbti", "'orbit'"]),
    (["prompts=nowhere.txt"], ["prompts", "nowhere.txt"]),
    (["prompts=[orbit]"], ["prompts", "[orbit]"]),
    (["limit=0"], ["limit", "=0"]),
    (["limit=-1"], ["limit", "-1"]),
    (["limit=1.5"], ["limit", "1.5"]),
    (["ids=[nope]"], ["ids", "nope"]),
    (["ids=[]"], ["ids", "[]"]),
    (["ids=[9999]"], ["ids", "9999"]),
    (["seed=abc"], ["seed", "abc"]),
    (["seed=-1"], ["seed", "-1"]),
    (["seed=2147483648"], ["seed", "2147483648"]),
    (["seed=[]"], ["seed", "[]"]),
    (["seed=[1,1]"], ["seed", "[1,1]"]),
    # the rest
    (["steps=0"], ["steps", "=0"]),
    (["steps=1001"], ["steps", "1001"]),
    (["batch=0"], ["batch", "=0"]),
    (["batch=257"], ["batch", "257"]),
    (["workers=0"], ["workers", "=0"]),
    (["dtype=fp32"], ["dtype", "fp32", "float32"]),
    (["device=gpu"], ["device", "gpu", "cuda"]),
    (["stages=[score,genrate]"], ["stages", "genrate", "'generate'"]),
    (["stages=[]"], ["stages", "[]"]),
    (["save=[videos]"], ["save", "videos", "'video'"]),
    (["save=[video]"], ["save", "[video]", "record"]),
    (["overwrite=yes"], ["overwrite", "yes", "true"]),
    (["dry_run=1"], ["dry_run", "1", "true"]),
    (["runs_dir="], ["runs_dir"]),
    # protocol
    (["protocol.position=abs"], ["protocol.position", "abs", "'absolute'"]),
    (["protocol.recent=-1"], ["protocol.recent", "-1"]),
    (["protocol.recent=1x"], ["protocol.recent", "1x"]),
    (["protocol.recent=101%"], ["protocol.recent", "101%"]),
    (["protocol.sink=3.5"], ["protocol.sink", "3.5"]),
    (["protocol.passes=dirty"], ["protocol.passes", "dirty"]),
    (["protocol.prefix=lap"], ["protocol.prefix", "lap"]),
    (["protocol.noise=upstream"], ["protocol.noise", "upstream", "mini"]),
    (["protocol.query_stride=0"], ["protocol.query_stride", "=0"]),
    (["protocol.query_stride=193"], ["protocol.query_stride", "193"]),
    (["protocol.charge_state=maybe"], ["protocol.charge_state", "maybe"]),
    (["budget=1k", "protocol.sink=5c"], ["budget", "1k", "1216"]),
    (["policy=native", "policy.rule=x"], ["policy.rule", "x"]),
    (["prompts=scenes"], ["prompts", "scenes", "mini", "orbit"]),
    (["policy.lam=abc"], ["policy.lam", "abc"]),
    (["policy.horizon=1.5"], ["policy.horizon", "1.5"]),
]
# these reach the policy's or the machine's own checks and so import torch
WRONG_FOR_TORCH: list[tuple[list[str], list[str]]] = [
    (["policy.lam=1.5"], ["policy.lam", "1.5"]),
    (["policy.lam=-0.1"], ["policy.lam", "-0.1"]),
    (["policy.horizon=0"], ["policy.horizon", "0"]),
    (["policy.tau=1.1"], ["policy.tau", "1.1"]),
    (["policy.merge=vale"], ["policy.merge", "vale", "value"]),
    (["device=cuda:99"], ["device", "cuda:99", "cpu"]),
]


def _check(words: list[str], parts: list[str], folder: Path, errors: str, code: int) -> None:
    assert code == 2, (words, errors)
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("ff-bench: ")
    for part in parts:
        assert part in lines[0], (part, lines[0])
    assert list(folder.iterdir()) == []


def test_there_are_at_least_forty() -> None:
    assert len(WRONG) + len(WRONG_FOR_TORCH) >= 40


@pytest.mark.parametrize(
    ("words", "parts"), [*WRONG, *WRONG_FOR_TORCH], ids=lambda value: " ".join(value)[:60]
)
def test_one_sentence_and_nothing_written(
    words: list[str], parts: list[str], clean: Path, weights: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(words)
    captured = capsys.readouterr()
    assert captured.out == ""
    _check(words, parts, clean, captured.err, code)


@pytest.mark.parametrize("words", [["polcy=h2o"], ["budget=8kk"], ["-m", "policy=h2o,nope"]])
def test_the_script_says_the_same_without_torch(words: list[str], clean: Path) -> None:
    program = (
        "import sys; from ff_bench.cli import main; code = main(); "
        "print('torch' in sys.modules, 'pandas' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "False False\n"
    _check(words, [], clean, done.stderr, done.returncode)


def test_the_first_wrong_job_of_a_sweep_stops_it_before_the_first_job(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-m", "policy=h2o,full", "budget=1k,100", "length=6s"]) == 2
    assert "budget=100" in capsys.readouterr().err
    assert list(clean.iterdir()) == []


def test_a_wrong_file_of_prompts(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {
        "empty.txt": b"", "text.txt": b"A cat on a mat\n", "control.txt": b"orbit\x07\n",
        "latin.txt": b"orbit \xff\n",
        "bad.jsonl": b'{"prompt": "orbit"}\n[1\n', "bad.csv": b"id,words\n1,orbit\n",
        "sum.txt": b"# sha256: 00\norbit\n",
    }  # fmt: skip
    for name, content in contents.items():
        (clean / name).write_bytes(content)
        assert cli.main([f"prompts={name}"]) == 2, name
        errors = capsys.readouterr().err
        assert len(errors.splitlines()) == 1, errors
        assert f"prompts={name}" in errors
    assert {path.name for path in clean.iterdir()} == set(contents)
