#!/bin/sh
# bsub, but prints the number of the job alone.
mkdir -p .snakemake/cluster
answer=$(bsub "$@") || exit 1
echo "$answer" | sed -n 's/^Job <\([0-9]*\)>.*/\1/p'
