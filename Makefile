# muka. Every target works from a fresh clone with one command, and nothing outside the checkout is touched.
#
# pip decides which torch comes: PyPI's, which on Linux is the CUDA build, unless told otherwise. For the small one:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo serve test test-gpu test-contract test-chaos fuzz check format clean

help: ## list the targets
	@echo "make TARGET [PYTHON=python3.12] [ARGS='…']"
	@sed -nE 's/^([a-z%-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
	@echo "benchmarks: $(patsubst benchmarks/%.py,bench-%,$(subst _,-,$(filter-out benchmarks/_% benchmarks/plain_muka.py,$(wildcard benchmarks/*.py))))"

setup: $(VENV)/.installed-dev ## make .venv with all that development needs

demo: $(VENV)/.installed-demo ## three teachers, one student, over the REST API: the whole path in minutes
	$(BIN)/python -m demo $(ARGS)

serve: $(VENV)/.installed-api,worker ## the service on 127.0.0.1:8000, its data in ./muka-data
	$(BIN)/muka serve $(ARGS)

test: $(VENV)/.installed-dev ## every test that needs no GPU
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# transformers' DeBERTa asks for torch.jit.script, of which newer versions of torch warn.
test-gpu: $(VENV)/.installed-dev ## the engine on an NVIDIA GPU: two minutes
	$(BIN)/python -m pytest tests/gpu -W "ignore:.torch.jit.script:DeprecationWarning" $(ARGS)

test-contract: $(VENV)/.installed-dev ## at least 5,000 generated requests keep the OpenAPI document's word
	$(BIN)/python -m pytest tests/contract/at_length.py -s $(ARGS)

test-chaos: $(VENV)/.installed-dev ## jobs survive kills, outages, full disks: 25 minutes at most, Linux
	$(BIN)/python -m pytest tests/chaos --session-timeout=1500 $(ARGS)

fuzz: $(VENV)/.installed-dev ## 100,000 broken files through every reader; ARGS='--inputs 1000 archives' for fewer
	$(BIN)/python -m tests.fuzz $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, import boundaries, container files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(VENV)/.installed-dev ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench-%: $(VENV)/.installed-demo ## one benchmark: its table, and benchmarks/out/NAME.json
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

clean: ## remove .venv, caches and build output; muka-data stays
	rm -rf $(VENV) dist build benchmarks/out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of extras, and of those that it includes; a change of pyproject.toml installs anew.
INCLUDED_dev := demo api,worker
INCLUDED_demo := api,worker
$(VENV)/.installed-%: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]'
	@touch $@ $(INCLUDED_$*:%=$(VENV)/.installed-%)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("muka needs Python 3.11 or newer, and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@
