# `make quickstart` and `make test` each make .venv with what they need; a second call installs nothing again.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The first of these that is Python 3.11 or newer (transformers 5.23 needs it); PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
SOURCES := setup.cfg pyproject.toml constraints.txt requirements-demo.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test check docs benchmarks benchmarks-smoke report-check clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

quickstart: $(VENV)/.installed-demo  ## train, evaluate and report a text classifier on 8,530 film sentences (about 1 minute)
	$(VENV)/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		recipes/run_classification.py configs/quickstart.json

test: $(VENV)/.installed-test  ## run all tests (offline once installed)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(PY) -m pytest -n 2 --dist loadgroup --timeout 1200

check: $(VENV)/.installed-test  ## lint, formatting, and that layers import downwards only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest tests/test_layers.py

docs: $(VENV)/.installed-docs  ## build the manual and the API reference into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	$(PY) tests/docs/site/check_site.py site

# DATA_DIR and WORDNET_DIR are folders of yours; ONLY="NAME ..." takes some, benchmarks/plan.py has the names.
benchmarks: $(VENV)/.installed-test  ## run what is left of all measurements (days) and write outputs/benchmarks/results.md
	$(PY) benchmarks/run_all.py $(if $(DATA_DIR),--data_dir "$(DATA_DIR)") \
		$(if $(WORDNET_DIR),--wordnet_dir "$(WORDNET_DIR)") $(if $(ONLY),--only $(ONLY))

benchmarks-smoke: $(VENV)/.installed-test  ## run each measurement at toy size, offline once installed (some minutes)
	$(PY) benchmarks/smoke.py $(if $(ONLY),--only $(ONLY))

# Not part of `make test`: it needs a browser, which pip cannot bring.
report-check: $(VENV)/.installed-browser  ## look at reports in Chromium: axe-core, requests, 360 and 1440 px, print (some minutes)
	@for p in "$(CHROMIUM)" chromium chromium-browser google-chrome google-chrome-stable; do \
		test -n "$$p" && command -v "$$p" >/dev/null && exit 0; done; \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null || exit 0; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 CHROMIUM="$(CHROMIUM)" $(PY) tests/evaluation/browser/check_report.py

clean:  ## remove .venv, and what runs and `make docs` left in outputs/ and site/
	rm -rf $(VENV) outputs site

$(PY):
	@test -n "$(PYTHON)" || { echo "hf_ext needs Python 3.11 or newer; none was found. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: $(PY) $(SOURCES)
	$(PIP) --require-hashes --no-deps -r requirements-demo.txt
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(PIP) --editable '.[demo,test,browser]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-demo
	$(PIP) --editable '.[demo,docs]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-demo
	$(PIP) --editable '.[demo,test]'
	@touch $@
