#!/bin/sh
# properties = {properties}
# How the job went, for status.sh. The command below begins in the workflow's folder and ends this shell.
trap 'echo $? > .snakemake/cluster/$JOB_ID.exit' EXIT
{exec_job}
