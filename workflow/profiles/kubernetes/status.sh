#!/bin/sh
# Says of a Job: running, success or failed. Asked once in a while by Snakemake.
answer=$(kubectl get "$1" -o 'jsonpath={range .status.conditions[?(@.status=="True")]}{.type} {end}' 2>&1)
case $answer in
    *Complete*) echo success ;;
    *Failed* | *NotFound*) echo failed ;;
    *) echo running ;; # also where Kubernetes does not answer
esac
