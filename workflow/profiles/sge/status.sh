#!/bin/sh
# Says of a job of Grid Engine: running, success or failed. Asked once in a while by Snakemake.
# The scheduler is asked only whether the job is still there; how it went, the job itself wrote (jobscript.sh).
answer=$(qstat -j "$1" 2>&1)
case $answer in
    *"do not exist"*) ;;
    *"error reason"*) qdel "$1" >/dev/null && echo failed && exit ;; # could not be started, and would wait for ever
    *) echo running && exit ;; # also where the master does not answer
esac
exit_file=.snakemake/cluster/$1.exit
# A shared file system shows the file late.
for pause in 0 5 10; do
    sleep "$pause"
    test -s "$exit_file" && break
done
code=$(cat "$exit_file" 2>/dev/null)
rm -f "$exit_file"
test "$code" = 0 && echo success || echo failed
