# make demo | test | lab | claims | fashion | book | test-browser: each creates the virtual environment if need be; a second run installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lab lint claims fashion book test-browser
demo: $(READY)
	mkdir -p runs/demo
	OMP_NUM_THREADS=1 $(BIN)/papermill --log-output notebooks/00_quickstart.ipynb runs/demo/00_quickstart.ipynb -p out runs/demo
	@echo "executed notebook: runs/demo/00_quickstart.ipynb"
	@echo "figure:            runs/demo/figure.png"

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax notebooks tests

claims: $(READY)
	for command in experiments.stability experiments.knobs experiments.digits experiments.quality \
		experiments.guidance experiments.ablation report.behaviour report.claims; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.$$command || exit 1; done

fashion: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m toy_experiments.experiments.fashion

book: $(VENV)/.ready-book
	OMP_NUM_THREADS=1 $(BIN)/python docs/assets.py
	$(BIN)/sphinx-build -b html -E -W --keep-going -q docs docs/_build/html
	$(BIN)/python docs/one_file.py
	$(BIN)/python docs/check.py
	@echo "the book: docs/_build/html/index.html"

test-browser: book
	$(BIN)/pytest docs/test_live.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(READY)
	$(BIN)/jupyter lab notebooks

$(VENV)/.ready-book: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs,browser]"
	touch $@

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[notebooks,dev,export]"
	touch $@
