PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all lint format fuzz matrix bench bench-gpu paper notebooks docs docs-serve

help:  ## list these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

setup: .venv/installed  ## make .venv and install the package in it (several GB, once)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## train and evaluate one model on six synthetic products (minutes on two cores)
	$(BIN)/uniad train experiment=demo output_dir=runs/demo overwrite=true

PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: setup  ## run the tests that are fast (minutes on two cores)
	$(PYTEST) -m 'not slow'

test-slow: setup  ## run the other tests: many processes, kills, searches; WITHIN=30 skips those not begun after 30 minutes
	$(PYTEST) -m slow $(if $(WITHIN),--begin-within $(WITHIN))

test-all: setup  ## run all tests, those of many processes, kills and searches too (half an hour on two cores)
	$(PYTEST)

lint: setup  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## put the code in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Material's notice that MkDocs 2 will not run it is no warning about these pages.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

docs: setup  ## build the documentation as a site in site/, warnings are errors
	$(MKDOCS) build --strict

docs-serve: setup  ## show the documentation at http://127.0.0.1:8000, built anew when a page changes
	$(MKDOCS) serve

SEED ?= 0
COUNT ?= 10000
fuzz: setup  ## read 10,000 files mutated from sound ones, SEED=0 COUNT=10000, and print how each kind ends (minutes)
	PYTHONPATH=tests $(BIN)/python -m support.fuzzing $(SEED) $(COUNT)

matrix: setup  ## run the fast tests under Python 3.10 to 3.13, with the oldest and newest packages (GBs to fetch; an hour)
	$(BIN)/python scripts/matrix.py

bench: setup  ## measure speed and memory against what is replaced, as ratios (minutes)
	$(BIN)/python benchmarks/all.py

bench-gpu: setup  ## run on a GPU what is written for one: precisions, processes, memory, throughput (minutes)
	$(BIN)/python benchmarks/gpu.py runs/gpu

notebooks: setup  ## run the notebooks and store them with their outputs (half an hour on two cores)
	$(BIN)/python scripts/store_notebooks.py

MVTEC ?= mvtec_ad
PAPER := runs/paper/unified_or_separate
paper: setup  ## run Tables 1 and 2 on MVTec AD, 5 seeds, and print them: make paper MVTEC=mvtec_ad (a GPU; goes on after any end)
	$(BIN)/uniad train experiment=mvtec name=paper data.root=$(MVTEC) sweep=unified_or_separate seed=0,1,2,3,4
	$(BIN)/uniad table 1 $(PAPER) out=runs/paper
	$(BIN)/uniad table 2 $(PAPER) out=runs/paper
