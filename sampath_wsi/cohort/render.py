"""The page as HTML: the template filled in, style and script with the hashes that alone its security policy admits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from sampath_wsi import __version__
from sampath_wsi.cohort.table import SlideOutcome
from sampath_wsi.cohort.view import PageView, gather
from sampath_wsi.files import written_aside
from sampath_wsi.model.card import ModelCard
from sampath_wsi.progress import duration


def write_page(
    outcomes: Sequence[SlideOutcome],
    results: Path,
    out: Path,
    *,
    table: Path | None = None,
    card: ModelCard | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Write the cohort's page: table, plots, a picture of every slide with its numbers, and what made it.

    It is one file without any request of the network; links lead to the results by their relative paths. The same
    results give the same bytes.

    Parameters
    ----------
    outcomes
        What :func:`sampath_wsi.cohort.table.read_cohort` gives; slides stand on the page in that order.
    results
        The folder of all results, with ``slides/`` and ``logs/``.
    table
        The cohort's table, to link to.
    card, config
        The model's card and the configuration of the run, to be shown.
    """
    html = render(gather(outcomes, results, out, table=table, card=card, config=config))
    with written_aside(out) as aside:
        # File names that are no UTF-8 hold lone surrogates.
        aside.write_text(html, encoding="utf-8", errors="backslashreplace")


def render(view: PageView) -> str:
    """The page as a text; everything that the view holds is escaped."""
    environment = Environment(
        loader=PackageLoader("sampath_wsi.cohort"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(mm2=_mm2, yaml=_as_yaml, duration=duration)
    style, script = _resource("page.css"), _resource("page.js")
    return environment.get_template("page.html.j2").render(
        view=view,
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _visible(value: Any) -> Any:
    """What files and slides are called, with control and direction characters spelt out; not what is marked safe."""
    if not isinstance(value, str) or value.isprintable() or hasattr(value, "__html__"):
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def _mm2(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110).rstrip()


def _resource(name: str) -> str:
    return (files("sampath_wsi.cohort") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
