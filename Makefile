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

.PHONY: install demo test test-clusters test-browser test-groovy test-viewers lint clean

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
	pytest -n 2 --dist worksteal -m "not cluster and not browser and not groovy"

# The workflow on a real Slurm, started here for the test, and on stand-ins of other schedulers. Slurm is Debian's; where
# it cannot be installed its test is skipped.
test-clusters: $(VENV)/.installed-test
	$(PIP) -e ".[cluster]"
	@test -x /usr/sbin/slurmctld || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends slurm-wlm munge > /dev/null; } || echo "Slurm cannot be installed here"
	pytest -m cluster

# The cohort's page in a real browser. Chromium is Debian's; where it cannot be installed its tests are skipped.
test-browser: $(VENV)/.installed-test
	$(PIP) -e ".[browser]"
	@command -v chromedriver > /dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends chromium chromium-driver > /dev/null; } || echo "Chromium cannot be installed here"
	pytest -m browser

# The scripts for QuPath, run by a real Groovy on stand-ins of QuPath. Groovy is Debian's; where it cannot be installed
# these tests are skipped.
test-groovy: $(VENV)/.installed-test
	@command -v groovy > /dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends groovy > /dev/null; } || echo "Groovy cannot be installed here"
	pytest -m groovy

# The OME-Zarr in napari's reader, which has an environment of its own (half a GB).
test-viewers: $(VENV)/.installed-test
	test -x .venv-viewers/bin/python || $(PYTHON) -m venv .venv-viewers
	.venv-viewers/bin/python -m pip install --quiet --disable-pip-version-check -r envs/viewers.txt
	pytest tests/test_viewers.py

clean:
	rm -rf $(VENV) .venv-viewers results data/demo .snakemake
