# Every target does its own set-up: it needs python3 (3.11 or newer) and make, nothing else.
#
#   make demo        install, then train a small network on real digits
#   make test        install, then run the tests (parallel, without the long ones)
#   make test-long   all tests
#   make check       linter and type checker
#   make bench       speed side by side with JAX, torch.compile, PyTensor, autograd and NumPy (installs them)
#   make clean       remove what these targets made

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
ARGS   ?=

# One kernel cache for all test processes, so that none compiles what another has compiled.
export FUNCGRAD_CACHE_DIR ?= $(CURDIR)/.cache/kernels
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-long check bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "funcgrad needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1)." \
	         "Write: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: each target installs what it needs, once per change of pyproject.toml.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/digits.py $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not long" -q $(ARGS)

test-long: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q $(ARGS)

check: $(VENV)/.installed-check
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m mypy

# The peers live in an environment of their own: PyTensor asks for an older Numba than funcgrad is tested with.  It runs
# with the newer one as well, so Numba is brought up to date after it.  torch comes from its index of CPU builds where
# that can be reached: the package index has the CUDA build, of some gigabytes.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.venv-bench/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --retries 1 --index-url $(TORCH_INDEX) torch || \
	  echo "torch: taking the package index's build"
	.venv-bench/bin/python -m pip install --quiet --editable ".[bench]"
	.venv-bench/bin/python -m pip install --quiet --upgrade --no-deps numba llvmlite
	@touch $@

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .venv-bench .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
