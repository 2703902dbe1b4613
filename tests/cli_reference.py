"""The reference of all commands in docs/cli.md, from the commands themselves: ``python -m tests.cli_reference``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sampath_wsi.cli import app
from sampath_wsi.cli.help import sections

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
MARK = "<!-- What follows is written by `python -m tests.cli_reference`. -->\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and sub-command by its words, but for groups themselves."""
    for name, command in groups_and_commands():
        if not hasattr(command, "commands"):
            yield name, command


def groups_and_commands() -> Iterator[tuple[str, Any]]:
    """The same with the groups, in the order of the help."""
    root = typer.main.get_command(app)
    names = [name for listed in sections(list(root.commands)).values() for name in listed]
    for name in names:
        command = root.commands[name]
        yield name, command
        for below, each in getattr(command, "commands", {}).items():
            yield f"{name} {below}", each


def reference() -> str:
    """All commands as Markdown."""
    lines = [MARK]
    root = typer.main.get_command(app)
    for section, names in sections(list(root.commands)).items():
        lines.append(f"## {section}\n")
        for words, command in groups_and_commands():
            if words.split()[0] in names and not hasattr(command, "commands"):
                lines += describe(words, command)
    return "\n".join(lines)


def describe(words: str, command: Any) -> list[str]:
    """One command."""
    text, _, example = (command.help or "").partition("Example:")
    context = command.make_context(words, [], resilient_parsing=True)
    rows = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    table = [f"| `{name}` | {meaning} |" for name, meaning in (map(cell, row) for row in rows) if "--help" not in name]
    return [
        f"### {words}\n",
        f"{textwrap.fill(' '.join(text.split()), 100)}\n",
        f"```bash\n{example.strip()}\n```\n",
        "| option | meaning |\n|---|---|",
        *table,
        "",
    ]


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text(encoding="utf-8").partition(MARK)[0] + reference(), encoding="utf-8")
