# Every target makes what it needs in .venv, once. `make train` and `make test` are all a newcomer types.
PYTHON  ?= python3
PY      := .venv/bin/python
READY   := .venv/.ready
export MUJOCO_GL ?= disabled
export JAXRL_CACHE ?= $(CURDIR)/.cache/jax

# With PIXELS=48 it learns from pictures of that side.
ifdef PIXELS
AGENT   ?= drq
HOW     ?= --pixels $(PIXELS)
RUN     ?= runs/$(AGENT)-$(ENV)-pixels-$(SEED)
endif
AGENT   ?= sac
ENV     ?= cartpole-swingup
STEPS   ?= 100000
SEED    ?= 0
RUN     ?= runs/$(AGENT)-$(ENV)-$(SEED)
WORKERS ?= 2

.PHONY: setup train test test-slow lint lock check-lock bench bench-peers evidence faults mutants check-envs profile docs clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || \
		{ echo "python3 is not 3.11, 3.12 or 3.13: make setup PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q --require-hashes -r requirements.lock
	$(PY) -m pip install -q --no-deps --no-build-isolation --no-index -e .
	touch $(READY)

train: $(READY)
	$(PY) -m experiments.train --agent $(AGENT) --env $(ENV) --steps $(STEPS) --seed $(SEED) --run $(RUN) --resume $(HOW)

test: $(READY)
	$(PY) -m pytest -q -n $(WORKERS) tests

test-slow: $(READY)   # what takes too long for `make test`: every agent over devices, kills, full disks
	$(PY) -m pytest -q -n $(WORKERS) -m slow tests

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright --level error
	$(PY) -m tests.lint

lock: $(READY)   # names, versions and hashes, no addresses
	$(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev pyproject.toml -o requirements.lock

check-lock: $(READY)   # every line of the lock has a wheel, or is not needed, on each Python that we name; installs nothing
	for version in 3.11 3.12 3.13; do \
		$(PY) -m uv pip install -q --dry-run --python-version $$version --no-build --require-hashes \
			--target build/lock -r requirements.lock || exit 1; \
	done

evidence: $(READY)   # the smoke scale of every claim; `$(PY) -m experiments.evidence p017 --scale cpu` is one in full
	$(PY) -m experiments.evidence --scale smoke

faults: $(READY)
	$(PY) -m experiments.faults --kills 20 --flips 50

mutants: $(READY)   # 200 changes of one token each, of which the tests have to notice nine in ten; about an hour
	$(PY) -m experiments.mutants

bench: $(READY)   # with PUREJAXRL=FOLDER, a checkout of purejaxrl, beside that too
	$(PY) -m experiments.bench
	$(PY) -m experiments.docs

bench-peers: .venv-bench/.ready

.venv-bench/.ready: requirements-bench.txt
	@echo "The peers' virtual environment takes about 2 GB (more where torch comes with CUDA) and some minutes."
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q -r requirements-bench.txt
	.venv-bench/bin/python -m pip install -q --no-deps mbrl==0.2.0
	@du -sh .venv-bench
	touch .venv-bench/.ready

check-envs: $(READY)   # every environment of ours, stepped for 2,000 steps, and held against what it is modelled on
	$(PY) -m experiments.check_envs --record
	$(PY) -m experiments.docs
	JAXRL_RECORD=docs/results/reference.json $(PY) -m pytest -q -n $(WORKERS) -m reference tests

profile: $(READY)   # where a tick's time goes, and how far its pieces are from the device's ceilings
	$(PY) -m experiments.profile $(AGENT) $(ENV) $(HOW)

docs: $(READY)
	$(PY) -m experiments.docs

clean:
	rm -rf .venv .venv-bench .cache .pytest_cache .ruff_cache .hypothesis build dist
