# Every target sets up what it needs, on a bare Debian with Python 3.11 too. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
SOURCES := gateway retrieval embedding inference admin migrations tests benchmarks
PYTEST := $(BIN)/python -m pytest

# Tests make databases and journals by the hundred: in memory where there is room for them, as a disk has other things to do.
SCRATCH = $(shell df --output=avail,target /dev/shm 2>/dev/null | awk '$$1 > 2e6 && $$2 == "/dev/shm" { print $$2; exit }')

# Three at a time for two cores, as a third of the time is waiting: PROCESSES=8 on a larger machine, PROCESSES=0 for one after another.
# What is narrowed down or looked at runs in one piece, as each process starts servers of its own.
PROCESSES := 3
PARALLEL = $(if $(filter tests/% -k% -m% -n% -s -x --pdb --lf --ff --sw,$(ARGS)),,--numprocesses=$(PROCESSES) --dist=worksteal)

# Stamps lie inside the environment: they vanish with it, and a second `make serve` has nothing to do.
SERVE_READY := .venv/.ready-serve
DEV_READY := .venv/.ready-dev
LEAN_READY := .tools/lean/.ready
INTEGRATIONS_READY := .tools/integrations/.ready
STORES_READY := .tools/stores/.ready

.PHONY: help setup serve test test-compiled check static format lint types layers fmt bench bench-idle bench-canaries bench-routing bench-cache bench-lookup bench-embedding bench-retrieval bench-peers bench-predictions bench-oip bench-engines bench-tenants shape test-engines test-integrations faults soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(DEV_READY) ## install everything a developer needs into .venv

serve: $(SERVE_READY) ## start the server; ARGS="--port 5000" passes options on
	@deploy/setup.sh compile .venv
	@exec $(BIN)/penstock serve $(ARGS)

