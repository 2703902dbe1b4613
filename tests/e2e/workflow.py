"""Runs the workflow as a user does, in a folder of its own that borrows the checkout's files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def checkout(folder: Path) -> Path:
    """A working directory with the workflow in it, so that nothing is written into the real checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "workflow", "profiles", "config", "envs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def snakemake(folder: Path, *words: object, cores: int = 2) -> subprocess.CompletedProcess[str]:
    """`snakemake --resources gpu=1 --cores N ...` in a working directory."""
    return run(folder, "--resources", "gpu=1", "--cores", cores, *words)


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`snakemake ...` in a working directory."""
    return _run(folder, ["snakemake", *map(str, words)])


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A piece of shell script in a working directory, with the environment's commands; ends at the first error."""
    return _run(folder, ["bash", "-euo", "pipefail", "-c", script])


def _run(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)


def read_table(path: Path) -> list[dict[str, str]]:
    """A tab-separated table as rows."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
