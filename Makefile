# `make quickstart` and `make test` need nothing but Python 3.11 or newer with venv, and the package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
OUT ?= runs/quickstart
PYTEST_ARGS ?=
FUZZ ?= 10000
# Scripts may have values without types; a call that does not fit the packages is an error there, too.
LOOSE := --allow-any-generics --no-warn-return-any --allow-untyped-calls --allow-subclassing-any \
	--allow-untyped-defs --allow-incomplete-defs --check-untyped-defs --no-warn-unused-ignores

.PHONY: help quickstart transfer test faults fuzz lint format types docs site audit release-check check setup clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: $(VENV)/.installed  ## set up everything and search, fit, predict and check on this machine
	$(BIN)/raylr search --out $(OUT)

transfer: $(VENV)/.installed  ## transfer from a proxy and fit a law, and compare both at a target, three seeds each
	$(BIN)/raylr search --example transfer
	$(BIN)/raylr compare

test: $(VENV)/.installed  ## set up everything and run the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

faults: $(VENV)/.installed  ## tests that kill whole programs, and the table of faults in docs/reliability.md
	rm -f .faults.jsonl
	RAYLR_FAULTS=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		--timeout 1200 -m "table or faults" \
		tests/faults $$(grep -rl "mark\.faults" tests --include "test_*.py" | grep -v ^tests/faults) $(PYTEST_ARGS); \
		$(BIN)/python tests/support/fault_table.py .faults.jsonl docs/reliability.md $$?

check: lint types  ## lint and types

lint: $(VENV)/.installed  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## mypy, strict for the packages
	$(BIN)/mypy
	$(BIN)/mypy $(LOOSE) benchmarks examples

format: $(VENV)/.installed  ## apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed  ## write the pages that are made from the code
	$(BIN)/python -m raylr.cli.spec_reference docs/spec.md

site: $(VENV)/.installed  ## build the documentation site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

fuzz: $(VENV)/.installed  ## 10,000 mutated inputs of each kind; FUZZ=FIRST:END: others, FUZZ_KIND=name: of one kind
	RAYLR_FUZZ=$(FUZZ) $(BIN)/python -m pytest --timeout 0 -s tests/raylr/test_fuzz.py tests/raylr/test_fuzz_folders.py \
		tests/raylr/test_fuzz_commands.py $(if $(FUZZ_KIND),-k test_$(FUZZ_KIND)) $(PYTEST_ARGS)

audit:  ## known vulnerabilities of the pinned packages; a package that was not seen counts as a failure
	PYTHON=$(PYTHON) .ci/audit

release-check:  ## build, check, install into empty environments and run: what docs/releasing.md asks for
	PYTHON=$(PYTHON) .ci/release-check

setup: $(VENV)/.installed  ## the virtual environment with everything in it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("raylr needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(INSTALL) -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores, where pip would use one for a minute
	touch $@

clean:  ## remove the virtual environment and caches; studies in runs/ stay
	rm -rf $(VENV) .venv-audit .venv-release site .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
