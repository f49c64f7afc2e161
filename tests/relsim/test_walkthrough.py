"""The commands of docs/relsim.md run one after another, and print what the page says they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from relsim.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "relsim.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def steps(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the lines that it prints."""
    return [(command.strip(), out) for command, _, out in (part.partition("\n") for part in block.split("$ ")[1:])]


def test_the_page_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    commands = 0
    for kind, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(block, PAGE, "exec"), names)
            said = [line.partition("#")[2].strip() for line in block.splitlines() if line.startswith("print(")]
            assert capsys.readouterr().out.splitlines() == said
            continue
        for command, expected in steps(block):
            program, *arguments = shlex.split(command)
            assert (program, main(arguments)) == ("relsim", 0)
            out, err = capsys.readouterr()
            assert (out + err).rstrip() == expected.rstrip(), command
            commands += 1
    assert commands >= 4
