from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sampath_wsi.cli import run as surroundings
from sampath_wsi.cli.help import SECTIONS
from tests.cli_reference import MARK, PAGE, commands, groups_and_commands, reference

from .test_cli import run

PROGRAM = str(Path(sys.executable).with_name("sampath-wsi"))
EVERY = [pytest.param(words, command, id=words) for words, command in groups_and_commands()]


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_every_command_has_an_example_that_it_understands(words: str, command: Any) -> None:
    text, _, example = (command.help or "").partition("Example:")
    assert text.strip()
    assert len(text.strip()) < 400
    given = shlex.split(example)
    assert given[0] == "sampath-wsi"
    assert " ".join(given[1:]).startswith(words)
    if not hasattr(command, "commands"):
        own = given[1 + len(words.split()) :]
        own = own[: own.index("--")] if "--" in own else own
        # Options that do not exist, and arguments that are missing, are errors here.
        command.make_context(words, own)


def test_all_commands_are_under_a_topic() -> None:
    listed = {name for names in SECTIONS.values() for name in names}
    assert {words.split()[0] for words, _ in commands()} == listed


def test_the_same_words_everywhere() -> None:
    """In the field's terms: not resolution and pixel size for mpp, nor patch for tile, label or category for class."""
    texts = {words: command.help or "" for words, command in groups_and_commands()}
    for words, command in commands():
        texts |= {f"{words} {p.name}": getattr(p, "help", "") or "" for p in command.params}
    found = {words: text for words, text in texts.items() if re.search(r"resolution|pixel size|patch\b|categor", text)}
    assert found == {}


def test_the_reference_is_true() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written.partition(MARK)[0] + reference() == written, "write it anew: python -m tests.cli_reference"


def test_help_alone_by_topic_with_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    places = [out.index(f"\n{section}:\n") for section in SECTIONS]
    assert places == sorted(places)
    assert "Exit codes: 0 done; 1 a defect" in out
    assert run(capsys)[2] == out.strip().splitlines()[-1]


def test_the_example_of_a_command_stands_unbroken(capsys: pytest.CaptureFixture[str]) -> None:
    line = "sampath-wsi report a.svs a/segmentation.ome.zarr --overlay a/overlay.png --summary a/summary.json"
    assert f"Example:\n  {line}\n" in run(capsys, "report", "--help")[1]
    # In a group, names of commands that are a topic's elsewhere are not sorted into it.
    assert "Commands:\n  list" in run(capsys, "model", "--help")[1]


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("tyle", "'tile'"),
        ("model lits", "'list'"),
        ("tile a.svs --ovrelap 3", "--overlap"),
        ("infer --devise x", "--device"),
    ],
)
def test_a_typo_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str], words: str, nearest: str) -> None:
    code, _, last = run(capsys, *words.split())
    assert code == 2
    assert nearest in last


def test_ctrl_c_says_that_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(surroundings, "_log_beginning", interrupted)
    code, _, last = run(capsys, "demo-slide", "never.tif")
    assert code == 130
    assert last.startswith("sampath-wsi: interrupted; the same command goes on with what is finished")


def completed(shell: str, line: str) -> list[str]:
    """What the command offers a shell for the last word of a line."""
    environment = {
        **os.environ,
        "_SAMPATH_WSI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return subprocess.run([PROGRAM], env=environment, capture_output=True, text=True).stdout.split("\n")


def test_a_package_that_is_missing_is_one_line() -> None:
    script = "import sys; sys.modules['openslide'] = None; from sampath_wsi.cli import main; main()"
    words = [sys.executable, "-c", script, "inspect", __file__]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "openslide" in done.stderr
    assert "sampath-wsi doctor" in done.stderr


def test_shells_complete_names() -> None:
    assert completed("bash", "sampath-wsi ins") == ["inspect", ""]
    assert completed("bash", "sampath-wsi tile a.svs --model gl") == ["glas-tiny", ""]
    assert '"glas-tiny"' in completed("zsh", "sampath-wsi model show gl")[0]
    assert completed("fish", "sampath-wsi infer t.zarr --device cu") == ["cuda", "cuda:0", ""]


def test_bash_completes_models_and_leaves_paths_to_itself(tmp_path: Path) -> None:
    """As it is installed: into a home of its own."""
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    script = """
        sampath-wsi --install-completion >/dev/null
        source ~/.bashrc
        COMP_WORDS=(sampath-wsi tile --model dem) COMP_CWORD=3
        _sampath_wsi_completion sampath-wsi
        echo "${COMPREPLY[@]}"
        COMP_WORDS=(sampath-wsi tile ./a) COMP_CWORD=2
        _sampath_wsi_completion sampath-wsi
        echo "${#COMPREPLY[@]}"
        complete -p sampath-wsi
    """
    found = subprocess.run(["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True)
    model, paths, how = found.stdout.splitlines()
    assert (model, paths) == ("demo", "0")
    # With nothing offered, bash completes file names.
    assert "-o default" in how
