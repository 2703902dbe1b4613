# Read by the status.sh of several schedulers once they no longer know job $1: how it went, the job itself wrote
# (jobscript.sh).
exit_file=.snakemake/cluster/$1.exit
# A shared file system shows the file late.
for pause in 0 5 10; do
    sleep "$pause"
    test -s "$exit_file" && break
done
code=$(cat "$exit_file" 2>/dev/null)
rm -f "$exit_file"
test "$code" = 0 && echo success || echo failed
