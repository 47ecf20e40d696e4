# Two commands on a bare machine: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
TORCH ?= $(shell grep '^torch==' constraints.txt)
BIN := .venv/bin
READY := .venv/.ready
SCORER := .venv-vbench
AUDITOR := .venv-audit
PINS := ff_bench/metrics/reference/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test noncommercial check scorer-env parity-vbench train-mini paper-mini torture fuzz audit wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## make .venv and install the package with its tools (once)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q '$(TORCH)'
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,slurm,tensorboard,vbench,wan,wandb]'
	touch $(READY)

demo: $(READY)  ## one 60 s video at 8k, then five policies at a budget that binds, with tables and plots
	$(BIN)/ff-bench policy=future_forcing budget=8k length=60s
	$(BIN)/ff-bench -m policy=random,sliding_window,h2o,future_forcing,full budget=1k length=24s prompts=orbit limit=1 workers=2

test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -q

noncommercial: $(READY)  ## add the code of two networks whose licences forbid commercial use (AMT, MUSIQ)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps vbench==0.1.5 pyiqa==0.1.16

check: $(READY)  ## lint and type-check
	$(BIN)/ruff check .
	$(BIN)/mypy

scorer-env: $(SCORER)/.ready  ## make .venv-vbench, where VBench's own code runs (metrics=vbench_reference)

# Each step says what failed; the next call goes on from there.
$(SCORER)/.ready: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "scorer-env: Python 3.11, 3.12 or 3.13 is needed: make scorer-env PYTHON=python3.12")'
	@test -x $(SCORER)/bin/python || $(PYTHON) -m venv $(SCORER) || { echo "scorer-env: $(PYTHON) cannot make environments (venv)" >&2; exit 1; }
	@$(SCORER)/bin/python -m pip install --disable-pip-version-check -q -c $(PINS) torch setuptools || { echo "scorer-env: torch could not be installed, see above" >&2; exit 1; }
	@$(SCORER)/bin/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -r $(PINS) || { echo "scorer-env: a package of $(PINS) could not be installed, see above" >&2; exit 1; }
	@$(SCORER)/bin/python ff_bench/metrics/reference/runner.py --check || { echo "scorer-env: VBench cannot be imported, see above" >&2; exit 1; }
	@touch $@

parity-vbench: $(READY) $(SCORER)/.ready  ## compare vbench_long with VBench's own code (CPU, half an hour); build/parity
	$(BIN)/python scripts/parity_vbench.py --out build/parity

train-mini: $(READY)  ## train the embedded model anew (a GPU, minutes; a CPU, days)
	$(BIN)/python scripts/train_mini.py

paper-mini: $(READY)  ## mini analogues of a paper's tables (two cores, some 20 minutes; FULL=--full on a GPU); runs/reports/paper-mini
	OMP_NUM_THREADS=1 $(BIN)/python scripts/paper_mini.py $(FULL)

torture: $(READY)  ## break generate, score, report and sweeps 200 times and compare with undisturbed runs (15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/torture.py --faults 200 $(SEED:%=--seed %)

fuzz: $(READY)  ## give 10,000 odd inputs to everything that reads what others wrote (SEED=1 for others)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz.py --inputs 10000 --seed $(or $(SEED),0)

audit: $(READY)  ## look the installed packages up among known vulnerabilities (needs the network)
	@test -x $(AUDITOR)/bin/pip-audit || { $(PYTHON) -m venv $(AUDITOR) && $(AUDITOR)/bin/python -m pip install --disable-pip-version-check -q 'pip-audit>=2.7'; } || { echo "audit: pip-audit could not be installed, see above" >&2; exit 1; }
	$(AUDITOR)/bin/pip-audit --progress-spinner off --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

wheel: $(READY)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove caches and builds; runs/ and .venv stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
