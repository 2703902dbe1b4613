#!/bin/sh
# properties = {properties}
# How the job went, for status.sh. The command below begins in the workflow's folder and ends this shell.
trap 'echo $? > .snakemake/cluster/$LSB_JOBID.exit' EXIT
{exec_job}
