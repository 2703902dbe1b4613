#!/bin/sh
# Says of a job of Grid Engine: running, success or failed. Asked once in a while by Snakemake.
# The scheduler is asked only whether the job is still there; how it went, the job itself wrote (jobscript.sh).
answer=$(qstat -j "$1" 2>&1)
case $answer in
    *"do not exist"*) ;;
    *"error reason"*) qdel "$1" >/dev/null && echo failed && exit ;; # could not be started, and would wait for ever
    *) echo running && exit ;; # also where the master does not answer
esac
. "${SAMPATH_WSI_WORKFLOW:-$(dirname "$0")/../../..}/workflow/profiles/outcome.sh"
