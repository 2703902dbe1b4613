"""Functions of several benchmarks: cost of a process, description of the machine, tables."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_WATCH_EVERY_S = 0.05


@dataclass(frozen=True)
class Cost:
    """Cost of one process, its children included."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(*words: object) -> Cost:
    """Run a command of sampath-wsi in a process of its own and measure it."""
    return measure_command([str(Path(sys.executable).parent / "sampath-wsi"), *map(str, words)])


def measure_command(command: Sequence[str]) -> Cost:
    """Run any command in a process of its own and measure it; ends the benchmark where the command fails."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        peak_mb = seen_cpu_s = 0.0
        while _is_running(process.pid):
            peak_mb = max(peak_mb, family_mb(process.pid))
            seen_cpu_s = max(seen_cpu_s, _family_cpu_s(process.pid))
            time.sleep(_WATCH_EVERY_S)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        log.seek(0)
        if status:
            sys.exit(f"{' '.join(command)} failed:\n{log.read().decode()}")
    wall_s = time.monotonic() - begun
    # What a helper process did is nowhere counted once it has ended after its parent.
    cpu_s = max(usage.ru_utime + usage.ru_stime, seen_cpu_s)
    return Cost(wall_s, cpu_s, max(peak_mb, usage.ru_maxrss / 1024))


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """Watch this process and its children: the list's one element is the peak of their memory so far, in MB."""
    peak_mb, stop = [family_mb(os.getpid())], threading.Event()

    def watch() -> None:
        while not stop.wait(_WATCH_EVERY_S):
            peak_mb[0] = max(peak_mb[0], family_mb(os.getpid()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak_mb
    finally:
        stop.set()
        thread.join()


def family_mb(pid: int) -> float:
    """Memory of a process and its descendants together, in MB; pages that several of them share count once."""
    return sum(_proportional_kb(member) for member in _family(pid)) / 1024


def tree_mb(path: Path) -> float:
    """Bytes of a file, or of all files in a folder, in MB."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def print_machine(*packages: str) -> None:
    """Print the machine, the date, and the versions of Python and of some packages: every benchmark begins so."""
    import psutil

    versions = ", ".join(f"{name} {version(name)}" for name in ("sampath-wsi", *packages))
    print(
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GB; "
        f"{platform.system()}, Python {platform.python_version()}; {versions}; {datetime.date.today()}\n"
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown; the first column to the left, the others to the right; floats with three digits."""
    print(f"| {' | '.join(header)} |\n|---|{'---:|' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(f'{v:.3g}' if isinstance(v, float) and v < 1000 else _plain(v) for v in row)} |")
    print(flush=True)


def _plain(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _family(pid: int) -> list[int]:
    try:
        # A child belongs to the thread that started it.
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in _family(int(child)))]


def _family_cpu_s(pid: int) -> float:
    """Processor time of a process, its descendants, and the children that these have waited for."""
    ticks = 0
    for member in _family(pid):
        try:
            ticks += sum(map(int, Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _proportional_kb(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
