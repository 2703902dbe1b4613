"""Check whether everything that the program needs is here, and say how to get the rest.

Here are the checks of the machine: scheduler, cores, memory, disks, terminal. Those of what is installed are in
:mod:`sampath_wsi.machine.installation`.
"""

from __future__ import annotations

import errno
import fcntl
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from sampath_wsi.errors import one_line
from sampath_wsi.machine import facts

_GB = 1e9
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 20 * _GB, 1 * _GB
_LITTLE_INODES = 20_000
_LITTLE_MEMORY_BYTES = 4 * 2**30
_SLURM_PLUGIN = "snakemake-executor-plugin-slurm"


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Parameters
    ----------
    status
        ``fail``: the program will not work; ``warn``: it will, but not well or not all of it.
    remedy
        What to do; empty where all is well.
    check
        The name of the check.
    """

    status: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""
    check: str = ""


ok, warn, fail = (partial(Finding, status) for status in ("ok", "warn", "fail"))


def examine(folder: Path) -> Iterator[Finding]:
    """Run all checks, one after the other.

    Parameters
    ----------
    folder
        Where results will be written; it need not exist.
    """
    from sampath_wsi.machine import installation
    from sampath_wsi.model.zoo import CACHE_VARIABLE, cache_dir

    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "Python": installation.python,
        "packages": installation.packages,
        "OpenSlide": installation.openslide,
        "torch": installation.torch,
        "GPU": installation.gpu,
        "models": installation.models,
        "encoders": installation.encoders,
        "Snakemake": installation.snakemake,
        "Slurm": slurm,
        "cores": cores,
        "memory": memory,
        "results": lambda: disk(folder),
        "temporary files": lambda: disk(Path(tempfile.gettempdir()), "Set TMPDIR to a folder with more space."),
        "cache": lambda: disk(cache_dir(), f"Set {CACHE_VARIABLE} to another folder."),
        "terminal": terminal,
    }
    for name, check in checks.items():
        yield from run_check(name, check)


def run_check(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Run a check; one that breaks off is a finding too."""
    try:
        found = list(check())
    except ImportError as error:
        found = [fail(str(error), "Install sampath-wsi again, in an environment of its own.")]
    except Exception as error:  # of any kind: the other checks must be run
        found = [fail(f"broke off: {type(error).__name__}: {error}", "Report this, please, if it stays.")]
    for each in found:
        yield replace(each, text=one_line(each.text), remedy=one_line(each.remedy), check=name)


def slurm(answer_s: float = 20.0) -> Iterator[Finding]:
    """Check whether Slurm is here, answers within ``answer_s`` seconds, and can be used by Snakemake."""
    if shutil.which("sbatch") is None:
        yield ok("not on this machine (needed only for workflow/profiles/slurm)")
        return
    try:
        run = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=answer_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield warn(f"sbatch is here, but sinfo does not answer ({error})", "Ask who runs the cluster.")
        return
    if run.returncode:
        # The last of its messages is the conclusion.
        said = (run.stderr or run.stdout).strip().splitlines() or ["no answer"]
        yield warn(f"sinfo: {said[-1].removeprefix('sinfo: ')}", "Ask who runs the cluster; slurmctld may be down.")
        return
    partitions = ", ".join(
        dict.fromkeys(line.split()[0].rstrip("*") for line in run.stdout.splitlines() if line.split())
    )
    if facts.version_of(_SLURM_PLUGIN) is None:
        yield warn(
            f"answers (partitions {partitions}), but Snakemake's plugin for it is missing",
            f'Install it: pip install -c envs/constraints.txt ".[cluster]" or pip install {_SLURM_PLUGIN}',
        )
        return
    yield ok(f"answers (partitions {partitions}); Snakemake's plugin is here")


def cores() -> Iterator[Finding]:
    """Count the cores that this process may use."""
    usable, there = facts.cores(), os.cpu_count() or 1
    limited = f" of the machine's {there} (taskset, a scheduler or a container limits them)" if usable < there else ""
    yield ok(f"{usable}{limited}")


def memory() -> Iterator[Finding]:
    """Check how much memory this process may use."""
    usable, limit = facts.memory_bytes(), facts.memory_limit_bytes()
    text = f"{usable / 2**30:.1f} GiB"
    if limit is not None and limit <= usable:
        text += " (a limit of the control group)"
    if usable < _LITTLE_MEMORY_BYTES:
        yield warn(f"{text}: little for a model", "Ask for more: 4 GB are enough for most slides, 12 GB with a GPU.")
    else:
        yield ok(text)


def disk(folder: Path, otherwise: str = "Free some space, or write to another disk.") -> Iterator[Finding]:
    """Check whether a folder, or the one that it would be made in, can be written, has space, and knows locks."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        locks = _locks_work(place)
    except OSError as error:
        yield fail(f"{place}: cannot be written ({error.strerror})", f"Change the permissions, or else: {otherwise}")
        return
    free, inodes = shutil.disk_usage(place).free, os.statvfs(place)
    text = f"{place}: {free / _GB:.1f} GB free"
    if free < _TOO_LITTLE_BYTES:
        yield fail(text, otherwise)
    elif free < _LITTLE_BYTES:
        yield warn(f"{text}; a large slide takes several GB", otherwise)
    elif inodes.f_files and inodes.f_favail < _LITTLE_INODES:
        yield warn(f"{text}, but room for {inodes.f_favail} more files only", otherwise)
    else:
        yield ok(text)
    if not locks:
        yield warn(
            f"{place}: file locks do not work there, so nothing keeps two runs out of one folder",
            "Never run two workflows with one output folder, or use a disk with locks (NFS: mount it with locking).",
        )


def _locks_work(folder: Path) -> bool:
    """Return whether a lock on a file there keeps another holder off, as runs do with each other.

    Raises
    ------
    OSError
        If no file can be written there.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".sampath-doctor-") as file, open(file.name, "rb") as other:
        file.write(b"x")
        file.flush()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return False
            raise
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def terminal() -> Iterator[Finding]:
    """Check whether names in any script can be shown, and files with such names opened."""
    encodings = (locale.getpreferredencoding(False), sys.getfilesystemencoding())
    if any(encoding.lower().replace("-", "") != "utf8" for encoding in encodings):
        yield warn(
            f"the locale's encoding is {encodings[0]}: names with other characters are shown with backslashes",
            "Set a UTF-8 locale: export LC_ALL=C.UTF-8",
        )
    else:
        where = f"TERM={os.environ.get('TERM', '')}" if sys.stderr.isatty() else "not a terminal: progress as lines"
        yield ok(f"{encodings[0]}, {where}")
