#!/bin/sh
# Ends Jobs. Snakemake waits for two seconds at most.
kubectl delete --wait=false "$@"
