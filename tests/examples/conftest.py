"""Run an example as a newcomer does: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Example:
    """A script of `examples/`, run in a folder of its own."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]) -> None:
        self.path, self.folder, self._patch, self._said = EXAMPLES / f"{name}.py", folder, monkeypatch, said
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MPLBACKEND", "agg")
        monkeypatch.syspath_prepend(EXAMPLES)
        self.module = self._load()

    def _load(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def run(self, *arguments: str) -> str:
        """Run `main` with arguments in this process; return what it prints."""
        self._patch.setattr(sys, "argv", [self.path.name, "--no-progress", *arguments])
        self.module.main()
        return self._said()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the script in a process of its own."""
        path = os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES.parent / "kernels")])
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, str(self.path), "--no-progress", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)

    def result(self, out: str) -> dict[str, object]:
        """Return result.json of a run."""
        return json.loads((self.folder / out / "result.json").read_text())

    def curves(self, out: str) -> dict[str, list[dict[str, object]]]:
        """Return the logs of a run by the name of the training, without times."""
        return {
            log.parent.name: [
                {key: value for key, value in json.loads(line).items() if key != "cpu_s"}
                for line in log.read_text().splitlines()
            ]
            for log in (self.folder / out).glob("*/log.jsonl")
        }


@pytest.fixture
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Example]:
    """Make the example of a name."""
    return lambda name: Example(name, tmp_path, monkeypatch, lambda: capsys.readouterr().out)
