# Everything a developer or CI does. `make setup` is part of every other target, quick when nothing changed.
#
# Needs: GNU make, bash, Python >= 3.11 and a package index. Nothing is installed outside this folder, except that
# on a Debian machine, and as root, python3-venv and postgresql (for tests) come from apt where they are missing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
ENVS := .envs
VENV_PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
# Environments of frameworks, one folder in .envs for each; workers run in them, tests and the host never do.
FRAMEWORKS := dspy sklearn langchain transformers

# A machine without network can install from a folder of wheels that pip already knows; tell uv of it too.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
# The interpreter is named everywhere; one that is missing is an error, not a download.
export UV_PYTHON_DOWNLOADS ?= never

BOOTSTRAPPED := $(VENV)/.stamp-bootstrap
SYNCED := $(VENV)/.stamp-sync
INSTALLED := $(VENV)/.stamp-install
FRAMEWORK_STAMPS := $(FRAMEWORKS:%=$(ENVS)/%/.stamp-sync)

# Without a CPU build of PyTorch at hand (a wheel in the folder that PIP_FIND_LINKS names), the lock of the registry's
# build is taken, which brings several GB of CUDA libraries.
TORCH_CPU_WHEEL := $(firstword $(foreach folder,$(UV_FIND_LINKS),$(wildcard $(folder)/torch-*+cpu-*.whl)))
lock-of = requirements/env-$(1)$(if $(filter transformers,$(1)),$(if $(TORCH_CPU_WHEEL),,-registry)).txt

# --compile-bytecode: uv does not compile by default, and where PYTHONDONTWRITEBYTECODE is set Python would not
# either, so that each worker start would compile its framework again (1.6-4 s instead of 1 s for DSPy).
SYNC := $(UV) pip sync --quiet --require-hashes --compile-bytecode

# An environment whose interpreter has gone (Python was upgraded or removed) is made again, whatever its stamp says.
# wildcard follows links, so a dangling one counts as gone.
rebuild-if-gone = $(if $(wildcard $(1)),,FORCE)

.PHONY: FORCE help setup environments demo test lint format bench docs lock clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

# ---------------------------------------------------------------- environments

# Two steps, because the second runs in parallel and needs the uv of the first.
setup: $(BOOTSTRAPPED) ## Build .venv and .envs/* from the locks (nothing to do: under a second)
	@$(MAKE) --jobs=3 environments

environments: $(INSTALLED) $(FRAMEWORK_STAMPS)
	@:

FORCE:

$(BOOTSTRAPPED): requirements/bootstrap.txt scripts/bootstrap.sh $(call rebuild-if-gone,$(VENV_PYTHON))
	@scripts/bootstrap.sh
	@touch $@

$(SYNCED): requirements/dev.txt $(BOOTSTRAPPED)
	@echo "setup: $(VENV): installing requirements/dev.txt"
	@$(SYNC) --python $(VENV_PYTHON) requirements/dev.txt
	@touch $@

# After each sync, because it removes what the lock does not name; and when entry points may have changed.
$(INSTALLED): $(SYNCED) pyproject.toml
	@$(UV) pip install --quiet --python $(VENV_PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: $(VENV): ready"

.SECONDEXPANSION:
$(FRAMEWORK_STAMPS): $(ENVS)/%/.stamp-sync: $$(call lock-of,$$*) $$(call rebuild-if-gone,$(ENVS)/%/bin/python) | $(BOOTSTRAPPED)
	@echo "setup: $(ENVS)/$*: installing $<"
	@[ -x $(ENVS)/$*/bin/python ] || $(UV) venv --quiet --clear --no-project --python $(VENV_PYTHON) $(ENVS)/$*
	@$(SYNC) --python $(ENVS)/$*/bin/python $<
	@touch $@
	@echo "setup: $(ENVS)/$*: ready"

lock: $(BOOTSTRAPPED) ## Resolve the dependencies again (UPGRADE=1: to the newest versions)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## Remove the environments and every cache
	rm -rf $(VENV) $(ENVS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- work

demo: setup ## Two frameworks side by side on real data (no key, no GPU)
	@$(VENV_PYTHON) examples/demo/run.py

lint: setup ## Formatting, lint, types, import contracts, spelling, generated pages
	@scripts/lint.sh

format: setup ## Rewrite the code in the house format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

test: setup lint ## Lint, then every test: those without a framework first
	@scripts/test.sh

bench: setup ## Run the benchmarks
	@$(VENV_PYTHON) -m benchmarks

docs: setup ## Generate the reference pages from the code
	@mkdir -p docs/reference
	@$(VENV_PYTHON) -m manybridge.protocol.reference docs/reference
	@$(VENV_PYTHON) -m manybridge.cli.reference
