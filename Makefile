# Everything a clone needs, from nothing but Python ≥ 3.11. Each target makes what it stands on, once;
# a second run starts at once and asks no network.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test torch check lint unit web page wheel lock docs size bench torture clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Wheels only: a missing wheel is said clearly instead of ending in a compiler's error.
INSTALL := $(PIP) install --quiet --require-hashes --only-binary :all:
COMPILE := .build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate $(LOCKFLAGS)

# accelerate, because transformers reads no GGUF file without it; it is not in the extra because it needs a torch.
# Triton comes with a torch for GPUs; beside one for CPUs it compiles our kernels for a GPU that is not there.
TORCH := torch==2.13.0 accelerate==1.15.0 bitsandbytes==0.50.2 \
	"triton==3.6.0; platform_system == 'Linux' and platform_machine == 'x86_64'"
# A file shares its servers, browser and models.
WORKERS := -n 2 --dist loadfile
TORCH_TESTS := $(wildcard tests/test_torch*.py)
OPPONENTS := bench/compare/requirements
PAGE := src/inkstream/page/index.html
WEB := $(shell find web -name node_modules -prune -o -type f -print 2>/dev/null)

help:
	@echo 'make serve    set everything up and serve the chat on http://127.0.0.1:8000'
	@echo 'make test     everything that CI runs'
	@echo 'make torch    install torch beside it, so that make test has the torch engine too'
	@echo 'make check    the quick part of it: format, lint, types, import rules, unit tests'
	@echo 'make torture  kill the processes a thousand times and compare every answer; TORTUREFLAGS=--seed=1'
	@echo 'make bench    measure beside other servers; BENCHFLAGS="--quick", "--only paced,llama"'
	@echo 'make wheel    dist/inkstream-*.whl with the page inside'
	@echo 'make docs     docs/settings.md from the settings'
	@echo 'make size     how many lines there are, beside how many were planned'
	@echo 'make lock     requirements/*.txt from pyproject.toml; LOCKFLAGS=--upgrade for newer versions'
	@echo 'make clean    forget all that was built, downloaded models apart'

serve: .venv/.package $(PAGE)
	@exec $(BIN)/python -m inkstream serve

test: lint web $(PAGE) .venv/.dev
	scripts/browsers
	scripts/prometheus >/dev/null
	scripts/nginx
	$(BIN)/python -m pytest $(WORKERS) $(addprefix --ignore=,$(TORCH_TESTS))
	if $(BIN)/python -c 'import torch' 2>/dev/null; then OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) $(TORCH_TESTS); fi

torch: .venv/.torch

# Many tests wait for processes: four at a time keep two cores busy. The page's run beside them.
check: lint
	@$(MAKE) --no-print-directory --jobs 2 unit $(if $(wildcard web/node_modules),web)

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/.dev
	$(BIN)/python -m pytest --quiet -n 4 -m 'not real'

web: web/node_modules/.installed
	scripts/npm run check
	scripts/npm test

page: $(PAGE)

wheel: .venv/.package $(PAGE)
	$(BIN)/hatchling build -t wheel

bench: .venv/.dev
	PYTHONPATH=bench $(BIN)/python -m compare $(BENCHFLAGS)

torture: .venv/.dev
	$(BIN)/python -m tests.torture $(TORTUREFLAGS)

docs: .venv/.package
	$(BIN)/python scripts/settings_page.py > docs/settings.md

size: .venv/bin/python
	@$(BIN)/python scripts/size.py

lock: .build/lock/bin/uv
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) requirements/node.in -o requirements/node.txt
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) pyproject.toml requirements/build.in --group dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra torch -c requirements/dev.txt -o requirements/torch.txt
	$(COMPILE) $(OPPONENTS)/article.in -c requirements/run.txt -o $(OPPONENTS)/article.txt
	$(COMPILE) pyproject.toml $(OPPONENTS)/senders.in -c requirements/run.txt -o $(OPPONENTS)/senders.txt

clean:
	rm -rf .venv .build dist web/node_modules src/inkstream/page

# Stamps live inside what they describe, so that they go with it.

.venv/bin/python:
	scripts/venv .venv

.venv/.run: requirements/build.txt requirements/run.txt | .venv/bin/python
	$(INSTALL) -r requirements/build.txt -r requirements/run.txt
	@touch $@

.venv/.package: pyproject.toml .venv/.run
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.package
	$(INSTALL) -r requirements/dev.txt
	@touch $@

# Without hashes: the builds for each kind of device have their own, and which one pip finds is for its settings.
.venv/.torch: requirements/torch.txt .venv/.dev
	$(INSTALL) -r requirements/torch.txt
	$(PIP) install --quiet --only-binary :all: $(TORCH)
	@touch $@

web/node_modules/.installed: web/package-lock.json web/package.json scripts/npm requirements/node.txt
	scripts/npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE): web/node_modules/.installed $(WEB)
	scripts/npm run build
	@touch $@

.build/lock/bin/uv:
	scripts/venv .build/lock
	.build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv
