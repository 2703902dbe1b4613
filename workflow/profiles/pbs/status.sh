#!/bin/sh
# Says of a job of OpenPBS or Torque: running, success or failed. Asked once in a while by Snakemake.
# The scheduler is asked only whether the job is still there; how it went, the job itself wrote (jobscript.sh).
answer=$(qstat -f "$1" 2>&1)
case $answer in
    *"job_state = "[CFX]* | *"Unknown Job"* | *"nknown job"* | *"has finished"*) ;;
    *) echo running && exit ;; # also where the server does not answer
esac
. "${SAMPATH_WSI_WORKFLOW:-$(dirname "$0")/../../..}/workflow/profiles/outcome.sh"
