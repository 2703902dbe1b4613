"""A real Slurm of one machine for a test: its own ports, key and folder, two GPUs that are but files, no accounting."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CPUS, MEMORY_MB = 8, 100_000
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# Neither systemd nor control groups are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
KillWait=5
PlugStackConfig=/dev/null
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:2
PartitionName=only Nodes={host} Default=YES MaxTime=INFINITE
"""


def why_not() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"needs Debian's packages slurm-wlm and munge (`make test-clusters` installs them): no {missing[0]}"
    return "" if os.getuid() == 0 else "starts munged and slurmd, which only root can do"


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job; ``rule`` and ``slide`` are from the comment that Snakemake's plugin gives it."""

    number: str
    state: str
    rule: str
    slide: str
    gpus: int
    memory_mb: int
    minutes: int


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster and the environment in which its commands reach it."""

    environment: dict[str, str]

    def command(self, *words: str) -> str:
        """What a command of Slurm prints.

        Raises
        ------
        subprocess.CalledProcessError
            If it fails.
        """
        done = subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True, timeout=3600)
        return done.stdout

    def jobs(self) -> list[Job]:
        """All jobs, finished ones too, in the order of their numbers."""
        lines = self.command("scontrol", "show", "job", "--oneliner").splitlines()
        return sorted((_job(line) for line in lines if line.startswith("JobId=")), key=lambda job: int(job.number))


def _job(line: str) -> Job:
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    rule, _, slide = fields.get("Comment", "").removeprefix("rule_").partition("_wildcards_")
    gpus = fields.get("TresPerJob", "gres:gpu:0").rpartition(":")[2]
    memory = fields["MinMemoryNode"]
    hours, minutes, _ = fields["TimeLimit"].split(":")
    return Job(
        number=fields["JobId"],
        state=fields["JobState"],
        rule=rule,
        slide=slide,
        gpus=int(gpus),
        memory_mb=int(memory[:-1]) * {"M": 1, "G": 1024}[memory[-1]],
        minutes=60 * int(hours) + int(minutes),
    )


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Start Slurm with all its files in a folder; at the end its jobs are cancelled and its daemons stopped."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        (folder / f"gpu{number}").touch()
    _write_configuration(folder)
    with ExitStack() as daemons:
        _start_munge(folder, daemons)
        environment = _environment(folder)
        for name in ("slurmctld", "slurmd"):
            daemons.enter_context(_daemon([name, "-D"], folder / f"{name}.out", environment))
        cluster = SlurmCluster(environment)
        _wait_until(lambda: "idle" in cluster.command("sinfo", "--noheader", "--format=%T"), "the node", folder)
        daemons.callback(_cancel_all, cluster, folder)
        yield cluster


def _write_configuration(folder: Path) -> None:
    controller_port, node_port = _free_ports(2)
    text = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        folder=folder,
        controller_port=controller_port,
        node_port=node_port,
        cpus=CPUS,
        memory_mb=MEMORY_MB,
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    # The plugin runs srun without the variables of Slurm: then it would look for /etc/slurm/slurm.conf.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=_path())} "$@"\n')
    srun.chmod(0o755)


def _start_munge(folder: Path, daemons: ExitStack) -> None:
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    options = [f"--{name}={folder / f'munge.{end}'}" for name, end in MUNGE_FILES.items()]
    command = ["munged", "--foreground", "--force", *options]
    daemons.enter_context(_daemon(command, folder / "munged.out", {**os.environ, "PATH": _path()}))
    _wait_until(lambda: (folder / "munge.socket").exists(), "munged", folder)


MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SNAKEMAKE"))}
    path = f"{folder / 'bin'}{os.pathsep}{_path()}"
    return {**kept, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}


@contextmanager
def _daemon(command: list[str], output: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(output, "wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cancel_all(cluster: SlurmCluster, folder: Path) -> None:
    cluster.command("scancel", "--user=root")
    _wait_until(lambda: not cluster.command("squeue", "--noheader"), "the end of all jobs", folder)


def _wait_until(done: object, what: str, folder: Path) -> None:
    assert callable(done)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.2)
    logs = "\n".join(
        f"{p.name}: {p.read_text()[-2000:]}" for p in [*sorted(folder.glob("*.log")), *folder.glob("*.out")]
    )
    raise TimeoutError(f"waited a minute for {what}\n{logs}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [entry.getsockname()[1] for entry in sockets]


def _path() -> str:
    # The daemons lie where only root's path leads.
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
