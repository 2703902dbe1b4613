"""A batch with bad slides in it, by the script that measures 200 slides: benchmarks/batch.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .workflow import ROOT, read_table

BAD = {
    "missing": "there is no such slide",
    "notes": "not a slide that OpenSlide knows",
    "truncated": "Short read",
    "no-resolution": "no resolution",
    "undecodable": "Decoding error",
}


@pytest.mark.slow
def test_good_slides_have_results_and_bad_ones_a_reason(tmp_path: Path, tiny_model: Path) -> None:
    script, folder = ROOT / "benchmarks" / "batch.py", tmp_path / "batch"
    words = [sys.executable, script, "--slides", "8", "--cores", "8", "--model", tiny_model, "--folder", folder]
    words += ["--goal", "inf"]  # nothing here depends on how fast the machine is
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=3600)
    log = (folder / "log.txt").read_text()
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{log[-5000:]}"
    assert "exit code 1" in done.stdout

    rows = read_table(folder / "results" / "cohort.tsv")
    assert {row["slide"] for row in rows[:5]} == set(BAD)
    assert [row["status"] for row in rows] == ["failed"] * 5 + ["ok"] * 3
    for row in rows[:5]:
        assert BAD[row["slide"]] in row["reason"]
    # Somebody who looks at the terminal when all is over sees them too.
    last = log[-3000:]
    assert "3 of 8 slides" in last
    assert all(f"  {name}: tile: " in last for name in BAD)
    assert "results/cohort.tsv" in last
