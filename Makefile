# Two commands for a newcomer: `make serve` and `make test`. Each sets up what it needs.
PYTHON ?= python3.11
PORT ?= 8080
MODEL ?=
VENV := .venv
BIN := $(VENV)/bin
# The live oracles need torch: a venv of their own, so that nothing else can lean on it.
ORACLES := .venv-oracles
NATIVE := $(wildcard native/*.cc native/*.h) CMakeLists.txt
PYTEST := -m pytest -q

.PHONY: help serve test check bench sanitize test-oracles test-llama test-training native clean

help:
	@echo "make serve          start the server on the embedded model (MODEL=file.gguf PORT=8080)"
	@echo "make test           all tests that need no torch"
	@echo "make check          ruff and mypy"
	@echo "make bench          speed of the kernels and of the embedded model"
	@echo "make sanitize       the native core under AddressSanitizer and UBSan"
	@echo "make test-oracles   ask transformers again (installs torch into $(ORACLES))"
	@echo "make test-llama     ask llama.cpp again (builds it into $(ORACLES): many minutes)"
	@echo "make test-training  train for a minute; the loss must fall"

serve: $(VENV)/.serve
	$(BIN)/rocmforge serve $(MODEL) --port $(PORT)

test: $(VENV)/.dev
	$(BIN)/python $(PYTEST) -m "not oracle and not llama_cpp and not training" tests

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.serve
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/rocmforge bench $(MODEL) -p 256 -n 32 --batch 1,4,16

sanitize: $(VENV)/.build
	PATH=$(CURDIR)/$(BIN):$$PATH cmake -S . -B build/sanitize -G Ninja -DROCMFORGE_SANITIZE=ON
	PATH=$(CURDIR)/$(BIN):$$PATH cmake --build build/sanitize
	build/sanitize/native_tests

test-oracles: $(ORACLES)/.ready
	$(ORACLES)/bin/python $(PYTEST) -m oracle tests

test-llama: $(ORACLES)/.llama
	$(ORACLES)/bin/python $(PYTEST) -m llama_cpp tests

test-training: $(ORACLES)/.ready
	$(ORACLES)/bin/python $(PYTEST) -m training tests

native: $(VENV)/.dev

clean:
	rm -rf $(VENV) $(ORACLES) build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: $(VENV)/bin/python
	$(BIN)/pip install -q "scikit-build-core>=0.11" "nanobind>=2.4" cmake ninja
	touch $@

# Bytecode is compiled at once: where Python may not write it, every start would compile it again.
$(VENV)/.serve: $(VENV)/.build pyproject.toml $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation -e .
	$(BIN)/python -m compileall -q rocmforge
	touch $@

$(VENV)/.dev: $(VENV)/.build pyproject.toml $(NATIVE)
	$(BIN)/pip install -q --no-build-isolation -e ".[dev]"
	$(BIN)/python -m compileall -q rocmforge
	touch $@ $(VENV)/.serve

$(ORACLES)/.ready: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/pip install -q "scikit-build-core>=0.11" "nanobind>=2.4" cmake ninja
	$(ORACLES)/bin/pip install -q --no-build-isolation -Cbuild-dir=build/oracles -e ".[dev,oracles]"
	touch $@

$(ORACLES)/.llama: $(ORACLES)/.ready
	$(ORACLES)/bin/pip install -q "llama-cpp-python>=0.3.16"
	touch $@
