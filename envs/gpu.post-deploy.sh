#!/usr/bin/env bash
# Snakemake runs this in the new environment. The program itself is not on any channel.
bash "$SAMPATH_WSI_WORKFLOW/envs/install.sh"
