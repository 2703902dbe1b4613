"""The plan of a run: from the user's request to a folder and a command line of Snakemake.

The workflow itself lies in the package (``_workflow``: links in a checkout, files in a wheel), so a run needs no
checkout. Everything of a run lies in its output folder: results, Snakemake's memory of them, and the two files that say
what was asked for::

    OUT/config.yaml    the configuration, without keys that have their default
    OUT/slides.tsv     the slides, with paths in full
    OUT/.snakemake/    Snakemake's records of the results, and its logs

Snakemake works in that folder. So the same command goes on with it wherever it is given, two runs with different
folders do not meet, and a folder can be moved. Paths that people name count from where they stand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from sampath_wsi.classes import class_index
from sampath_wsi.errors import ConfigError
from sampath_wsi.files import written_aside
from sampath_wsi.machine.facts import cores as usable_cores
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import installed_card, resolve_model
from sampath_wsi.options import load_config, read_config, with_settings
from sampath_wsi.runs.chosen_model import check_named
from sampath_wsi.runs.sheet import FILES, SheetRow, collect_slides, write_slides

_PACKAGE = Path(__file__).parents[1]
WORKFLOW = (_PACKAGE / "_workflow" / "Snakefile").resolve().parent
PROFILES = WORKFLOW / "workflow" / "profiles"
# The module that shows how a run goes (runs/display.py), where Snakemake looks for such modules.
_PLUGINS = _PACKAGE / "_workflow" / "plugins"
# Executors that Snakemake brings itself.
_OWN_EXECUTORS = ("local", "dryrun", "touch")


def tell_scripts() -> None:
    """Tell the scripts of profiles and of conda environments where the workflow lies, wherever it is run.

    ``SAMPATH_WSI_SOURCE``, which a user can set, is the source from which conda environments install this program: a
    checkout, or the installed package.
    """
    os.environ["SAMPATH_WSI_WORKFLOW"] = str(WORKFLOW)
    source = WORKFLOW if (WORKFLOW / "pyproject.toml").is_file() else _PACKAGE
    os.environ.setdefault("SAMPATH_WSI_SOURCE", str(source))


@dataclass(frozen=True)
class RunPlan:
    """A run that is planned: configuration, slides and folders.

    Parameters
    ----------
    out
        The output folder, in full.
    config
        The configuration without defaults; its paths count from ``out``.
    rows
        The slides, with paths in full.
    card
        That of the model.
    """

    out: Path
    config: dict[str, Any]
    rows: tuple[SheetRow, ...]
    card: ModelCard

    def write(self, folder: Path) -> Path:
        """Write configuration and slides into the output folder, or another; returns the path of the configuration."""
        sheet, path = folder / "slides.tsv", folder / "config.yaml"
        write_slides(self.rows, sheet)
        named = sheet.relative_to(self.out) if folder == self.out else sheet
        with written_aside(path) as aside:
            text = yaml.safe_dump({**self.config, "slides": str(named)}, sort_keys=False, allow_unicode=True)
            aside.write_text(f"# Written by `sampath-wsi run`.\n{text}", encoding="utf-8")
        return path


def plan_run(
    slides: Sequence[str], out: Path | None, model: str | None, settings: Sequence[str], config_file: Path | None
) -> RunPlan:
    """Plan a run from the configuration, the sheet, the names of slides and the model's card; nothing is written.

    Parameters
    ----------
    slides
        A sample sheet, or files and patterns; if empty, the configuration's.
    out
        None: the configuration's.
    model
        None: the configuration's; if that names none, `demo`, for demonstration slides alone.
    settings
        ``key=value`` of the configuration, parts of a key joined with dots.

    Raises
    ------
    ConfigError, ModelError
        If something is wrong with any of these.
    """
    given = with_settings(read_config(config_file) if config_file else {}, settings)
    # The schema wants the key, which may come from elsewhere.
    config = load_config({"slides": "-", **given, **({"model": model} if model else {})})
    words = list(slides) or [word for word in [given.get("slides")] if word]
    if not words:
        raise ConfigError("no slides are named", "Say which: --slides 'data/*.svs', or --slides my-slides.tsv.")
    rows = tuple(_with_full_paths(row) for row in collect_slides(words))
    if (place := Path(out or config.output)).is_file():
        raise ConfigError(f"--out: {place} is a file", "Name a folder, which is made if it is not there.")
    check_named(model or given.get("model"), rows)
    folder = resolve_model(config.model)
    card = installed_card(folder)
    if config.images.probability:
        _check_class(card, config.images.probability)
    named = Path(config.model).exists()
    kept = {key: value for key, value in given.items() if value is not None}
    return RunPlan(
        out=Path(_full(out or config.output)),
        config={**kept, "slides": "", "output": ".", "model": _full(folder) if named else config.model},
        rows=rows,
        card=card,
    )


def _check_class(card: ModelCard, name: str) -> None:
    try:
        class_index(card.classes, name)
    except ConfigError as error:
        raise ConfigError(f"config, images.probability: {error}") from None


def _full(path: str | Path) -> str:
    """Return a path in full, without ``..``; links stay: nodes of a cluster may name their targets otherwise."""
    return os.path.abspath(path)  # noqa: PTH100 - it must not follow links


def _with_full_paths(row: SheetRow) -> SheetRow:
    return row.model_copy(update={name: _full(path) for name in FILES if (path := getattr(row, name))})


def snakemake_command(
    out: Path,
    config: Path,
    *,
    cores: int | None = None,
    gpus: int | None = None,
    profile: str | None = None,
    dry_run: bool = False,
    further: Sequence[str] = (),
) -> list[str]:
    """Return Snakemake's command line.

    Parameters
    ----------
    out
        Where Snakemake works.
    cores, gpus
        None: all that this process may use and see; with a profile: the profile's.
    profile
        As :func:`profile_path` gives it.
    further
        Options and targets that go to Snakemake as they are.
    """
    # -P: a folder in which the user stands is no place for modules, such as that of a checkout called as the package.
    words = [
        sys.executable,
        "-P",
        "-m",
        "snakemake",
        "--snakefile",
        str(WORKFLOW / "Snakefile"),
        "--directory",
        str(out),
    ]
    words += ["--configfile", str(config), "--replace-workflow-config"]
    # The folder has a lock of this program's, which ends with the process: none that a killed run leaves behind.
    words += ["--nolock", "--logger", "sampath"]
    # The options of profiles/default, which Snakemake would announce each time.
    words += ["--workflow-profile", "none", "--keep-going", "--rerun-incomplete"]
    words += ["--rerun-triggers", "mtime", "params", "input", "software-env"]
    if profile:
        words += ["--profile", profile]
    if gpus is not None or not profile:
        words += ["--resources", f"gpu={visible_gpus() or 1 if gpus is None else gpus}"]
    if cores is not None or not profile:
        words += ["--cores", str(usable_cores() if cores is None else cores)]
    return [*words, *(["--dry-run"] if dry_run else []), *further]


def snakemake_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return Snakemake's environment, with this program first on the path even if its environment is not active."""
    program = Path(sys.argv[0]).absolute()
    itself = program.name == "sampath-wsi" and program.is_file()
    scripts = program.parent if itself else Path(sysconfig.get_path("scripts"))
    path = os.pathsep.join([str(scripts), environment.get("PATH", os.defpath)])
    modules = os.pathsep.join(filter(None, [str(_PLUGINS), environment.get("PYTHONPATH")]))
    return {**environment, "PATH": path, "PYTHONPATH": modules}


