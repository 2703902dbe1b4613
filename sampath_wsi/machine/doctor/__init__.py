"""Whether everything is here that the program needs, and what to do where it is not.

``findings`` has what a check finds; ``software`` and ``machine`` hold the checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sampath_wsi.machine.doctor.findings import Check, Finding, run_check


def examine(folder: Path) -> Iterator[Finding]:
    """Run all checks, one after the other.

    Parameters
    ----------
    folder
        Where results will be written; it need not exist.
    """
    from sampath_wsi.machine.doctor import machine, software

    checks: list[tuple[str, Check]] = [
        ("Python", software.python),
        ("packages", software.packages),
        ("OpenSlide", software.openslide),
        ("torch", software.torch),
        ("GPU", software.gpu),
        ("models", software.models),
        ("encoders", software.encoders),
        ("Snakemake", software.snakemake),
        ("Slurm", machine.slurm),
        ("cores", machine.cores),
        ("memory", machine.memory),
        ("results", lambda: machine.disk(folder)),
        ("temporary files", machine.temporary_files),
        ("cache", machine.cache),
        ("terminal", machine.terminal),
    ]
    for name, check in checks:
        yield from run_check(name, check)
