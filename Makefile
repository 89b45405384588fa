# Penstock. `make` lists what there is to do; everything else sets .venv up first, once.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: schemathesis help demo test test-all test-clients fuzz check bench bench-gateway bench-capacity bench-judge generate clean load

BIN := .venv/bin
READY := .venv/.ready
PYTHON ?= python3.11
# onnxruntime sends usage data to its makers unless told not to.
export ORT_DISABLE_TELEMETRY := 1
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Settings: KEEP=1 leaves the demo running; PYTHON=/path/to/python3.11 names another interpreter"

demo: $(READY) ## four versions of a model through their rollouts, on real parts (under 5 minutes)
	@$(BIN)/python -m loadtest.demo $(if $(KEEP),--keep)

test: $(READY) ## all tests, with the real Envoy and Triton
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(READY) ## make test, and the long tests that every change need not wait for (marker nightly)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m ''

fuzz: $(READY) ## 100,000 mutated bodies against the gateway's transcoding (about a minute; FUZZ="--count N --seed N")
	@$(BIN)/python -m tests.lua.fuzzing $(FUZZ)

test-clients: $(READY) ## clients in eight languages against the real stack (installs what they are built with)
	@.ci/client-tools
	@$(BIN)/python -m pytest -m '' -rs tests/clients

check: $(READY) ## everything CI runs: lint, types, import rules, drift of what is generated, tests
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/check_locks.py
	@$(MAKE) test

schemathesis: $(READY) ## random requests made from /openapi.json against a whole stack: no 5xx, nothing undocumented (about 3 minutes)
	@$(BIN)/python -m tests.schemathesis

bench: $(READY) ## Penstock beside its peers: docs/benchmarks/peers.md (20 minutes and 0.5 GB of downloads; needs h2load; RESUME=1 goes on)
	@$(BIN)/python -m loadtest.bench.peers $(if $(RESUME),--resume) --write docs/benchmarks/peers.md

load: $(READY) ## load on a model, with an HTML report; starts a stack if none runs (MODEL=digits ARGS="--rate 200 --p99 50ms")
	@$(BIN)/python -m loadtest.with_stack $(or $(MODEL),digits) $(ARGS)

bench-gateway: $(READY) ## what the gateway costs per request: docs/benchmarks/gateway.md (15 minutes; needs h2load)
	@$(BIN)/python -m loadtest.bench.gateway --write docs/benchmarks/gateway.md

bench-capacity: $(READY) ## cores for a load, Envoys for a control plane: docs/benchmarks/capacity.md (5 minutes; needs h2load)
	@$(BIN)/python -m loadtest.bench.capacity --write docs/benchmarks/capacity.md

bench-judge: $(READY) ## whole rollouts simulated by the thousand: docs/benchmarks/judge.md (an hour; QUICK=1: minutes)
	@$(BIN)/python -m loadtest.bench.rollout $(if $(QUICK),--cells quick --runs 0.1 --outcomes build/bench-judge-quick.jsonl,--cells full --write docs/benchmarks/judge.md)

generate: $(READY) ## golden files and pinned requirements anew (pins are kept where they still fit)
	@$(BIN)/python -m tests.contract.regenerate
	@$(BIN)/python -m tests.envoy.regenerate
	@$(COMPILE) requirements.in -o requirements.txt
	@$(COMPILE) requirements-dev.in -o requirements-dev.txt

clean: ## remove .venv and everything that tools left behind
	@rm -rf .venv build *.egg-info clients/python/build clients/python/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt requirements-dev.txt pyproject.toml clients/python/pyproject.toml .ci/setup
	@PYTHON=$(PYTHON) .ci/setup
