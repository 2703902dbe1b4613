"""The last lines of a run: how many slides are done, which are not and why, and where everything is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampath_wsi.cohort.table import SlideOutcome

_MOST_REASONS = 20


def shown_from(path: Path, start: Path) -> Path:
    """A path as somebody in the folder ``start`` would write it, if it is below."""
    return path.relative_to(start) if path.is_relative_to(start) else path


def print_outcomes(
    outcomes: Sequence[SlideOutcome], results: Path, *, table: Path, page: Path | None, took: str = ""
) -> None:
    """Print them; of what is to be found in ``results``, ``table`` and ``page``, only what is there is named.

    Parameters
    ----------
    took
        What to say about the time: ``", after 2 min"``.
    """
    missing = [outcome for outcome in outcomes if outcome.state != "done"]
    print(f"{len(outcomes) - len(missing)} of {len(outcomes)} slides are done{took}.")
    for outcome in missing[:_MOST_REASONS]:
        print(f"  {outcome.row.slide}: {outcome.reason}")
    if len(missing) > _MOST_REASONS:
        print(f"  and {len(missing) - _MOST_REASONS} more, see the table")
    if missing:
        print("Mend these slides or leave them out, then give the same command again: what is finished stays.")
    objects = "slides/*/segmentation.geojson.gz"
    places = {
        "Page": page if page is not None and page.exists() else None,
        "Table": table if table.exists() else None,
        "For QuPath": results / objects if any(results.glob(objects)) else None,
        "Logs": results / "logs" if (results / "logs").exists() else None,
    }
    for what, place in places.items():
        if place is not None:
            print(f"  {what:11} {place}")
