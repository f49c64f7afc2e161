"""What the examples share, `examples/_common.py`: flags, twins of one size, a kill at any moment, one-line errors."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from relsim.errors import RelsimError

SMALL = {
    "node_embedding": ["--epochs", "40", "--dim", "4", "--every", "2", "--seeds", "1"],
    "language_model": [
        "--epochs",
        "5",
        "--dim",
        "8",
        "--steps",
        "6",
        "--context",
        "16",
        "--batch",
        "8",
        "--layers",
        "1",
    ],
    "entity_typing": ["--epochs", "5", "--dim", "8", "--heads", "2", "--seeds", "1"],
    "translation": [
        "--epochs",
        "3",
        "--dim",
        "8",
        "--layers",
        "1",
        "--heads",
        "2",
        "--tokens",
        "4096",
        "--warmup",
        "10",
        "--beam",
        "1",
        "--scale",
        "fixed",
    ],
}
FILES = {
    "node_embedding": {"disk.png"},
    "language_model": {"curves.png"},
    "entity_typing": {"curves.png", "types.png"},
    "translation": {"curves.png", "subwords.model"},
}
every_example = pytest.mark.parametrize("name", SMALL)
Make = Callable[[str], Any]


@every_example
def test_the_default_leaves_a_result_of_both_twins_and_its_files(example: Make, name: str) -> None:
    pytest.importorskip("matplotlib")
    script = example(name)
    said = script.run(*SMALL[name], "--out", "o")
    result = script.result("o")
    assert set(result["seeds"]) == {"lorentz", "euclidean"}
    assert result["protocol"]
    counts = {figures["parameters"] for runs in result["seeds"].values() for figures in runs}
    assert len(counts) == 1  # of the twins
    assert f"{counts.pop():,}" in said
    curves = script.curves("o")
    assert set(curves) == {"lorentz-0", "euclidean-0"}
    for curve in curves.values():
        assert [entry["epoch"] for entry in curve] == list(range(1, len(curve) + 1))
        assert curve[-1]["loss"] < curve[0]["loss"]
    written = {path.name for path in (script.folder / "o").iterdir()}
    assert written == {"result.json", "lorentz-0", "euclidean-0"} | FILES[name]


@every_example
def test_a_training_killed_at_any_moment_goes_on_along_the_same_curve(example: Make, name: str) -> None:
    script = example(name)
    script.run(*SMALL[name], "--out", "whole")
    process = script.start(*SMALL[name], "--out", "broken", "--resume")
    log, deadline = script.folder / "broken" / "lorentz-0" / "log.jsonl", time.monotonic() + 200
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (script.folder / "broken" / "result.json").exists()
    script.run(*SMALL[name], "--out", "broken", "--resume")
    assert script.curves("broken") == script.curves("whole")
    whole, broken = (
        [
            [{k: v for k, v in figures.items() if k != "cpu_s"} for figures in runs]
            for runs in script.result(out)["seeds"].values()
        ]
        for out in ("whole", "broken")
    )
    assert whole == broken


@every_example
def test_a_checkpoint_of_another_training_is_refused(example: Make, name: str) -> None:
    script = example(name)
    script.run(*SMALL[name], "--out", "a", "--epochs", "1")
    with pytest.raises(RelsimError, match=r"^a/lorentz-0/checkpoint.pt: of a training with other lr: use the same or "):
        script.run(*SMALL[name], "--out", "a", "--epochs", "1", "--resume", "--lr", "0.5")


@every_example
def test_what_is_wrong_is_said_in_one_line(example: Make, name: str) -> None:
    process = example(name).start("--data", "nowhere")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.startswith(f"{name}: ")
    assert "nowhere" in err
    assert len(err.splitlines()) == 1


def test_options_of_a_configuration_give_way_to_those_of_the_command_line(example: Make) -> None:
    script = example("node_embedding")
    (script.folder / "c.json").write_text(json.dumps({"dim": 3, "epochs": 2, "seeds": 1, "lr": 0.1}))
    script.run("--config", "c.json", "--out", "o", "--epochs", "4")
    assert len(script.curves("o")["lorentz-0"]) == 4
    (script.folder / "c.json").write_text('{"dims": 3}')
    with pytest.raises(RelsimError, match=r"^c.json: no option 'dims': see --help$"):
        script.run("--config", "c.json")


def test_a_training_without_a_better_validation_stops(example: Make) -> None:
    script = example("node_embedding")
    script.run("--lr", "0", "--epochs", "50", "--every", "1", "--patience", "3", "--seeds", "1", "--out", "o")
    assert [len(curve) for curve in script.curves("o").values()] == [4, 4]


def test_the_mean_and_the_spread_are_those_of_the_seeds(example: Make) -> None:
    script = example("node_embedding")
    script.run("--epochs", "6", "--dim", "3", "--seeds", "3", "--out", "o")
    result = script.result("o")
    for name, runs in result["seeds"].items():
        tests = [figures["test"] for figures in runs]
        mean = sum(tests) / 3
        spread = (sum((value - mean) ** 2 for value in tests) / 2) ** 0.5
        assert result["mean_and_standard_deviation"][name]["test"] == pytest.approx([mean, spread])
