"""Help of the command line: commands by topic, examples that can be copied, options for the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from sampath_wsi.cli import run
from sampath_wsi.errors import ConfigError

# Topics in the order in which somebody new needs them; commands without a topic come last.
SECTIONS = {
    "Begin": ("doctor", "demo-slide", "inspect", "run", "profile"),
    "Results": ("show", "cohort", "check", "evaluate", "qupath"),
    "Stages of one slide": ("tile", "infer", "join", "stitch", "vectorize", "report", "images"),
    "Models and training": ("model", "prepare", "train", "test", "test-prompts"),
    "The paper's experiments": ("experiment", "demo-data", "demo-encoder"),
}
OTHERS = "More"
_EXAMPLE = "Example:"
# Old names of commands and options, which are answered with the new ones.
RENAMED = {
    "test-dots": "test-prompts",
    "--coding": "--label-map",
    "--flips": "--tta",
    "--region": "--roi",
    "--shard": "--part",
    "--shards": "--parts",
}
_LONGEST = 200


class _Explained:
    """Help whose example stands by itself, unbroken, so that it can be copied."""

    help: str | None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        text, example, line = (self.help or "").partition(_EXAMPLE)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())
        if example:
            with formatter.section(_EXAMPLE.rstrip(":")):
                formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")


class Command(_Explained, TyperCommand):
    """A command that tells :mod:`sampath_wsi.cli.run` its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for param in self.params for name in param.opts}
        for old in (word.partition("=")[0] for word in args):
            if old not in known and (new := RENAMED.get(old)) in known:
                raise ConfigError(f"there is no option {old}", f"It is called {new} now.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        run.given_options = dict(ctx.params)
        return super().invoke(ctx)


class Group(_Explained, TyperGroup):
    """Commands by topic."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and (new := RENAMED.get(cmd_name)) in self.commands:
            raise ConfigError(f"there is no command {cmd_name}", f"It is called {new} now.")
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = [name for name, command in self.commands.items() if not command.hidden]
        width = max(map(len, names), default=0)
        topics = {"Commands": names} if ctx.parent else sections(names)
        for section, listed in topics.items():
            rows = [(f"{name:{width}}", self.commands[name].get_short_help_str(_LONGEST)) for name in listed]
            with formatter.section(section):
                formatter.write_dl(rows)


class App(typer.Typer):
    """An application, or a group of commands, with the help of this module."""

    def __init__(self, *, help: str, **options: Any) -> None:
        super().__init__(
            cls=Group,
            help=help,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Register a function as a command."""
        return super().command(name, **{"cls": Command, **options})


def sections(names: list[str]) -> dict[str, list[str]]:
    """Return commands by topic."""
    found = {section: [name for name in listed if name in names] for section, listed in SECTIONS.items()}
    rest = [name for name in names if not any(name in listed for listed in found.values())]
    return {section: listed for section, listed in {**found, OTHERS: rest}.items() if listed}
