# Everything a person or CI runs, from a fresh clone on. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One stamp for what the node needs, one for what its tests need; both are out of date when pyproject.toml changes.
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
# Decoders that pydicom, as the peer of a benchmark, needs for JPEG Lossless: beside the node's installation, not in it.
BENCH := $(VENV)/bench

.PHONY: help setup demo test lint lock sbom audit format system clean bench faults soak hostile fuzz

help: ## list the targets
	grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(DEV) ## make .venv with everything for work on the node

demo: $(RUNTIME) ## one real chest radiograph through the node; results in demo-out/
	$(BIN)/scp-node demo $(ARGS)

# Most of what takes long is waiting: for leases, retries and processes of other programs.
WORKERS ?= 3

test: $(DEV) system lint ## everything CI runs: system packages, linters, all tests (WORKERS=0 for one process)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

faults: $(DEV) system ## kill processes at random, three runs on SQLite and three on PostgreSQL (20-40 minutes)
	$(BIN)/python -m tests.faults.kills --runs 3 --database sqlite $(ARGS)
	$(BIN)/python -m tests.faults.kills --runs 3 --database postgresql $(ARGS)

hostile: $(DEV) ## the corpus of hostile files against a running node; table in docs/hostile.md
	$(BIN)/python -m tests.hostile --report docs/hostile.md $(ARGS)

MINUTES ?= 10

fuzz: $(DEV) ## coverage-guided fuzzing of files and associations, MINUTES each; findings in .fuzz/
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

soak: $(DEV) ## 5,000 radiographs and 2,000 bare connects, with a verdict on what grows; plot in soak.png
	$(BIN)/python -m tests.faults.soak --plot soak.png $(ARGS)

lint: $(DEV) ## ruff, mypy and the import contracts
	echo "ruff check"; $(BIN)/ruff check --quiet
	echo "ruff format"; $(BIN)/ruff format --check
	echo "mypy"; $(BIN)/mypy
	echo "import contracts"
	report="$$($(BIN)/lint-imports)" || { echo "$$report"; exit 1; }

bench: $(DEV) $(BENCH) system ## every stage against its named peer; ARGS="--stage models" for one, --write for docs/performance.md
	$(BIN)/python -m benchmarks.run $(ARGS)

lock: $(DEV) ## write deploy/locks: what was installed and tested here, with hashes; default and without PyTorch
	$(BIN)/uv pip freeze -q --python $(BIN)/python --exclude-editable > $(VENV)/tested.txt
	compile="$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --extra postgresql"
	compile="$$compile --constraint $(VENV)/tested.txt pyproject.toml --no-header"
	$$compile -o deploy/locks/default.txt
	without=""
	for name in $$(grep -oE '^(torch|torchvision|triton|(nvidia|cuda)-[a-z0-9-]+)=' deploy/locks/default.txt | tr -d =); do
	  without="$$without --no-emit-package $$name"
	done
	$$compile $$without -o deploy/locks/cpu.txt
	wc -l deploy/locks/*.txt

sbom: $(DEV) ## what the installation is made of, C libraries included: sbom.cdx.json (CycloneDX)
	$(BIN)/python deploy/sbom.py > sbom.cdx.json
	echo "sbom.cdx.json"

audit: $(DEV) ## known weaknesses of the locked packages; says so when the index offers no such service
	$(BIN)/python deploy/audit.py deploy/locks/default.txt

format: $(DEV) ## let ruff put the code in order
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove everything that make made
	rm -rf $(VENV) demo-out build dist sbom.cdx.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "scp-node needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	echo "making $(VENV)"
	$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) -m venv failed (on Debian: apt-get install python3-venv)" >&2; exit 1; }

# pip names each package it collects: the first run downloads PyTorch and takes minutes.
PROGRESS := sed -unE 's/^(Collecting|Downloading|Installing collected packages)([: ].{0,80}).*/  \1\2/p'

# setuptools warns of every editable installation; errors are shown all the same.
QUIET := PYTHONWARNINGS=ignore

# Once, before the first start needs them.
COMPILE = echo "compiling the models for this machine"; $(BIN)/scp-node models compile > /dev/null

$(RUNTIME): pyproject.toml | $(BIN)/python
	echo "installing scp-node into $(VENV)"
	$(QUIET) $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e . | $(PROGRESS)
	$(COMPILE)
	touch $@

$(DEV): pyproject.toml | $(BIN)/python
	echo "installing scp-node and its test tools into $(VENV)"
	$(QUIET) $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[dev]' | $(PROGRESS)
	$(COMPILE)
	touch $@ $(RUNTIME)

$(BENCH): pyproject.toml | $(DEV)
	echo "installing the peers of the benchmarks into $(BENCH)"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target $(BENCH) 'python-gdcm>=3.2,<4'
	touch $@

# Real peers for the tests: DCMTK and Orthanc talk to the node, dicom3tools checks what it makes, several nodes share a
# PostgreSQL behind HAProxy.
system:
	missing=""
	command -v storescu > /dev/null || missing="$$missing dcmtk"
	command -v Orthanc > /dev/null || missing="$$missing orthanc"
	command -v dciodvfy > /dev/null || missing="$$missing dicom3tools"
	command -v chromium > /dev/null || missing="$$missing chromium fonts-noto-cjk"
	command -v initdb > /dev/null || ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || missing="$$missing postgresql"
	PATH="$$PATH:/usr/sbin" command -v haproxy > /dev/null || missing="$$missing haproxy"
	if [ -z "$$missing" ]; then exit 0; fi
	run=""
	if [ "$$(id -u)" != 0 ]; then run="sudo -n"; fi
	if ! command -v apt-get > /dev/null || ! $$run true 2> /dev/null; then
	  echo "missing:$$missing (install them, or run as root on Debian; their tests cannot run)" >&2
	  exit 0
	fi
	echo "installing$$missing"
	$$run apt-get update -qq
	$$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing > /dev/null
