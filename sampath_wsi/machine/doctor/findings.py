"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sampath_wsi.errors import one_line

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Result:
    """``fail``: the program will not work; ``warn``: it will, but not well or not all of it.

    ``remedy`` says what to do.
    """

    status: Status
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding(Result):
    """A result and the name of its check."""

    check: str = ""


Check = Callable[[], Iterable[Result]]


def ok(text: str) -> Result:
    """All is well."""
    return Result("ok", text)


def warn(text: str, remedy: str) -> Result:
    """The program works, but not well or not all of it."""
    return Result("warn", text, remedy)


def fail(text: str, remedy: str) -> Result:
    """The program does not work."""
    return Result("fail", text, remedy)


def run_check(name: str, check: Check) -> Iterator[Finding]:
    """What a check finds; one that breaks off is a finding too, and no reason not to run the others."""
    try:
        results = list(check())
    except ImportError as error:
        results = [fail(str(error), "Install sampath-wsi again, in an environment of its own.")]
    except Exception as error:
        results = [fail(f"broke off: {type(error).__name__}: {error}", "Report this, please, if it stays.")]
    for result in results:
        yield Finding(result.status, one_line(result.text), one_line(result.remedy), name)
