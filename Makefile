# tuneloop: `make demo` and `make test` do all their own set-up. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A GPU's driver brings nvidia-smi; DEVICE=cpu or DEVICE=gpu overrides what is found.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(DEVICE)
ONCE ?=
# Tests beside each other; files that share an engine stay on one worker. 0: one after the other.
TEST_WORKERS ?= 2
# More words for pytest, such as "--base-seed 2": the embedded base with other weights, which no test may mind.
PYTEST_ARGS ?=

.PHONY: help demo test test-fast bench lint format install lock check-gpu clean

help:
	@echo "make demo         install, build the embedded base, fine-tune, serve, compare (ONCE=1: end after the comparison)"
	@echo "make test         install, then all tests, on the real engine and in the real browser (times: build/tests.xml)"
	@echo "make test-fast    the tests that need neither engine nor browser"
	@echo "make bench        ratios against peers, measured here and now (half an hour)"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff format the code"
	@echo "make install      only the installation, into .venv (DEVICE=cpu|gpu)"
	@echo "make lock         pin every package again"
	@echo "make check-gpu    whether the GPU's packages make an engine that starts, without a GPU (10 GB, removed again)"
	@echo "make clean        remove .venv and the caches"

demo: $(STAMP)
	$(BIN)/tuneloop demo $(if $(ONCE),--once)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --durations=40 --durations-min=5 --junitxml=build/tests.xml $(PYTEST_ARGS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not engine and not browser"

bench: $(STAMP)
	$(BIN)/python -m benchmarks.cleaning
	$(BIN)/python -m benchmarks.trl_sft
	$(BIN)/python -m benchmarks.chat_beside_training
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.adapters_mixed

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

$(STAMP): requirements/$(DEVICE).txt pyproject.toml requirements/install.sh
	rm -f $(VENV)/.installed-*
	PYTHON=$(PYTHON) sh requirements/install.sh $(VENV) $(DEVICE)
	touch $@

lock:
	sh requirements/lock.sh $(BIN)/uv

check-gpu:
	PYTHON=$(PYTHON) sh requirements/check_gpu.sh

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
