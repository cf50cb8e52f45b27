# Holdfast's commands. `make` lists them.
#
# Needed: make, and Python 3.11 or newer with venv and pip. Everything else is installed into
# .venv, pinned by hash (requirements/*.lock), and again only when the pins change.
#
#   make test PYTHON=python3.12     use this interpreter
#   make test ARGS='-k lease -x'    hand arguments to pytest (or to demo, bench, crash, failover)
#   make lock LOCK=--upgrade        move every pin to its newest version

PYTHON ?=
ARGS ?=
LOCK ?=

export PYTHON
export UV_PYTHON_DOWNLOADS = never
# Without bytecode caches every process starts two to three times slower, which tests and
# benchmarks would measure.
unexport PYTHONDONTWRITEBYTECODE
# The tools must see .venv and nothing else.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock' $(LOCK)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench crash crash-agents failover docs lock format clean setup-uv setup-core setup-dev

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: setup-core ## see a task survive a crash
	@$(BIN)/holdfast demo $(ARGS)

test: check ## check, then run every test
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: setup-dev ## formatting, lint, types and layers
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-logo --no-cache

bench: setup-dev ## measure on this machine
	@$(BIN)/python -m holdfast.bench $(ARGS)

crash: setup-dev ## kill processes at random and check that nothing is lost
	@$(BIN)/python -m holdfast.testing.campaign $(ARGS)

failover: setup-dev ## kill PostgreSQL servers and workers under load
	@$(BIN)/python -m holdfast.testing.failover $(ARGS)

crash-agents: setup-dev ## the same with agents, over the real wire
	@PYTHONPATH=tests $(BIN)/python -m support.agent_campaign $(ARGS)

format: setup-dev ## format, and fix what ruff can fix
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

docs: setup-dev ## write the reference from docstrings, help texts and state tables
	@$(BIN)/python scripts/reference.py

lock: setup-uv ## resolve requirements/*.lock anew from pyproject.toml
	@echo uv | $(COMPILE) - --output-file requirements/bootstrap.lock >/dev/null
	@$(COMPILE) --all-extras --group dev pyproject.toml --output-file requirements/dev.lock >/dev/null
	@if grep -nE '://|^ *-(-index-url|-extra-index-url|-find-links|i|f) ' requirements/*.lock; then \
		echo 'make lock: a lock file names a host or a path; it must not' >&2; exit 1; fi

clean: ## remove .venv, caches and build output
	@rm -rf .venv .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

setup-uv setup-core setup-dev: setup-%:
	@sh scripts/setup.sh $*
