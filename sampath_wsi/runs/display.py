"""Show a run of the workflow, a line a step, in place of Snakemake's own messages (they are in its log file).

Snakemake loads this as a plugin (``_workflow/plugins``) and hands over each of its messages; it works in the output
folder then, while the user stands in the one that ``SAMPATH_WSI_RUN_FROM`` names. In a dry run the jobs that it would
do are written to the file that ``SAMPATH_WSI_PLANNED_JOBS`` names.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase

from sampath_wsi.cli.results import shown_from
from sampath_wsi.cli.run import StandardErrorHandler
from sampath_wsi.errors import one_line
from sampath_wsi.progress import Display, duration

Message = dict[str, Any]
"""The fields of one of Snakemake's messages."""

# How this program's own last message begins.
_OWN = "sampath-wsi: "
# So many jobs that run are named beside the progress.
_NAMED = 2
# From so many steps on, their number says something of the time that is left.
_ENOUGH_STEPS = 20
PLANNED_JOBS = "SAMPATH_WSI_PLANNED_JOBS"
RUN_FROM = "SAMPATH_WSI_RUN_FROM"
log = logging.getLogger("sampath_wsi")
# Snakemake's messages about failed jobs, which were shown with the reason when they failed.
_TOLD = ("At least one job did not complete successfully", "Exiting because a job execution failed")
# An error of this program that a file of rules passes on: the text around it names only the line.
_RAISED_BY_RULES = re.compile(r'WorkflowError in file ".*", line \d+: (.+?) File ".*", line \d+, in <module>')
_OF_JOBS = ("RuleException", "CalledProcessError", "SpawnedJobError")


@dataclass
class Job:
    """A job of Snakemake: a step of a slide, or of the cohort."""

    step: str
    slide: str
    reason: str
    log: str
    begun_s: float

    def __str__(self) -> str:
        return f"{self.slide}: {self.step}" if self.slide else self.step


class LogHandler(LogHandlerBase):
    """Takes Snakemake's messages."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        # Those that run, or in a dry run would.
        self.jobs: dict[int, Job] = {}
        self.shown: Display | None = None
        self._steps = 0, 0
        self._to_standard_error = StandardErrorHandler()
        self._to_standard_error.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(self._to_standard_error)
        log.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message, if it is for people."""
        try:
            take = getattr(self, f"_{getattr(record, 'event', None)}", None)
            if take is not None:
                take(vars(record))
            elif record.levelno >= logging.WARNING:
                self._tell(record.levelno, record.getMessage())
        except Exception:  # as in any handler of logging: a message that cannot be shown ends no run
            self.handleError(record)

    def close(self) -> None:
        """End the bar; in a dry run write down the plan."""
        if self.shown is not None:
            self.shown.stop()
            self.shown = None
        if (path := os.environ.get(PLANNED_JOBS)) and self.common_settings.dryrun:
            jobs = [{"slide": job.slide, "step": job.step, "reason": job.reason} for job in self.jobs.values()]
            Path(path).write_text(json.dumps(jobs), encoding="utf-8")
        log.removeHandler(self._to_standard_error)
        super().close()

    def _run_info(self, said: Message) -> None:
        total = (said.get("stats") or {}).get("total")
        if total and not self.common_settings.dryrun:
            self._show(0, int(total))

    def _job_info(self, said: Message) -> None:
        slide = dict(said["wildcards"] or {}).get("slide", "")
        where = str(next(iter(said["log"] or ()), ""))
        self.jobs[said["jobid"]] = Job(said["rule_name"], slide, said["reason"], where, time.monotonic())
        self._tell_what_runs()

    def _job_finished(self, said: Message) -> None:
        job = self.jobs.pop(said["job_id"], None)
        if job is not None and job.step != "all":
            log.info("%s, %s", job, duration(time.monotonic() - job.begun_s))
        self._tell_what_runs()

    def _job_error(self, said: Message) -> None:
        job = self.jobs.pop(said["jobid"], None)
        if job is not None:
            log.error("%s FAILED: %s (%s)", job, _reason(job), _seen_by_user(job.log))
        self._tell_what_runs()

    def _progress(self, said: Message) -> None:
        self._show(said["done"], said["total"])

    def _show(self, done: int, total: int) -> None:
        self._steps = done, total
        self.shown = self.shown or Display("run", rate_from=_ENOUGH_STEPS)
        self._tell_what_runs()

    def _error(self, said: Message) -> None:
        if said.get("exception") not in _OF_JOBS:
            self._tell(logging.ERROR, str(said["msg"]))

    def _tell_what_runs(self) -> None:
        running = [str(job) for job in self.jobs.values()]
        more = f" and {len(running) - _NAMED}" if len(running) > _NAMED else ""
        if self.shown is not None:
            self.shown.show(*self._steps, f"steps ({', '.join(running[:_NAMED])}{more})" if running else "steps")

    def _tell(self, level: int, text: str) -> None:
        if text and not any(told in text for told in _TOLD):
            said = one_line(text)
            own = _RAISED_BY_RULES.fullmatch(said)
            log.log(level, "%s", own[1] if own else said)


def _seen_by_user(path: str) -> str:
    """Return a path of the output folder as seen from where the user stands."""
    start = os.environ.get(RUN_FROM)
    return path if start is None else str(shown_from(Path.cwd() / path, Path(start)))


def _reason(job: Job) -> str:
    """Return why a job failed: this program's last message in the job's log, or else the log's last line."""
    try:
        lines = Path(job.log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    own = [line for line in lines if line.startswith(_OWN)]
    said = one_line((own or lines or ["no reason was given"])[-1])
    if said.startswith("KeyboardInterrupt"):  # Python's own message: the job was still importing
        return "interrupted"
    return said.removeprefix(_OWN).removeprefix("error: ")
