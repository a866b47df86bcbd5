# `make demo` and `make test` work from nothing: they make .venv, install into it what requirements*.txt ask for, and go.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOT := $(shell command -v dot)

# two workers of one thread each fit two cores; waiting threads that spin would slow each other down
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
JOBS ?= 2

.PHONY: help venv test demo lint clean

help:
	@echo 'make demo   train a small yolov5, quantize it (PTQ, QAT), export it, print a table of mAP'
	@echo 'make test   run the tests'
	@echo 'make lint   run ruff and mypy'
	@echo 'make venv   make .venv with everything that the others need'
	@echo 'make clean  remove .venv, demo/ and caches'
	@echo 'PYTHON=python3.X chooses the Python that .venv is made with, JOBS=N the number of test processes.'
	@echo 'pip reads its usual settings, e.g. PIP_EXTRA_INDEX_URL for a CPU build of torch, which is a smaller download.'

venv: $(BIN)/.requirements $(BIN)/.requirements-dev

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'error: $(PYTHON) is missing: apt-get install python3 python3-venv'; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { echo 'error: Python 3.8 or newer is needed: make PYTHON=python3.X'; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt PACKAGE=python3-venv
	$(PYTHON) -m venv --clear $(VENV)

# a stamp per requirements file: pip runs again only when the file changed
$(BIN)/.requirements: requirements.txt | $(BIN)/python
	@echo 'installing requirements.txt into $(VENV): some minutes the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(BIN)/.requirements-dev: requirements-dev.txt | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# installs PACKAGE where that needs no password, else says how
.PHONY: apt
apt:
	@if [ "$$(id -u)" = 0 ]; then run=; elif sudo -n true 2>/dev/null; then run='sudo -n'; else run=none; fi; \
	if [ "$$run" = none ] || ! command -v apt-get >/dev/null; then \
		echo 'error: $(PACKAGE) is missing: sudo apt-get install $(PACKAGE)' >&2; exit 2; \
	fi; \
	echo 'installing $(PACKAGE)'; \
	$$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PACKAGE) >/dev/null

# Graphviz, which draws engines
.PHONY: dot
dot:
ifeq ($(DOT),)
	@$(MAKE) --no-print-directory apt PACKAGE=graphviz
endif

test: venv dot
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests

demo: $(BIN)/.requirements
	$(BIN)/python benchmarks/demo.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
