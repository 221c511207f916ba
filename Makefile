# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# Each target makes its own .venv from the package index and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: demo test test-fast soak lint bench clean

demo: $(STAMP)
	$(BIN)/python cli.py demo

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

test-fast: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not soak"

soak: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 --dist load -m soak

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV_STAMP)
	$(PIP) --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks.run_all

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Nurie needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@ $(STAMP)

clean:
	rm -rf $(VENV) data
