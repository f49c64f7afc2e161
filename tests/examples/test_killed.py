"""The experiments with relation similarity, killed while they write a file, go on to the result of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.examples.test_relation_experiments import EXAMPLES, Run, load, run

__all__ = ["run"]  # the fixture

QUICK = ["--epochs", "2", "--seeds", "1", "--dim", "8"]
MOMENTS = {  # for each script its options, and the file or folder that waits for its name when the kill comes
    "relation_similarity": (
        ["--kinds", "mlp", "--redraws", "1", "--transe-epochs", "1", "--draws", "9"],
        "nations-mlp-0.training",
    ),
    "split_relations": (["--kinds", "counts", "mlp", "--hidden", "16", "--draws", "9"], "mlp-0.npz"),
    "openie_redundancy": (["--draws", "9"], "kl.npz"),
    "relation_prediction": (["--scorers", "transe", "--alphas", "5:0.5"], "transe-frequency-0.json"),
    "relation_extraction": (["--models", "lstm", "--strengths", "2"], "lstm-smoothing-0.json"),
}


@pytest.fixture(scope="module")
def fresh() -> ForkServerContext:
    """Make processes that have imported all but the scripts, once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "relsim", "relsim.jensen", "lorentz.models"])
    return context


def killed(name: str, arguments: list[str], folder: Path, moment: str) -> None:
    """Run a script in `folder`; kill this process when something is about to be renamed to `moment`."""

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(details[1]).name == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    sys.path.insert(0, str(EXAMPLES))
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # pictures take longer than all else
    sys.argv = [name, *arguments]
    sys.addaudithook(watch)
    load(name).main()


def timeless(value: Any) -> Any:
    """Return what a script found, without what it took and how it was called."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if not key.startswith("cpu_") and key != "options"}
    return [timeless(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", MOMENTS)
def test_an_experiment_killed_while_it_writes_goes_on_to_the_same_result(
    run: Run, fresh: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options, moment = MOMENTS[name]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    whole = run(name, *QUICK, *options, "--out", "whole")
    shared = ["--no-progress", "--device", "cpu", *QUICK, *options]
    process = fresh.Process(target=killed, args=(name, [*shared, "--out", "broken"], tmp_path, moment))
    process.start()
    process.join(200)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "broken" / moment).exists()
    assert list((tmp_path / "broken").glob(f"*{Path(moment).stem}*"))  # what waited for its name
    again = run(name, *QUICK, *options, "--out", "broken", "--resume")
    assert timeless(again) == timeless(whole)