def shipped_profiles() -> list[str]:
    """Return the names of the profiles of clusters that ship."""
    return sorted(path.parent.name for path in PROFILES.glob("*/config.yaml") if path.parent.name != "default")


def profile_path(name: str) -> str:
    """Return the path of a profile for Snakemake: the folder of a profile that ships, or the full path of another.

    Raises
    ------
    ConfigError
        If a path leads nowhere, or the profile submits with a plugin of Snakemake that is not installed. Other names
        are left to Snakemake, which looks in its own folders of profiles.
    """
    if name in shipped_profiles():
        return _with_executor(str(PROFILES / name))
    if Path(name).exists():
        return _with_executor(_full(name))
    if os.sep in name:
        known = ", ".join(shipped_profiles())
        raise ConfigError(f"there is no profile {name}", f"Name a folder with a config.yaml, or one of: {known}.")
    return name


def _with_executor(profile: str) -> str:
    """Return the profile after checking that its executor plugin is installed; else Snakemake would print its usage."""
    path = Path(profile, "config.yaml")
    executor = read_config(path).get("executor") if path.is_file() else None
    plugin = f"snakemake-executor-plugin-{executor}"
    if executor not in (None, *_OWN_EXECUTORS) and not find_spec(plugin.replace("-", "_")):
        raise ConfigError(f"{path}: the executor '{executor}' is not installed", f"pip install {plugin}")
    return profile


def visible_gpus() -> int:
    """Return the number of NVIDIA GPUs that this process may use, without loading torch, which takes seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word.strip() not in ("", "-1")])
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
