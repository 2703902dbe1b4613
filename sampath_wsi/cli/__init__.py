"""The command line. Every stage of the workflow is one command; `main` turns errors into one line."""

from __future__ import annotations

import errno
import io
import os
import sys

import typer

from sampath_wsi import __version__
from sampath_wsi.cli import experiments as experiments
from sampath_wsi.cli import models as models
from sampath_wsi.cli import prepare as prepare
from sampath_wsi.cli import results as results
from sampath_wsi.cli import stages as stages
from sampath_wsi.cli import testing as testing
from sampath_wsi.cli import training as training
from sampath_wsi.errors import SampathError, one_line
from sampath_wsi.stopping import Stopped

app = typer.Typer(
    name="sampath-wsi",
    help="Segment whole-slide images with SAM-Path. Each stage of the Snakemake workflow is a command.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (stages, results, models, prepare, training, testing, experiments):
    module.register(app)

# Failures of the machine that a user can mend, by the number that the system gives them.
_REMEDIES = {
    errno.ENOSPC: "Free some space there and run again: finished work is kept.",
    errno.EDQUOT: "Free some of your quota and run again: finished work is kept.",
    errno.EACCES: "Change the permissions, or write to another folder.",
    errno.EPERM: "Change the permissions, or write to another folder.",
    errno.EROFS: "The file system is read-only: write to another folder.",
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sampath-wsi {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show a traceback with every error."),
) -> None:
    if debug:
        os.environ["SAMPATH_WSI_DEBUG"] = "1"


def main() -> None:
    """Run the command line; exit code 0 on success, 2 on an error of the user or the machine, 1 on a defect."""
    # Threads of torch that wait must not spin: on shared cores that made a training step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # File names may hold what the terminal's encoding does not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SampathError as error:
        _fail(str(error), error, error.exit_code)
    except OSError as error:
        if error.errno is None:
            raise
        remedy = _REMEDIES.get(error.errno, "Check the path; --debug before the command shows where it happened.")
        where = f"{error.filename}: " if error.filename else ""
        _fail(one_line(f"{where}{error.strerror}. {remedy}"), error, 2)
    except MemoryError as error:
        _fail("out of memory. Give the job more memory, or fewer threads.", error, 2)
    except Stopped:
        print("sampath-wsi: stopped by SIGTERM; the same command goes on with what is finished", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("sampath-wsi: interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str, error: Exception, code: int) -> None:
    if os.environ.get("SAMPATH_WSI_DEBUG"):
        raise error
    print(f"sampath-wsi: error: {message}", file=sys.stderr)
    sys.exit(code)
