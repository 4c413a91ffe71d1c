# Everything needs only Python 3.11 or newer, git and make; each target does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
NPM := tests/npm/node_modules/.installed
AUDIT := $(VENV)/.audit
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# What the locks name, byte for byte, and nothing that would run code of its own to be installed.
LOCKED := $(PIP) --require-hashes --no-deps --only-binary :all:
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(UPGRADE)
SOURCES := coordinator adw_modules tools tests bench

# Compiled modules are kept: the tests start hundreds of Python processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-github test-agents test-crash test-security test-systemd chaos audit sbom lock check format lint types layers bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(RUNTIME) ## Make .venv with everything that running needs

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(RUNTIME): $(VENV)/.python requirements.lock pyproject.toml
	$(LOCKED) -r requirements.lock
	$(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	$(LOCKED) -r requirements-dev.lock
	@touch $@

$(AUDIT): $(DEV) requirements-audit.lock
	$(LOCKED) -r requirements-audit.lock
	@touch $@

demo: $(RUNTIME) ## Six issues from label to draft pull request, on loopback, no account needed
	@$(BIN)/coordinator demo

run: $(RUNTIME) ## Run the daemon with adws/config.toml
	@$(BIN)/coordinator run

test: $(DEV) ## The test suite
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not github and not agents and not crash and not chaos and not systemd and not security"

test-github: $(DEV) $(NPM) ## Against a GitHub server nobody here wrote (needs Node; skips with a reason without it)
	$(BIN)/python -m pytest -m github tests/github_emulate

test-agents: $(DEV) $(NPM) ## With the real agent CLIs and a local model server (needs Node; skips with a reason without it)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m agents tests/agents

test-crash: $(DEV) ## Daemon, shims and agents killed at every step, and at random
	$(BIN)/python -m pytest -n 2 --dist worksteal -m crash

test-security: $(AUDIT) ## What an attacker would try: who may start work, what leaves, what an agent can reach
	$(BIN)/python -m pytest -n 4 --dist worksteal -m security tests/security

chaos: $(DEV) ## Ten minutes of random kills
	$(BIN)/python -m pytest -m chaos tests/crash

test-systemd: $(DEV) ## The service under a real systemd (needs root and with-systemd; skips with a reason without)
	$(BIN)/python -m pytest -m systemd tests/systemd

# These two fetch nothing and put their own program in its place; no other package runs anything when it is installed.
NPM_SCRIPTS := @anthropic-ai/claude-code opencode-ai

# Without Node the tests say why they skip, so a missing npm is no error here. The mark is left only by an
# installation, so that the programs come as soon as there is a Node.
$(NPM): tests/npm/package-lock.json
	@if command -v npm >/dev/null; then \
	  npm ci --prefix tests/npm --ignore-scripts --no-audit --no-fund --loglevel=error \
	  && npm rebuild --prefix tests/npm --loglevel=error $(NPM_SCRIPTS) && touch $@; fi

check: format lint types layers test ## Format, lint, types, import layers, tests

format: $(DEV)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(DEV)
	$(BIN)/ruff check $(SOURCES)

types: $(DEV)
	$(BIN)/mypy

layers: $(DEV)
	$(BIN)/lint-imports

audit: $(AUDIT) ## Secrets in files and commits, known vulnerabilities (REQUIRED=1: it is an error when nobody can be asked)
	$(BIN)/python tools/scan-secrets.py
	$(BIN)/python tools/check-vulnerabilities.py $(if $(REQUIRED),--required)

sbom: $(AUDIT) ## What is installed to run, as CycloneDX: build/sbom.cdx.json
	@mkdir -p build
	@PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file build/sbom.cdx.json requirements.lock
	@echo build/sbom.cdx.json

lock: $(AUDIT) ## Make the locks again from pyproject.toml (UPGRADE=--upgrade, or UPGRADE="--upgrade-package NAME", for newer versions)
	$(COMPILE) --all-extras --group build --output-file requirements.lock pyproject.toml
	$(COMPILE) --all-extras --group build --group dev --constraint requirements.lock \
	  --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --group audit --no-emit-package pip --constraint requirements-dev.lock --output-file requirements-audit.lock

bench: $(DEV) ## Measure, as ratios within one run; writes bench/RESULTS.md
	$(BIN)/python -m bench

clean: ## Remove .venv and caches
	rm -rf $(VENV) tests/npm/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
