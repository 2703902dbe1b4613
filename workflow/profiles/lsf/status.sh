#!/bin/sh
# Says of a job of LSF: running, success or failed. Asked once in a while by Snakemake.
# The scheduler is asked only whether the job is still there; how it went, the job itself wrote (jobscript.sh).
answer=$(bjobs -noheader -o stat "$1" 2>&1)
case $answer in
    DONE | EXIT | *"is not found"*) ;;
    *) echo running && exit ;; # also where LSF itself does not answer
esac
. "${SAMPATH_WSI_WORKFLOW:-$(dirname "$0")/../../..}/workflow/profiles/outcome.sh"