test: $(DEV_READY) ## run the whole suite; ARGS="tests/gateway -k keys" narrows it
	@deploy/setup.sh system nodejs npm redis-server
	@$(if $(ARGS),,deploy/setup.sh compile .venv)
	@$(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(PYTEST) $(PARALLEL) $(ARGS)

check: static test ## everything that a change must pass: format, lint, types, layers, tests

static: format lint types layers

format: $(DEV_READY)
	@$(BIN)/ruff format --check $(SOURCES)

lint: $(DEV_READY)
	@$(BIN)/ruff check $(SOURCES)

types: $(DEV_READY)
	@$(BIN)/mypy $(SOURCES)

layers: $(DEV_READY)
	@$(BIN)/lint-imports --no-cache --no-logo

fmt: $(DEV_READY) ## format the code and mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: $(DEV_READY) $(LEAN_READY) ## measure the gateway against nginx; ARGS="--write" renews benchmarks/RESULTS.md
	@deploy/setup.sh compile .tools/lean
	@deploy/setup.sh system nginx-light:nginx wrk
	@$(BIN)/python -m benchmarks.overhead --python .tools/lean/bin/python $(ARGS)

bench-idle: $(DEV_READY) $(LEAN_READY) ## processor time and memory of a server that nobody asks; ARGS=SECONDS
	@deploy/setup.sh compile .tools/lean
	@$(BIN)/python -m benchmarks.idle $(ARGS)

bench-routing: $(DEV_READY) ## simulate a fleet under each routing strategy; ARGS="--write" renews benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.routing $(ARGS)

bench-canaries: $(DEV_READY) ## what a regression costs until its canary is rolled back, and how many go back for nothing; ARGS="--write"
	@$(BIN)/python -m benchmarks.canaries $(ARGS)

bench-cache: $(DEV_READY) ## measure the cache by meaning on pairs of questions; ARGS="--write" renews benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.semantic_cache $(ARGS)

bench-lookup: $(DEV_READY) ## what a look-up in the cache by meaning costs among many questions; ARGS="--write" renews benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.cache_lookup $(ARGS)

bench-embedding: $(DEV_READY) ## the embedding engine beside sentence-transformers and plain ONNX Runtime, on one thread
	@deploy/setup.sh encoders
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.encoders $(ARGS)

bench-retrieval: $(DEV_READY) ## how well questions find manuals, by words, meaning and both; the first run embeds for half an hour
	@$(BIN)/python -m benchmarks.finding $(ARGS)

bench-peers: $(DEV_READY) $(LEAN_READY) ## measure Penstock side by side with other gateways; ARGS="--write" renews benchmarks/RESULTS.md
	@deploy/setup.sh compile .tools/lean
	@deploy/setup.sh system nginx-light:nginx wrk nodejs npm
	@deploy/setup.sh peers
	@$(BIN)/python -m benchmarks.peers --python .tools/lean/bin/python $(ARGS)

bench-predictions: $(DEV_READY) $(LEAN_READY) ## measure predictions beside FastAPI, MLServer, BentoML, MLflow; ARGS="--write" renews benchmarks/RESULTS.md
	@deploy/setup.sh compile .tools/lean
	@deploy/setup.sh scorers
	@$(BIN)/python -m benchmarks.predictions --python .tools/lean/bin/python $(ARGS)

bench-oip: $(DEV_READY) ## how much of the Open Inference Protocol Penstock, MLServer and KServe speak; ARGS="--write"
	@deploy/setup.sh scorers
	@$(BIN)/python -m benchmarks.conformance $(ARGS)

bench-engines: $(DEV_READY) ## recall under filters and searches per CPU-second, by engine, beside raw libraries; ARGS="--rows 100000 --write"
	@deploy/setup.sh vectors
	@$(BIN)/python -m benchmarks.engines $(ARGS)

bench-tenants: $(DEV_READY) ## a search within one tenant: in a declared store, by a filter, in a store of its own; ARGS="--cache FOLDER --write"
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.tenants $(ARGS)

shape: $(DEV_READY) ## print what the code looks like: longest file and function, import cycles, globals
	@$(BIN)/python -m benchmarks.shape $(ARGS)

test-engines: $(DEV_READY) ## client → Penstock → a real vLLM on the CPU (installs vLLM, minutes)
	@$(PYTEST) -m engines $(ARGS)

test-integrations: $(INTEGRATIONS_READY) $(STORES_READY) ## LangChain, llm → Penstock → LiteLLM, scripted providers; Presidio, Langfuse, Feast, Ray Data, sentence-transformers, Chroma, Milvus; in environments of their own
	@deploy/setup.sh clients
	@deploy/setup.sh mlflow
	@deploy/setup.sh feast
	@deploy/setup.sh ray
	@deploy/setup.sh torch
	@deploy/setup.sh store-servers
	@deploy/setup.sh system redis-server
	@.tools/integrations/bin/python -m pytest -m integrations tests/integrations $(ARGS)
	@$(if $(ARGS),,.tools/torch/bin/python -m pytest -m integrations tests/integrations/test_sentence_transformers.py)
	@$(if $(ARGS),,.tools/stores/bin/python -m pytest -m integrations tests/integrations/test_stores.py tests/retrieval/test_engines.py)

faults: $(DEV_READY) ## play everything that a provider may do wrong, and print what came of it; ARGS="500 stream" narrows it
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(DEV_READY) ## the tests that run for minutes: memory over many requests, a thousand streams
	@deploy/setup.sh system redis-server
	@$(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(PYTEST) -m soak --hypothesis-profile=search $(ARGS)

clean: ## remove the environment and every cache, never the data folder
	rm -rf .venv .tools dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SERVE_READY): pyproject.toml uv.lock
	@deploy/setup.sh serve
	@touch $@

test-compiled: $(DEV_READY) ## the suite where what is compiled runs in the tests' own process, too, and not in servers alone
	@deploy/setup.sh compile .venv
	@PENSTOCK_TEST_COMPILED=1 $(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(PYTEST) $(PARALLEL) $(ARGS)

# Tools of the developer's environment load into the server where they are found (structlog takes rich, and a third of a
# second for it): what is measured runs without them, as it does for users.
$(LEAN_READY): pyproject.toml uv.lock
	@deploy/setup.sh lean
	@touch $@

$(STORES_READY): pyproject.toml uv.lock
	@deploy/setup.sh stores
	@touch $@

$(INTEGRATIONS_READY): pyproject.toml uv.lock
	@deploy/setup.sh integrations
	@touch $@

$(DEV_READY): pyproject.toml uv.lock
	@deploy/setup.sh dev
	@touch $(SERVE_READY) $@
