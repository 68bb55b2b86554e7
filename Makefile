# Set-up and checks. `make demo` and `make test` need nothing but Python 3.11+, a C++ compiler and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
RUN ?= runs/demo

OLDER_TRITON := .venv-triton-3.6

.PHONY: help demo test test-all lint types unit unit-all triton-3.6 models serve bench-services contract clean

help:  ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llmgr needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Torch goes first: torch-scatter compiles against it, and so cannot be built in an environment of its own.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) torch setuptools wheel ninja numpy
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) --no-build-isolation -e '.[data,embed,plots]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.torch
	DS_BUILD_OPS=0 FORCE_ONLY_CPU=1 MAX_JOBS=2 $(PIP) --no-build-isolation -e '.[dev]'
	@touch $@ $(VENV)/.demo

models: $(VENV)/.demo  ## fetch the real weights and MovieLens-100K (checked against their hashes)
	$(BIN)/llmgr model minilm
	$(BIN)/llmgr data movielens-100k

demo: $(VENV)/.demo  ## the whole main job on real data, about a quarter of an hour on two cores
	PATH="$(abspath $(BIN)):$$PATH" RUN="$(RUN)" bash configs/demo.sh

serve: $(VENV)/.demo  ## both servers on what `make demo` made
	PATH="$(abspath $(BIN)):$$PATH" RUN="$(RUN)" bash configs/serve.sh

bench-services: $(VENV)/.dev models  ## both services under load with floors beside them; two free cores, about 40 minutes
	$(BIN)/llmgr bench ranking $(if $(BENCH_RUN),--run $(BENCH_RUN)) --out benchmarks/results/ranking-load.json
	$(BIN)/llmgr bench ranking --items 1000000 --rates 50,150 --seconds 30 --swap-rate 0 --out benchmarks/results/ranking-load-1m.json
	$(BIN)/llmgr bench embedding --out benchmarks/results/embedding-load.json
	$(BIN)/llmgr bench freshness --direct --load 100 --out benchmarks/results/freshness-load.json
	$(BIN)/llmgr bench ann --out benchmarks/results/approximate-ranking.json
	$(BIN)/llmgr bench restart --out benchmarks/results/restart.json
	$(BIN)/llmgr bench restart --items 1000000 --text-dimension 0 --rounds 5 --out benchmarks/results/restart-1m.json

test: $(VENV)/.dev models lint types unit  ## install everything and pass all checks

test-all: $(VENV)/.dev models lint types  ## the same with the slow forms
	$(BIN)/llmgr model smollm2-135m
	$(BIN)/python -m pytest
	$(MAKE) triton-3.6

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint proto

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not gpu"

# Triton 3.6 and a NumPy that its interpreter takes; torch and pytest are read from $(VENV), which saves a gigabyte.
$(OLDER_TRITON)/.ready: $(VENV)/.dev
	$(BIN)/python -m venv --without-pip $(OLDER_TRITON)
	$(BIN)/python -m pip --python $(OLDER_TRITON)/bin/python install --disable-pip-version-check -q --no-deps triton==3.6.0 'numpy>=2.0,<2.4'
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(OLDER_TRITON)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_and_pytest.pth"
	@touch $@

triton-3.6: $(OLDER_TRITON)/.ready  ## the kernels in the interpreter and the compiler of Triton 3.6
	$(OLDER_TRITON)/bin/python -m pytest tests/kernels -m "not slow and not gpu" --ignore tests/kernels/test_benchmark.py \
		--ignore tests/kernels/test_mutations.py
	$(OLDER_TRITON)/bin/python -m kernels.compilation --all

contract: $(VENV)/.dev  ## generate services/contract/ from proto/ again
	$(BIN)/python -m services.contract.generate

clean:  ## remove the virtual environment and every run
	rm -rf $(VENV) $(OLDER_TRITON) runs
