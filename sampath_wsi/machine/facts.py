"""What this process may use of the machine: cores, memory, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Whose versions decide about results and speed.
_PACKAGES = ("numpy", "torch", "zarr", "dask", "shapely", "openslide-python")


def cores() -> int:
    """Cores that this process may run on: fewer than the machine has under taskset, Slurm, or a container's limit."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return usable if quota is None else max(1, min(usable, round(quota)))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less where a container or scheduler limits it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit_bytes()
    return physical if limit is None else min(physical, limit)


def memory_limit_bytes() -> int | None:
    """The lowest limit of this process's cgroup and those above it; None where there is none."""
    limits = [int(text) for text in _cgroup_values("memory", "memory.max", "memory.limit_in_bytes") if text.isdigit()]
    # The first version of cgroups says "no limit" with a number near 2^63.
    return min((limit for limit in limits if limit < 1 << 60), default=None)


def describe_system() -> str:
    """On what this process runs, in one line."""
    gigabytes = memory_bytes() / 2**30
    return (
        f"{platform.node()}: {cores()} cores, {gigabytes:.1f} GiB of memory, {platform.system()} {platform.machine()}"
    )


def describe_versions() -> str:
    """With what this process runs, in one line."""
    from sampath_wsi import __version__

    found = [f"{name} {number}" for name in _PACKAGES if (number := version_of(name))]
    return ", ".join([f"sampath-wsi {__version__}", f"Python {platform.python_version()}", *found])


def version_of(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_quota() -> float | None:
    """The lowest limit in cores; None where there is none."""
    quotas = []
    for text in _cgroup_values("cpu", "cpu.max", ""):
        words = text.split()
        if len(words) == 2 and words[0].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _cgroup_values(controller: str, name: str, name_v1: str) -> list[str]:
    """What a file of this process's cgroup and of those above it says, in cgroups' second or first version."""
    found = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, controllers, place = line.split(":", 2)
        root, wanted = Path("/sys/fs/cgroup"), name
        if number != "0":
            if controller not in controllers.split(","):
                continue
            root, wanted = root / controller, name_v1
        folder = root / place.lstrip("/")
        # In a container the path may be the host's, and only the root is there.
        for each in (folder, *folder.parents):
            if wanted and (text := _read(each / wanted).strip()):
                found.append(text)
            if each == root:
                break
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
