# Two commands for a newcomer: `make serve` and `make test`. Each sets up what it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard native/*.cc native/*.h) CMakeLists.txt
PORT ?= 8080

.PHONY: serve test check bench native clean

serve: $(VENV)/.serve
	$(BIN)/rocmforge serve --port $(PORT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not oracle and not training" tests

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

native: $(VENV)/.dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: $(VENV)/bin/python
	$(BIN)/pip install -q "scikit-build-core>=0.11" "nanobind>=2.4" cmake ninja
	touch $@

$(VENV)/.serve: $(VENV)/.build pyproject.toml $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.build pyproject.toml $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation -e ".[dev]"
	touch $@ $(VENV)/.serve
