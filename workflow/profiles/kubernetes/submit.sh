#!/bin/sh
# Starts a job script as a Kubernetes Job and prints its name.
test $# = 9 || { echo "usage: $0 RULE CPUS MB MINUTES GPUS IMAGE CLAIM MOUNT SCRIPT" >&2 && exit 2; }
test "$5" = 0 && gpus= || gpus=", nvidia.com/gpu: \"$5\""
kubectl create -o name -f - <<END
apiVersion: batch/v1
kind: Job
metadata:
  generateName: sampath-wsi-
  labels: {app: sampath-wsi, rule: "$1"}
spec:
  # Snakemake submits again what failed.
  backoffLimit: 0
  activeDeadlineSeconds: $(($4 * 60))
  ttlSecondsAfterFinished: 86400
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: job
          image: "$6"
          command: [sh, "$9"]
          workingDir: "$PWD"
          resources:
            requests: {cpu: "$2", memory: "$3M"$gpus}
            limits: {memory: "$3M"$gpus}
          volumeMounts:
            - {name: shared, mountPath: "$8"}
      volumes:
        - name: shared
          persistentVolumeClaim: {claimName: "$7"}
END
