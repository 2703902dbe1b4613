"""Cores and memory that this process may use, and the versions that it runs with.

Limits of control groups are read here: of the libraries at hand psutil knows none, and ``dask.system`` only that of
the innermost group for cores, none where a container sees the host's path, and none for memory.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "torch", "zarr", "dask", "shapely", "openslide-python")


def cores() -> int:
    """Count the cores that this process may run on: fewer than the machine's under taskset, Slurm or a container."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return usable if quota is None else max(1, min(usable, round(quota)))


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or less where a container or scheduler limits it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit_bytes()
    return physical if limit is None else min(physical, limit)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the lowest limit of this process's control group and those above it; None where there is none."""
    texts = _group_limits(root, "memory", "memory.max", "memory.limit_in_bytes")
    # The first version of control groups says "no limit" with a number near 2^63.
    return min((int(text) for text in texts if text.isdigit() and int(text) < 1 << 60), default=None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the lowest limit of this process's control group and those above it, in cores; None without one."""
    quotas = [text.split() for text in _group_limits(root, "cpu", "cpu.max")]
    return min((int(used) / int(period) for used, period in quotas if used.isdigit()), default=None)


def _group_limits(root: Path, controller: str, name: str, name_v1: str = "") -> list[str]:
    """Read a file of this process's control group and of those above it, of the groups' second or first version."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, place = line.split(":", 2)
        top, wanted = root / "sys/fs/cgroup", name
        if number != "0":
            if not name_v1 or controller not in controllers.split(","):
                continue
            top, wanted = top / controller, name_v1
        folder = top / place.lstrip("/")
        # In a container the path may be the host's, and only the top is there.
        groups = [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
        found += [text for each in groups if (text := _read(each / wanted))]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def describe_system() -> str:
    """Describe the machine that this process runs on, in one line."""
    memory, system = f"{memory_bytes() / 2**30:.1f} GiB of memory", f"{platform.system()} {platform.machine()}"
    return f"{platform.node()}: {cores()} cores, {memory}, {system}"


def describe_versions() -> str:
    """List the versions that decide about results and speed, in one line."""
    from sampath_wsi import __version__

    found = [f"{name} {number}" for name in _PACKAGES if (number := version_of(name))]
    return ", ".join([f"sampath-wsi {__version__}", f"Python {platform.python_version()}", *found])


def version_of(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
