# Everything runs from .venv, which is made at the first target that needs it. See `make help`.

# The first Python from 3.11 to 3.13 that is here; or say which: make app PYTHON=/path/to/python3.12
CHECK_PYTHON := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p $(CHECK_PYTHON) >/dev/null 2>&1 && echo $$p && break; done)
HOST = 127.0.0.1
PORT = 7860

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Tests never reach the network; two processes of one thread each suit two cores.
TEST_ENV := HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False PYTHONDONTWRITEBYTECODE=1
PYTEST := $(TEST_ENV) $(PY) -m pytest
TWO_PROCESSES := -n 2 --dist loadscope
UNIT_TESTS := tests --ignore=tests/apps --ignore=tests/benchmarks

.PHONY: help app test test-fast test-long lint unit lessons browser lab bench load audit pictures retrain clean
.NOTPARALLEL:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile

# pip runs only when one of these files is newer than the stamp; otherwise no target touches the network.
$(STAMP): requirements.txt requirements-data.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 was found. Install one, or say where it is:" \
		"make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) $(CHECK_PYTHON) || { echo "$(PYTHON) cannot be used: Python 3.11, 3.12 or 3.13 is needed."; exit 1; }
	@$(PY) $(CHECK_PYTHON) 2>/dev/null && $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV): a minute or two, once."
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt -e '.[test]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-data.txt
	@touch $(STAMP)

app: $(STAMP)  ## the site, at http://127.0.0.1:7860 (HOST=... PORT=... change that)
	$(PY) -m apps --host $(HOST) --port $(PORT)

test: lint unit lessons browser  ## every check: ruff, unit tests, lessons, and the site in a real browser

test-fast: $(STAMP)  ## the unit tests without the slow ones, in about four minutes
	$(PYTEST) $(UNIT_TESTS) $(TWO_PROCESSES) -m "not slow and not long"

test-long: $(STAMP)  ## what takes too long for every day
	$(PYTEST) $(UNIT_TESTS) -m long -s
	$(PYTEST) tests/apps/test_fuzz.py -m long

lint: $(STAMP)  ## ruff
	$(PY) -m ruff check .

unit: $(STAMP)
	$(PYTEST) $(UNIT_TESTS) $(TWO_PROCESSES)

lessons: $(STAMP)
	@if [ -d course ]; then set -x; \
		OMP_NUM_THREADS=1 $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=120 course $(TWO_PROCESSES); \
	else echo "No lessons yet: there is no folder course/."; fi

# A real browser on a busy machine is late at times: what fails is run once more, and the report names it.
browser: $(STAMP)
	@if [ -d tests/apps ]; then set -x; $(PYTEST) tests/apps $(TWO_PROCESSES) --reruns 1; \
	else echo "No browser tests yet: there is no folder tests/apps/."; fi

lab: $(STAMP)  ## the lessons in JupyterLab
	$(PY) -m jupyter lab --ServerApp.root_dir=course $(ARGS)

bench: $(STAMP)  ## measured speeds, beside transformers, on a machine that does nothing else
	$(PY) -m tests.benchmarks $(ARGS)

load: $(STAMP)  ## a class of forty on the site for five minutes
	$(PY) -m tests.load $(ARGS)

audit: $(STAMP)  ## known weaknesses of the packages (asks PyPI)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(PY) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

pictures: $(STAMP)  ## each lesson's figures as pictures too, for viewers that draw no Plotly
	$(PY) -m tests.lesson_pictures

retrain: $(STAMP)  ## train every shipped model again, which takes hours
	$(PY) -m llm_core.training --retrain-all

clean:  ## remove .venv and what tools left behind; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
