#!/bin/sh
# Says of a job of LSF: running, success or failed. Asked once in a while by Snakemake.
# The scheduler is asked only whether the job is still there; how it went, the job itself wrote (jobscript.sh).
answer=$(bjobs -noheader -o stat "$1" 2>&1)
case $answer in
    DONE | EXIT | *"is not found"*) ;;
    *) echo running && exit ;; # also where LSF itself does not answer
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
