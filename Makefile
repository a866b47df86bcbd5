# Every target works from a fresh clone: it creates .venv and installs the requirements first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOT := $(shell command -v dot)

# two workers with one thread each fit two cores; spinning threads would slow each other down
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
JOBS ?= 2

.PHONY: help venv test demo lint clean

help:
	@echo 'make demo   train a small yolov5, quantize it (PTQ, QAT), export it, print a table of mAP'
	@echo 'make test   run the tests'
	@echo 'make lint   check with ruff and mypy'
	@echo 'make venv   create .venv with all requirements'
	@echo 'make clean  remove .venv, demo/ and caches'
	@echo 'PYTHON=python3.X chooses the Python of .venv, JOBS=N the number of test processes.'
	@echo 'pip reads its usual settings, such as PIP_EXTRA_INDEX_URL for the smaller CPU build of torch.'

venv: $(BIN)/.requirements $(BIN)/.requirements-dev

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'error: $(PYTHON) is missing: apt-get install python3 python3-venv'; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { echo 'error: Python 3.8 or newer is needed: make PYTHON=python3.X'; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt PACKAGE=python3-venv
	$(PYTHON) -m venv --clear $(VENV)

# one stamp per requirements file: pip runs again only after a change
$(BIN)/.requirements: requirements.txt | $(BIN)/python
	@echo 'installing requirements.txt into $(VENV): a few minutes the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(BIN)/.requirements-dev: requirements-dev.txt | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# installs PACKAGE if that needs no password; otherwise says how to
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

# requirements-dev.txt has them for Python 3.10 and newer only
lint: venv
	@if [ ! -x $(BIN)/ruff ]; then echo 'skipped: ruff and mypy need Python 3.10 or newer'; else \
		set -ex; $(BIN)/ruff check .; $(BIN)/ruff format --check .; $(BIN)/mypy; \
	fi

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
