"""`examples/kg_completion.py` as a newcomer runs it, killed and resumed, and its configurations."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from relsim.errors import RelsimError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = {"checkpoint.pt", "log.jsonl", "result.json", "entities.tsv", "training.png"}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kg_completion", EXAMPLES / "kg_completion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # where it finds what the scripts share
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script with arguments in `tmp_path`, in this process, and return what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")

    def main(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kg_completion.py", "--no-progress", *arguments])
        script.main()
        return capsys.readouterr().out

    return main


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES.parent / "kernels")])
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": path}
    command = [sys.executable, str(EXAMPLES / "kg_completion.py"), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def curve(out: Path) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key != "cpu_s"} for entry in entries]


def test_nations_from_the_bundled_facts_to_the_pictures(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    said = run("--epochs", "20", "--out", "nations")
    out, twin = tmp_path / "nations" / "hybonet-0", tmp_path / "nations" / "euclidean-hybonet-0"
    assert {path.name for path in out.iterdir()} == FILES | {"disk.png"}
    assert {path.name for path in twin.iterdir()} == FILES
    result = json.loads((out / "result.json").read_text())
    assert list(result["test"]) == ["realistic", "optimistic", "pessimistic", "head_excluded"]
    assert result["test"]["realistic"]["mrr"] > 0.5  # by chance 0.23, the mean of 1 / k for k up to 14
    assert sum(part["n"] for part in result["by_relation"].values()) == 2 * 180
    assert sum(part["n"] for part in result["by_degree"].values()) == 2 * 180
    assert result["norm_cap"] is None
    assert result["beyond_max_radius"] == 0 < result["largest_radius"] < 10
    assert [line.split()[1] for line in said.splitlines() if line.startswith("hybonet")] == [
        f"{result['test']['realistic']['mrr']:.4g}"
    ]
    table = json.loads((tmp_path / "nations" / "result.json").read_text())["seeds"]
    assert table["hybonet"][0]["head_excluded"] == result["test"]["head_excluded"]["mrr"]
    assert table["hybonet"][0]["parameters"] == table["euclidean-hybonet"][0]["parameters"]
    rows = [line.split("\t") for line in (out / "entities.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 14
    assert {"china", "uk"} < {row[0] for row in rows}
    assert all(len(row) == 17 and all(math.isfinite(float(x)) for x in row[1:]) for row in rows)


def test_training_killed_at_any_moment_goes_on_along_the_same_curve(run: Run, tmp_path: Path) -> None:
    options = ["--epochs", "8", "--every", "2", "--dim", "6", "--models", "hybonet"]
    run(*options, "--out", "whole")
    process = start(tmp_path, *options, "--out", "broken", "--resume")
    log, deadline = tmp_path / "broken" / "hybonet-0" / "log.jsonl", time.monotonic() + 200
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run(*options, "--out", "broken", "--resume")
    whole, broken = (tmp_path / name / "hybonet-0" for name in ("whole", "broken"))
    assert curve(broken) == curve(whole)
    whole, broken = (json.loads((folder / "result.json").read_text()) for folder in (whole, broken))
    assert whole["test"] == broken["test"]


def test_resume_refuses_a_checkpoint_of_another_training(run: Run) -> None:
    run("--epochs", "1", "--out", "a")
    with pytest.raises(
        RelsimError, match=r"^a/hybonet-0/checkpoint.pt: of a training with other dim: use the same or remove it$"
    ):
        run("--epochs", "1", "--out", "a", "--resume", "--dim", "8")


def test_an_option_that_is_none_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"dims": 3}')
    with pytest.raises(RelsimError, match=r"^bad.json: no option 'dims': see --help$"):
        run("--config", "bad.json")


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, "--data", "nowhere")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "nowhere" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("model", ["hybonet", "murp", "roth", "euclidean-hybonet", "mure", "rote"])
def test_every_model_learns_from_a_configuration(run: Run, tmp_path: Path, model: str) -> None:
    (tmp_path / "small.json").write_text(json.dumps({"dim": 6, "epochs": 15, "models": [model], "every": 15}))
    run("--config", "small.json", "--out", "m")
    (out,) = (tmp_path / "m").glob("*/")
    assert json.loads((out / "result.json").read_text())["model"] == model
    losses = [entry["loss"] for entry in curve(out)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_papers_loss_learns_too(run: Run, tmp_path: Path) -> None:
    run("--negatives", "10", "--margin", "1", "--epochs", "15", "--out", "m", "--models", "hybonet")
    assert json.loads((tmp_path / "m" / "hybonet-0" / "result.json").read_text())["test"]["realistic"]["mrr"] > 0.4


def test_a_softmax_over_all_entities_learns_too(run: Run, tmp_path: Path) -> None:
    run("--softmax", "--epochs", "15", "--out", "m", "--models", "hybonet")
    assert json.loads((tmp_path / "m" / "hybonet-0" / "result.json").read_text())["test"]["realistic"]["mrr"] > 0.4


@pytest.mark.parametrize("config", sorted((EXAMPLES / "kg_completion").glob("*.json")), ids=lambda path: path.stem)
def test_committed_configurations_are_options_of_the_script(run: Run, tmp_path: Path, config: Path) -> None:
    run("--config", str(config), "--epochs", "1", "--out", "m")
    settings = json.loads(config.read_text())
    assert set(json.loads((tmp_path / "m" / "result.json").read_text())["seeds"]) == set(settings["models"])
    rows = [(tmp_path / "m" / f"{name}-0" / "entities.tsv").read_text().splitlines() for name in settings["models"]]
    assert {len(row.split("\t")) for name in rows for row in name} == {1 + settings["dim"]}
