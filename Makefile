# Every target sets up what it needs: `make demo` in a fresh clone is all there is to it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
PARACLE := .venv/bin/paracle
# Two processes suit two cores; each starts its own NATS and PostgreSQL at most once. Tests of one file stay together.
WORKERS ?= 2
# A stack for each of three: while the runs of one wait for a lease or a start, the others have the cores.
STACKS ?= 3
SEED ?= 1
args ?=

.PHONY: help demo up down test test-domain test-parts test-e2e test-containers chaos hiccups lint format schemas bench lock setup clean

help: ## show this list
	@printf 'make TARGET\n\n'
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with every locked dependency (all other targets do this first)
	@scripts/bootstrap

demo: setup ## start the stack, run examples/triage, print its report, stop the stack
	@$(PARACLE) demo $(args)

up: setup ## start the embedded stack and leave it running
	@$(PARACLE) up $(args)

down: setup ## stop the embedded stack
	@$(PARACLE) down $(args)

test: test-domain test-parts test-e2e ## run every test that needs no Docker engine

test-domain: setup ## test the contract; every branch of it has to be covered by these tests
	@rm -f .coverage
	@$(PY) -m coverage run -m pytest -q libs/paracle_domain $(args)
	@$(PY) -m coverage report --fail-under=100

test-parts: setup ## test the other libraries, the services and the shape of the repository
	@$(PYTEST) -q -n $(WORKERS) --dist loadfile -m 'not chaos and not containers' \
	  libs/paracle_embedded libs/paracle_chassis libs/paracle_client services tests/shape $(args)

test-e2e: setup ## test the whole system over real processes, on three stacks at once
	@$(PYTEST) -q -n $(STACKS) --dist loadfile -m 'not chaos and not containers' tests/e2e $(args)

test-containers: setup ## run the tests that need a Docker engine
	@$(PYTEST) -q -m containers libs services tests $(args)

chaos: setup ## run the long suite of kills and faults
	@$(PYTEST) -q -m chaos --timeout 1800 libs services tests $(args)

hiccups: setup ## run tests while they and their servers stand still now and then (args=PATHS SEED=1)
	@$(PYTEST) -q -m 'not chaos and not containers' --hiccups $(SEED) $(args)

lint: setup ## check format, style, types, import arrows, schemas and names
	@scripts/lint

format: setup ## format the code and mend what can be mended by itself
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format .

schemas: setup ## write the JSON Schemas and the OpenAPI document anew
	@scripts/generated --write

bench: setup ## measure, beside the floor of bare NATS and PostgreSQL (ONLY=chain,start picks)
	@ONLY='$(ONLY)' $(PY) bench $(args)

lock: setup ## resolve every dependency anew and write requirements.lock
	@scripts/lock --upgrade

clean: ## remove .venv, caches and the data of the embedded stack (stop it first)
	@rm -rf .venv .paracle .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
