"""Groovy scripts that QuPath runs: results into a project, annotations out of it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import written_aside

IMPORT, EXPORT = "import_results.groovy", "export_annotations.groovy"
_SHARED = "common.groovy"
_FOLDER_SETTING = "def resultsFolder = ''"


def write_scripts(folder: Path, *, results: Path | None = None, force: bool = False) -> list[Path]:
    """Write the scripts into a folder, each whole: with the functions that they share at its end.

    Parameters
    ----------
    results
        The results' folder that the import script shall read, so that QuPath need not ask.
    force
        Replace scripts there that differ.

    Returns
    -------
    Their paths.

    Raises
    ------
    ConfigError
        If a script of that name is there and differs: somebody may have changed it.
    """
    imported, exported, shared = (
        files(__name__).joinpath(name).read_text(encoding="utf-8") for name in (IMPORT, EXPORT, _SHARED)
    )
    if results is not None:
        assert _FOLDER_SETTING in imported
        setting = _FOLDER_SETTING.replace("''", _groovy_string(str(results.absolute())))
        imported = imported.replace(_FOLDER_SETTING, setting, 1)
    texts = {IMPORT: f"{imported}\n{shared}", EXPORT: f"{exported}\n{shared}"}
    for name, text in texts.items():
        path = folder / name
        if not force and path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise ConfigError(f"{path}: is there and differs", "Write to another folder, or replace it with --force.")
    for name, text in texts.items():
        with written_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _groovy_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    # Scripts are read in the encoding of the platform that runs them.
    return "'" + "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + "'"
