# Two commands for a newcomer: `make serve` and `make test`. Each sets up what it needs.
PYTHON ?= python3.11
PORT ?= 8080
MODEL ?=
VENV := .venv
BIN := $(VENV)/bin
# The live oracles need torch: a venv of their own, so that nothing else can lean on it.
ORACLES := .venv-oracles
# llama.cpp built for this machine, which benchmarks/compare.py measures beside us.
PEER := .venv-bench
# Without it llama.cpp faults on AMX when GCC 12 has built it; the header says why.
LLAMA_FLAGS := CXXFLAGS="-include $(CURDIR)/benchmarks/gcc_amx.h"
NATIVE := $(wildcard native/*.cc native/*.h) CMakeLists.txt
PYTEST := -m pytest -q
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_QEMU ?= qemu-aarch64

.PHONY: help serve test check bench bench-peer sanitize test-neon test-oracles test-llama test-training
.PHONY: native clean

help:
	@echo "make serve          start the server on the embedded model (MODEL=file.gguf PORT=8080)"
	@echo "make test           all tests that need no torch"
	@echo "make check          ruff and mypy"
	@echo "make bench          speed of kernels, sampling, model, server, and beside llama.cpp's"
	@echo "make bench-peer     build that llama.cpp for this machine (into $(PEER): minutes)"
	@echo "make sanitize       the native core under AddressSanitizer and UBSan"
	@echo "make test-neon      the kernels for ARM, cross-built and run under QEMU"
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
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/rocmforge bench $(MODEL) -p 256 -n 32 --batch 1,4,16
	$(BIN)/python benchmarks/serve.py $(MODEL)
	@if [ -e $(PEER)/.ready ]; then $(BIN)/python benchmarks/compare.py; \
	else echo "No comparison with llama.cpp: make bench-peer builds it."; fi

bench-peer: $(PEER)/.ready

sanitize: $(VENV)/.build
	PATH=$(CURDIR)/$(BIN):$$PATH cmake -S . -B build/sanitize -G Ninja -DROCMFORGE_SANITIZE=ON
	PATH=$(CURDIR)/$(BIN):$$PATH cmake --build build/sanitize
	build/sanitize/native_tests

# The second processor lacks the dot products: only the portable kernels may run there.
test-neon: $(VENV)/.build
	@command -v $(ARM_CXX) >/dev/null && command -v $(ARM_QEMU) >/dev/null || { \
	  echo "make test-neon needs $(ARM_CXX) and $(ARM_QEMU):" \
	    "apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	PATH=$(CURDIR)/$(BIN):$$PATH cmake -S . -B build/neon -G Ninja -DROCMFORGE_TESTS=ON \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(ARM_CXX) -DCMAKE_EXE_LINKER_FLAGS=-static
	PATH=$(CURDIR)/$(BIN):$$PATH cmake --build build/neon
	$(ARM_QEMU) -cpu max build/neon/native_tests neon
	$(ARM_QEMU) -cpu cortex-a57 build/neon/native_tests

test-oracles: $(ORACLES)/.ready
	$(ORACLES)/bin/python $(PYTEST) -m oracle tests

test-llama: $(ORACLES)/.llama
	$(ORACLES)/bin/python $(PYTEST) -m llama_cpp tests

test-training: $(ORACLES)/.ready
	$(ORACLES)/bin/python $(PYTEST) -m training tests

native: $(VENV)/.dev

clean:
	rm -rf $(VENV) $(ORACLES) $(PEER) build

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
	$(LLAMA_FLAGS) $(ORACLES)/bin/pip install -q --no-cache-dir "llama-cpp-python>=0.3.16"
	touch $@

# From source and not from pip's cache, where a build with other flags may lie.
$(PEER)/.ready: benchmarks/gcc_amx.h
	$(PYTHON) -m venv $(PEER)
	$(LLAMA_FLAGS) CMAKE_ARGS="-DGGML_NATIVE=ON" $(PEER)/bin/pip install -q --no-cache-dir \
		--no-binary llama-cpp-python "llama-cpp-python>=0.3.16"
	touch $@
