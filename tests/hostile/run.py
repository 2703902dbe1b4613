"""Feeds damaged inputs to a part of the program, in children of one warmed-up process; run as a module.

``python -m tests.hostile.run KIND CASES FOLDER DATA`` prints a line of JSON a case that went wrong, and the number of
cases that ended with success and with an error. A child has bounded memory, a case bounded time, and a working
directory in which nothing may appear.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import IO

from sampath_wsi.errors import SampathError
from tests.hostile.kinds import KINDS, Kind

SECONDS = 20
# Of addresses, which OpenSlide asks for by the sizes that a header claims, several threads at once; few are touched.
MEMORY_BYTES = 16 << 30


class TooSlowError(BaseException):
    """A case took longer than it may; no handler of ordinary exceptions catches it."""


def outcome(kind: Kind, number: int, folder: Path) -> tuple[str, str]:
    """What became of a case: success, error (one line), or what went wrong, with its details."""
    before = sorted(folder.rglob("*"))
    case = kind.make(random.Random(f"{kind.name} {number}"), number)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        kind.target(case, folder)
        found = "success", ""
    except SampathError as error:
        text = str(error)
        found = ("error" if text.isprintable() and len(text) <= 2000 else "not one short line"), text
    except TooSlowError:
        found = "too slow", traceback.format_exc()
    except BaseException:
        found = "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    kind.tidy(folder)
    left = [str(path) for path in sorted(folder.rglob("*")) if path not in before] + [
        path.name for path in Path().iterdir()
    ]
    return ("left files", " ".join(left)) if left else found


def be_child(kind: Kind, first: int, cases: int, folder: Path, answers: IO[str]) -> None:
    """Work on cases until one ends the process."""

    def too_slow(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, too_slow)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, cases):
        print(json.dumps([number, *outcome(kind, number, folder)]), file=answers, flush=True)


def run(kind: Kind, cases: int, folder: Path) -> None:
    """Run the cases in as many children as it takes."""
    counts: collections.Counter[str] = collections.Counter()
    following = 0
    while following < cases:
        here, there = os.pipe()
        if (pid := os.fork()) == 0:
            with open(there, "w") as answers:
                be_child(kind, following, cases, folder, answers)
            os._exit(0)
        os.close(there)
        with open(here) as answers:
            for line in answers:
                number, what, detail = json.loads(line)
                counts[what] += 1
                following = number + 1
                if what not in ("success", "error"):
                    print(json.dumps([number, what, detail]), flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            print(json.dumps([following, f"died of {code}", ""]), flush=True)
            kind.tidy(folder)
            following += 1
    print(json.dumps([cases, "counts", counts]))


if __name__ == "__main__":
    kind = KINDS[sys.argv[1]](Path(sys.argv[4]))
    folder = Path(sys.argv[3])
    working = folder.with_name("working directory")
    working.mkdir()
    os.chdir(working)
    kind.warm_up(folder)
    run(kind, int(sys.argv[2]), folder)
