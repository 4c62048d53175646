# `make train` and `make test` set everything up on a machine with Python 3.11 or newer.
# Both create .venv on their first call, and install again only when a lock file has changed.

PYTHON ?= python3
VENV := .venv
# Further flags for pytest: make test PYTEST_FLAGS="-n 0 -k steps"
# make test FAST=1 leaves out the tests marked slow: the check before a commit.
PYTEST_FLAGS ?= -n 2
FAST ?=
# make lock keeps locked releases that still fit; make lock LOCK_FLAGS=--upgrade takes the newest.
LOCK_FLAGS ?=

RUN := $(VENV)/bin/python
# -qq: shows errors, hides warnings about mirrors and caches.
PIP := $(RUN) -m pip -qq --disable-pip-version-check --no-input
# Wheels only: building a package would install build tools that are not locked.
INSTALL := $(PIP) install --root-user-action ignore --only-binary :all: --require-hashes
COMPILE := $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_FLAGS)

# Prints the version, then "new" if it is new enough, then "venv" if it can create environments. Valid in Python 2, too.
PROBE := import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.version_info >= (3, 11) or sys.exit(); \
	print("new"); import ensurepip, venv; print("venv")
FOUND = $(shell $(PYTHON) -c '$(PROBE)' 2>/dev/null)
# The Python version in .venv; empty if .venv is missing, incomplete, or its Python is gone.
HELD := $(shell $(RUN) -c 'import sys, pip; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
AGAIN = make $(or $(firstword $(MAKECMDGOALS)),train) PYTHON=python3.12

.PHONY: help train test peers lock format docs clean FORCE

help:
	@echo "make train    train configs/digits.py"
	@echo "make test     check format, lint and types, then run the tests (FAST=1 skips the slow ones)"
	@echo "make peers    create .venv-peers, with programs that some tests run: MLflow, TensorBoard and others"
	@echo "make format   format the code and apply the fixes of the linter"
	@echo "make docs     generate docs/reference.md from the code"
	@echo "make lock     update both lock files from pyproject.toml"
	@echo "make clean    remove the environments and the caches; keeps runs/"

train: $(VENV)/core.stamp
	$(RUN) -m jaxtrain.main --config=configs/digits.py

test: $(VENV)/dev.stamp
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m basedpyright --pythonpath $(RUN)
	$(RUN) -m pytest $(PYTEST_FLAGS) $(if $(FAST),-m 'not slow')

peers: $(VENV)/pyvenv.cfg
	@$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip -qq --disable-pip-version-check --no-input install --only-binary :all: -r tests/peers.txt

format: $(VENV)/dev.stamp
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

docs: $(VENV)/core.stamp
	$(RUN) -m jaxtrain.commands.reference > docs/reference.md

lock: $(VENV)/pyvenv.cfg
	@$(PIP) install --root-user-action ignore uv
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) pyproject.toml --extra dev --extra search --extra parquet --extra text --extra onnx --extra serve --constraints requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) .venv-peers .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(error) prints one line; a failing command would add a line of make's own.
$(VENV)/pyvenv.cfg:
	$(if $(FOUND),,$(error $(PYTHON) was not found or does not run; jaxtrain needs Python 3.11 or newer: $(AGAIN)))
	$(if $(filter new,$(FOUND)),,$(error $(PYTHON) is Python $(FOUND); jaxtrain needs 3.11 or newer, choose one: $(AGAIN)))
	$(if $(filter venv,$(FOUND)),,$(error $(PYTHON) lacks venv or ensurepip; install its package (on Debian and Ubuntu: apt install python3-venv), or choose another: $(AGAIN)))
	@echo "Creating $(VENV) with Python $(firstword $(FOUND))"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

# Recreates a .venv that does not run, or whose version differs from the PYTHON given on the command line.
ifeq ($(HELD),)
$(VENV)/pyvenv.cfg: FORCE
else ifeq ($(origin PYTHON),command line)
ifneq ($(HELD),$(firstword $(FOUND)))
$(VENV)/pyvenv.cfg: FORCE
endif
endif

$(VENV)/core.stamp: requirements.lock $(VENV)/pyvenv.cfg
	@echo "Installing from requirements.lock; the first time takes a minute or two"
	@$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/core.stamp
	@echo "Installing from requirements-dev.lock"
	@$(INSTALL) -r requirements-dev.lock
	@touch $@
