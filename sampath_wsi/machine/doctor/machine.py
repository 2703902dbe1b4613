"""Checks of where the program runs: scheduler, cores, memory, disks, terminal."""

from __future__ import annotations

import errno
import fcntl
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sampath_wsi.machine import facts as machine
from sampath_wsi.machine.doctor.findings import Result, fail, ok, warn

_GB = 1e9
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 20 * _GB, 1 * _GB
_LITTLE_INODES = 20_000
_LITTLE_MEMORY_BYTES = 4 * 2**30
_ANSWER_S = 20
_SLURM_PLUGIN = "snakemake-executor-plugin-slurm"


def slurm() -> Iterator[Result]:
    """Whether Slurm is here, answers, and can be used by Snakemake."""
    if shutil.which("sbatch") is None:
        yield ok("not on this machine (needed only for workflow/profiles/slurm)")
        return
    try:
        run = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=_ANSWER_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield warn(f"sbatch is here, but sinfo does not answer ({error})", "Ask who runs the cluster.")
        return
    if run.returncode:
        # The last of its complaints says what it comes to.
        said = (run.stderr or run.stdout).strip().splitlines() or ["no answer"]
        yield warn(f"sinfo: {said[-1].removeprefix('sinfo: ')}", "Ask who runs the cluster; slurmctld may be down.")
        return
    partitions = ", ".join(
        dict.fromkeys(line.split()[0].rstrip("*") for line in run.stdout.splitlines() if line.split())
    )
    if machine.version_of(_SLURM_PLUGIN) is None:
        yield warn(
            f"answers (partitions {partitions}), but Snakemake's plugin for it is missing",
            f'Install it: pip install -c envs/constraints.txt ".[cluster]" or pip install {_SLURM_PLUGIN}',
        )
        return
    yield ok(f"answers (partitions {partitions}); Snakemake's plugin is here")


def cores() -> Iterator[Result]:
    """How many this process may use."""
    usable, there = machine.cores(), os.cpu_count() or 1
    limited = f" of the machine's {there} (taskset, a scheduler or a container limits them)" if usable < there else ""
    yield ok(f"{usable}{limited}")


def memory() -> Iterator[Result]:
    """How much this process may use."""
    usable, limit = machine.memory_bytes(), machine.memory_limit_bytes()
    text = f"{usable / 2**30:.1f} GiB"
    if limit is not None and limit <= usable:
        text += " (a limit of the control group)"
    if usable < _LITTLE_MEMORY_BYTES:
        yield warn(f"{text}: little for a model", "Ask for more: 4 GB are enough for most slides, 12 GB with a GPU.")
    else:
        yield ok(text)


def temporary_files() -> Iterator[Result]:
    """The folder of the system's temporary files."""
    return disk(Path(tempfile.gettempdir()), "Set TMPDIR to a folder with more space.")


def cache() -> Iterator[Result]:
    """The folder of downloaded weights."""
    from sampath_wsi.model.zoo import CACHE_VARIABLE, cache_dir

    return disk(cache_dir(), f"Set {CACHE_VARIABLE} to another folder.")


def disk(folder: Path, otherwise: str = "Free some space, or write to another disk.") -> Iterator[Result]:
    """Whether a folder, or the one that it would be made in, can be written, has space, and knows locks."""
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
    """Whether a lock on a file there keeps another holder off, as runs do with each other.

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


def terminal() -> Iterator[Result]:
    """Whether names of any script can be shown and files of such names opened."""
    encodings = (locale.getpreferredencoding(False), sys.getfilesystemencoding())
    if any(encoding.lower().replace("-", "") != "utf8" for encoding in encodings):
        yield warn(
            f"the locale's encoding is {encodings[0]}: names with other characters are shown with backslashes",
            "Set a UTF-8 locale: export LC_ALL=C.UTF-8",
        )
    else:
        where = f"TERM={os.environ.get('TERM', '')}" if sys.stderr.isatty() else "not a terminal: progress as lines"
        yield ok(f"{encodings[0]}, {where}")
