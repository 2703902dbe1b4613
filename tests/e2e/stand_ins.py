"""Stand-ins for the commands of LSF, PBS, Grid Engine and Kubernetes.

They take their words, give their answers, and run each job at once in the background. This file is linked under the
commands' names; the folder of the jobs is in STAND_INS.

With KILL_FIRST=word the first job with that word in its submission is killed before it does anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

COMMANDS = ("bsub", "bjobs", "bkill", "qsub", "qstat", "qdel", "kubectl")


def submit(description: str, script: str, variable: str) -> str:
    """Run a job script in the background, its number in an environment variable; notes what it was submitted with."""
    folder = Path(os.environ["STAND_INS"])
    number = 1 + len(list(folder.glob("*.json")))
    word = os.environ.get("KILL_FIRST")
    seen = [json.loads(path.read_text())["description"] for path in folder.glob("*.json")]
    killed = word is not None and word in description and not any(word in text for text in seen)
    command = "kill -9 $$" if killed else f"sh '{script}'"
    identity = f"{number}.server" if variable == "PBS_JOBID" else str(number)
    with open(folder / f"{number}.log", "w") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"{command}; echo $? > '{folder}/{number}.code'"],
            env={**os.environ, variable: identity},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{number}.json").write_text(json.dumps({"description": description, "pid": process.pid}))
    return identity


def alive(identity: str) -> bool:
    """Whether a job still runs."""
    path = Path(os.environ["STAND_INS"]) / f"{identity.partition('.')[0]}.json"
    try:
        return psutil.Process(json.loads(path.read_text())["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def succeeded(identity: str) -> bool:
    """Whether a job that has ended wrote exit code 0."""
    path = Path(os.environ["STAND_INS"]) / f"{identity}.code"
    return path.exists() and path.read_text() == "0\n"


def answer(name: str, words: list[str]) -> str:
    """What a command prints."""
    line = " ".join(words)
    if name == "bsub":
        return f"Job <{submit(line, words[-1], 'LSB_JOBID')}> is submitted to queue <normal>."
    if name == "bjobs":
        return "RUN" if alive(words[-1]) else "DONE" if succeeded(words[-1]) else "EXIT"
    if name == "qsub":
        return submit(line, words[-1], "JOB_ID" if "-terse" in words else "PBS_JOBID")
    if name == "qstat" and "-f" in words:
        return "    job_state = R" if alive(words[-1]) else f"qstat: Unknown Job Id {words[-1]}"
    if name == "qstat":
        return f"job_number: {words[-1]}" if alive(words[-1]) else f"Following jobs do not exist:\n{words[-1]}"
    if name == "kubectl" and words[0] == "create":
        text = sys.stdin.read()
        container = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]
        return f"job.batch/{submit(text, container['command'][-1], 'KUBERNETES_JOB')}"
    if name == "kubectl" and words[0] == "get":
        identity = words[1].removeprefix("job.batch/")
        return "" if alive(identity) else "Complete " if succeeded(identity) else "Failed "
    raise SystemExit(f"{name} {line}: not expected")


if __name__ == "__main__":
    print(answer(Path(sys.argv[0]).name, sys.argv[1:]))
