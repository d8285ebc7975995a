# `make help` lists what there is. Each target creates the virtual environment if need be; a second run installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo lab test test-lowest lint claims family fashion pixels gpu book test-browser
help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: $(READY)  ## train FM, MF and iMF on digits and check the claims: 4 to 6 minutes
	mkdir -p runs/demo
	OMP_NUM_THREADS=1 $(BIN)/papermill --log-output notebooks/00_quickstart.ipynb runs/demo/00_quickstart.ipynb -p out runs/demo
	@echo "executed notebook: runs/demo/00_quickstart.ipynb"
	@echo "figure:            runs/demo/figure.png"

test: $(READY) lint  ## ruff, types, spelling, pytest, and every notebook with its assertions: about 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax notebooks tests

# the core: not the notebooks, nor what concerns this repository alone
test-lowest: .venv-lowest/.ready  ## the core's tests on the lowest versions that pyproject.toml promises: 15 minutes
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder tests \
		--ignore tests/test_project.py --ignore tests/test_book.py

.venv-lowest/.ready: pyproject.toml tests/lowest.py
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install -q -c .venv-lowest/constraints.txt -e ".[notebooks,export,shards]" \
		datasets pytest pytest-xdist pyyaml scipy setuptools webdataset
	touch $@

EXPERIMENTS := $(addprefix experiments.,stability knobs digits quality guidance ablation tangent times)
claims: $(READY)  ## run all experiments behind CLAIMS.md again, except Fashion-MNIST's: three to four hours
	for command in $(EXPERIMENTS) report.behaviour report.claims; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.$$command || exit 1; done

family: $(READY)  ## MF, iMF and their relatives on the same draws: 20 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.experiments.family

SEEDS ?= 1
LONGER ?= 0
fashion: $(READY)  ## Fashion-MNIST from scratch: about four hours; SEEDS=3 LONGER=1: several trainings, and longer ones
	OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.experiments.fashion --seeds $(SEEDS) --longer $(LONGER)

pixels: $(READY)  ## u- against x-prediction, in the plane and on Fashion-MNIST's pixels: about an hour and a half
	OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.experiments.pixels

gpu: $(READY)  ## does training work on this machine's GPUs, and how fast? (without one: the same at toy size)
	$(BIN)/python -m benchmarks.acceptance

book: $(VENV)/.ready-book  ## all lessons and docs as a site, with the live page: two minutes, needs npm
	OMP_NUM_THREADS=1 $(BIN)/python docs/assets.py
	$(BIN)/sphinx-build -b html -E -W --keep-going -q docs docs/_build/html
	$(BIN)/python docs/one_file.py
	$(BIN)/python docs/check.py
	@echo "the book: docs/_build/html/index.html"

test-browser: book  ## the book and its live page, in Chromium
	$(BIN)/pytest docs/test_live.py

lint: $(READY)  ## ruff, mypy, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

lab: $(READY)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

$(VENV)/.ready-book: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs,browser]"
	touch $@

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[notebooks,dev,export]"
	touch $@
