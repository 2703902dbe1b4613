#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the working directory: the program itself comes from the checkout.
set -euo pipefail
python -m pip install --no-deps "${SAMPATH_WSI_SOURCE:-.}"
