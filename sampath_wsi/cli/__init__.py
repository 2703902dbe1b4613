"""The command line. Every stage of the workflow is one command; `main` turns errors into one line."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import sys

import typer

from sampath_wsi import __version__
from sampath_wsi.cli import experiments as experiments
from sampath_wsi.cli import looking as looking
from sampath_wsi.cli import models as models
from sampath_wsi.cli import prepare as prepare
from sampath_wsi.cli import qupath as qupath
from sampath_wsi.cli import results as results
from sampath_wsi.cli import run as surroundings
from sampath_wsi.cli import stages as stages
from sampath_wsi.cli import testing as testing
from sampath_wsi.cli import training as training
from sampath_wsi.cli import workflow as workflow
from sampath_wsi.cli.help import App
from sampath_wsi.errors import SampathError, one_line
from sampath_wsi.machine.stopping import Stopped

app = App(
    name="sampath-wsi",
    help="""Segment whole-slide images with SAM-Path, from slides to GeoJSON for QuPath.

    Example: sampath-wsi demo-slide demo.tif && sampath-wsi inspect demo.tif
    """,
    epilog="Exit codes: 0 done; 1 a defect of this program; 2 an error of the input, the options or the machine; "
    "130 Ctrl-C; 143 SIGTERM. All commands: docs/cli.md.",
)
for module in (
    looking,
    workflow,
    stages,
    results,
    qupath,
    models,
    prepare,
    training,
    testing,
    experiments,
):
    module.register(app)

_FULL = (errno.ENOSPC, errno.EDQUOT)
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
    # NumPy multiplies small matrices only: threads of its own made a synthetic slide take twice as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Modules are no garbage: looking through all of them again and again while they load, and once more at the end,
    # took a fifth of the CPU time that stage 2 needs to start. Young objects are collected as ever.
    gc.set_threshold(700, 10, 100)
    atexit.register(gc.freeze)
    # File names may hold characters that the terminal's encoding lacks.
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
        # Who writes to an open file is not told its name.
        name = error.filename or (surroundings.given_options.get("out") if error.errno in _FULL else None)
        where = f"{name}: " if name else ""
        _fail(one_line(f"{where}{error.strerror}. {remedy}"), error, 2)
    except ImportError as error:
        if (error.name or "").startswith("sampath_wsi"):  # a defect of this program
            raise
        _fail(one_line(f"{error}. The installation is not whole: `sampath-wsi doctor` says what is missing."), error, 2)
    except MemoryError as error:
        _fail("out of memory. Give the job more memory, or fewer threads.", error, 2)
    except Stopped:
        _say_ended("stopped by SIGTERM")
        sys.exit(143)
    except SystemExit as end:
        if end.code == 130:
            _say_ended("interrupted")
        raise
    except KeyboardInterrupt:  # before the commands were put together, which makes an exit of it
        _say_ended("interrupted")
        sys.exit(130)


def _say_ended(how: str) -> None:
    # The first word that is no option is the command.
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    what = "--resume" if command == "train" else "what is finished"
    print(f"sampath-wsi: {how}; the same command goes on with {what}", file=sys.stderr)


def _fail(message: str, error: Exception, code: int) -> None:
    if os.environ.get("SAMPATH_WSI_DEBUG"):
        raise error
    print(f"sampath-wsi: error: {message}", file=sys.stderr)
    sys.exit(code)
