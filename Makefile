# `make help` lists the targets. Each makes .venv first where it is needed; VENV=, PYTHON= and WORKERS= may be given.
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 3
# What is installed is what was tested, build environments included. Torch is open where there is a GPU, whose driver decides.
CPU := $(if $(shell command -v nvidia-smi 2>/dev/null),,constraints-cpu.txt)
CONSTRAINTS ?= constraints.txt $(CPU)
TORCH := '^(torch|triton|nvidia-.*|cuda-.*)=='
IN := $(VENV)/bin

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-newest test-oldest check constraints format format-check lint types bench bench-golden bench-speed \
	bench-gpu gpu-bundle docs mutate torture clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## create .venv and install alignzoo with what its development needs

# By the environment, because older releases of pip pass no option on to build environments, and since 25.3 these have their own.
$(VENV)/installed: pyproject.toml setup.py $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT="$(CONSTRAINTS)" PIP_BUILD_CONSTRAINT="$(CONSTRAINTS)" \
		$(IN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup ## train four algorithms on a task whose optimum is known and compare them (minutes)
	$(IN)/alignzoo bench seeds=1 folder=runs/demo

test: setup ## the tests
	$(IN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10

test-newest: ## the tests with the newest release of everything but, without a GPU, torch
	rm -rf build/newest
	$(MAKE) test VENV=build/newest CONSTRAINTS="$(CPU)"

# The tools stay as they are pinned. What old releases deprecate is shown, but no error: it was mended in newer ones.
test-oldest: setup ## the tests with the oldest releases that pyproject.toml allows, but torch as above
	rm -rf build/oldest build/floors.txt
	mkdir -p build
	$(IN)/uv pip compile --quiet --python $(IN)/python --resolution lowest-direct --extra serve --extra text --no-annotate --no-header \
		--constraint constraints-cpu.txt pyproject.toml --output-file build/floors.txt
	awk -F '==' 'NR == FNR { floor[$$1]; print; next } !($$1 in floor)' build/floors.txt constraints.txt \
		| grep -vE $(TORCH) > build/oldest.txt
	$(MAKE) test VENV=build/oldest CONSTRAINTS="build/oldest.txt $(CPU)" \
		PYTEST_ADDOPTS="-W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning"

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

constraints: setup ## pin today's newest releases in constraints.txt; commit it once `make check` passes with them
	mkdir -p build
	$(IN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --extra reasoning --no-annotate --no-header \
		--constraint constraints-cpu.txt pyproject.toml --output-file build/newest.txt
	{ grep '^#' constraints.txt; grep -vE $(TORCH) build/newest.txt; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

gpu-bundle: setup ## what a GPU machine without a network lacks, as wheels in .gpu (TARGET=3.12)
	$(IN)/python -m benchmarks.gpu.bundle make .gpu

bench-gpu: ## on a GPU: its tests, and the tables beside TRL, in ten minutes (SMALL=1 rehearses it on a CPU)
	PYTHON="$${PYTHON:-$(if $(wildcard $(IN)/python),$(IN)/python,$(PYTHON))}" benchmarks/gpu/run.sh

docs: setup ## the documentation as a site in build/docs
	$(IN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo build/docs/index.html

mutate: setup ## does a test fail for every broken formula in the list?
	$(IN)/python tests/mutate.py

torture: setup ## 200 kills, torn files, 2,000 sets of overrides, and a death before each change to a file (an hour on two cores)
	$(IN)/python -m pytest -n $(WORKERS) -m torture

clean: ## remove what was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
