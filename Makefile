# What a developer does with a checkout. `make help` lists it; every target does its own set-up first.

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
AREA ?=
ARGS ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup test test-vm gitea unit lint fmt lock demo pictures bench fuzz relay clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## Debian packages, .venv, locked dependencies (all of it done by the other targets too)
	@$(PYTHON) tools/bootstrap.py

test: lint unit  ## set-up, lint, types, import contracts and every test

unit: setup  ## the tests alone; ARGS="-k name" chooses
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup $(ARGS)

test-vm: setup  ## the tests that need a microVM: here, or in a machine that is emulated for them (as root, 12 minutes at most)
	-@$(PYTHON) tools/bootstrap.py --vm
	$(BIN)/python tools/test_vm.py

gitea:  ## build the forge of the git gate's tests, once, in some minutes (Go and a C compiler); without it they are skipped
	$(PYTHON) tools/make_gitea.py

lint: setup  ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: setup  ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## pin the newest dependencies that pyproject.toml and requirements/dev.in allow
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-header --universal \
	    --python-version 3.11 pyproject.toml requirements/dev.in --output-file requirements/dev.txt

demo: setup  ## run a real agent in a bottle on a repository that the demo brings along
	$(BIN)/bot-bottle provider install claude
	PATH="$(subst $(eval ) ,:,$(wildcard $(CURDIR)/build/gitleaks/v*)):$$PATH" $(BIN)/bot-bottle demo

pictures: setup  ## make the documents' pictures of the inbox, from bottles that run for it
	@$(PYTHON) tools/bootstrap.py --pictures
	$(BIN)/bot-bottle provider install claude
	$(BIN)/python tools/pictures.py

bench: setup  ## measure; AREA=start|egress|... chooses, ARGS=--quick for a short try
	-@$(PYTHON) tools/bootstrap.py --bench
	$(BIN)/python bench/run.py $(AREA) $(ARGS)

fuzz: setup  ## search for hostile input that breaks something, a minute each; ARGS="--seconds 600 --target 'TLS hellos'"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	$(BIN)/python tools/fuzz.py $(ARGS)

relay: setup  ## build the door's relay for microVMs again; ARGS=--check compares only
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/relay.txt
	$(BIN)/python tools/make_relay.py $(ARGS)

clean:  ## remove what the other targets made
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
