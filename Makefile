# `make demo` and `make test` need only Python 3.11 or later, make, and a package index; both build .venv first.
VENV ?= .venv
PYTHON ?= python3
CORES ?= all
BIN = $(VENV)/bin

.PHONY: setup demo test test-slow test-slurm lint bench schema clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/snakemake --cores $(CORES) --quiet rules host
	$(BIN)/selftrain summary results/summary.csv

test: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/pytest -m slow

test-slurm: setup
	$(BIN)/pytest -m slurm -rs

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

bench: setup
	$(BIN)/python benchmarks

schema: setup
	$(BIN)/selftrain schema > workflow/schemas/config.schema.json
	$(BIN)/selftrain schema --markdown > docs/settings.md

clean:
	rm -rf results .snakemake
