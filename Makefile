# Every target makes what it needs in .venv, once. `make train` and `make test` are all a newcomer types.
PY      := .venv/bin/python
READY   := .venv/.ready
export MUJOCO_GL ?= disabled
export JAXRL_CACHE ?= $(CURDIR)/.cache/jax

AGENT   ?= sac
ENV     ?= cartpole-swingup
STEPS   ?= 100000
SEED    ?= 0
RUN     ?= runs/$(AGENT)-$(ENV)-$(SEED)
WORKERS ?= 2

.PHONY: setup train test lint lock bench bench-peers evidence faults check-envs docs clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	python3 -m venv .venv
	$(PY) -m pip install -q --require-hashes -r requirements.lock
	$(PY) -m pip install -q --no-deps --no-build-isolation --no-index -e .
	touch $(READY)

train: $(READY)
	$(PY) -m experiments.train --agent $(AGENT) --env $(ENV) --steps $(STEPS) --seed $(SEED) --run $(RUN) --resume

test: $(READY)
	$(PY) -m pytest -q -n $(WORKERS) tests

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright --level error

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis build dist
