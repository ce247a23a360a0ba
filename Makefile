# `make help` lists the targets. Each makes .venv first where it is needed; VENV=, PYTHON= and WORKERS= may be given.
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
# Without a GPU the pinned torch is a small download; with one, pip takes the newest.
CONSTRAINTS := $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints.txt)
IN := $(VENV)/bin

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format format-check lint types bench bench-golden bench-speed docs mutate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## create .venv and install alignzoo with what its development needs

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(IN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev]'
	touch $@

demo: setup ## train four algorithms on a task whose optimum is known and compare them (minutes)
	$(IN)/alignzoo bench seeds=1 folder=runs/demo

test: setup ## the tests
	$(IN)/python -m pytest -n $(WORKERS) --durations=10

check: format-check lint types test ## what CI runs: format, lint, types, tests

format: setup ## rewrite the code in the house format
	$(IN)/ruff format .
	$(IN)/ruff check --fix .

format-check: setup ## is the code in the house format?
	$(IN)/ruff format --check .

lint: setup ## ruff
	$(IN)/ruff check .

types: setup ## mypy
	$(IN)/mypy alignzoo plugins

bench: setup ## the comparison over three seeds
	$(IN)/alignzoo bench seeds=3 folder=runs/bench

bench-golden: setup ## every suite again, into benchmarks/results (an hour on two cores)
	$(IN)/python -m benchmarks.golden

bench-speed: setup ## the speed tables beside TRL, rows that are missing: PAIRS=pairs.jsonl.gz TEXTS=texts.jsonl.gz (an hour)
	@test -f "$(PAIRS)" && test -f "$(TEXTS)" || { echo "give PAIRS= and TEXTS=, JSON Lines: see benchmarks/speed/README.md"; exit 2; }
	$(IN)/python -m benchmarks.speed.plan "$(PAIRS)" "$(TEXTS)" --work build/speed
	$(IN)/python -m benchmarks.speed.linear
	$(IN)/python -m benchmarks.speed.profile build/speed/hh-1M build/speed/hh-15M
	$(IN)/python -m benchmarks.speed.page

docs: setup ## the documentation as a site in build/docs
	$(IN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo build/docs/index.html

mutate: setup ## does a test fail for every broken formula in the list?
	$(IN)/python tests/mutate.py

clean: ## remove what was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
