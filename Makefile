# Two commands on a fresh machine: `make demo` and `make test`. Both install into .venv, with the versions of
# envs/constraints.txt.

PYTHON ?= python3
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
# Options for pip, e.g. PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu" for torch without CUDA.
PIP_OPTIONS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/constraints.txt $(PIP_OPTIONS)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: install demo test test-clusters lint clean

install: $(VENV)/.installed

# torch first and by itself: pip then takes the build that its options name, and what depends on torch is content with it.
$(VENV)/.installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e ".[test]"
	@touch $@

demo: install
	snakemake --cores $(CORES) --resources gpu=1
	@sampath-wsi show results

lint: $(VENV)/.installed-test
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

test: lint
	pytest -n 2 --dist worksteal -m "not cluster"

# The workflow on a real Slurm, started here for the test, and on stand-ins of other schedulers. Slurm is Debian's; where
# it cannot be installed its test is skipped.
test-clusters: $(VENV)/.installed-test
	$(PIP) -e ".[cluster]"
	@test -x /usr/sbin/slurmctld || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends slurm-wlm munge > /dev/null; } || echo "Slurm cannot be installed here"
	pytest -m cluster

clean:
	rm -rf $(VENV) results data/demo .snakemake
