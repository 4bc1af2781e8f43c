# Every target makes what it needs: a virtual environment in .venv, from the lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: demo test check format e2e bench docs deb lock clean

demo: $(VENV)/.runtime
	$(BIN)/dockd demo

test: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	packaging/check-units

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Debian in QEMU with USB hot-plug, booted twice side by side; says which packages it needs.
e2e: $(VENV)/.dev deb
	$(BIN)/pytest tests/e2e -n 2 --dist worksteal --timeout 1200 --durations 15

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

# Pages that are drawn from the code; tests compare them.
docs: $(VENV)/.dev
	$(BIN)/python -m tests.generated_docs

# dist/dockd_VERSION_amd64.deb for Debian 12.
deb: $(VENV)/.runtime
	packaging/build-deb $(BIN)/python

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --require-hashes
INSTALL_DOCKD := $(PIP) install --no-deps --no-build-isolation --editable .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dockd needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv is missing; on Debian: sudo apt install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) -r requirements.lock
	$(INSTALL_DOCKD)
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(INSTALL) -r requirements-dev.lock
	$(INSTALL_DOCKD)
	touch $@

# Renew the lock files. They name versions and hashes, and no registry.
LOCK := $(VENV)/lock/bin/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --upgrade
lock: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip --quiet install pip-tools
	$(LOCK) --extra build --output-file requirements.lock pyproject.toml
	$(LOCK) --extra build --extra dev --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/peers/node_modules
