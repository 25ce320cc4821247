# `make help` lists the targets. Everything lives in .venv; only a package index is needed.
PYTHON ?= python3
BIN := .venv/bin
export PIP_CONSTRAINT := constraints.txt

.PHONY: help demo test test-slow check bench format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python >= 3.11 is needed; set PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test.stamp: .venv/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check pytest ruff mypy types-requests types-PyYAML tensorboard datasets bitsandbytes
	@touch $@

demo: .venv/run.stamp ## the whole way once on real data: graph, data, tuning, answers, report
	$(BIN)/xinglin demo

test: .venv/test.stamp ## all tests but the slow ones
	$(BIN)/python -m pytest

test-slow: .venv/test.stamp ## tests with long runs
	$(BIN)/python -m pytest -m slow

check: .venv/test.stamp ## format, lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

.bench/trl/stamp: .venv/test.stamp benchmarks/train_speed/trl.txt
	$(PYTHON) -m venv --clear .bench/trl
	.bench/trl/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/train_speed/trl.txt
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$(.bench/trl/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/xinglin.pth"
	@touch $@

.bench/llama-factory/stamp: export PIP_CONSTRAINT :=
.bench/llama-factory/stamp: benchmarks/train_speed/llama-factory.txt
	$(PYTHON) -m venv --clear .bench/llama-factory
	.bench/llama-factory/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.bench/llama-factory/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/train_speed/llama-factory.txt
	@touch $@

bench: .bench/trl/stamp .bench/llama-factory/stamp ## training speed beside others' (an hour; give it the machine)
	$(BIN)/python benchmarks/train_speed/run.py

format: .venv/test.stamp ## put the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## take away .venv, .bench and caches; data and runs stay
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache *.egg-info
