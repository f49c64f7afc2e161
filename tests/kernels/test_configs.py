"""The table of configurations: first rule that fits, a default for every kernel, tuning on request only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lorentz_kernels
from lorentz_kernels import configs
from lorentz_kernels.configs import bucket, changed, first, pick

RULES = [
    {"gpu": "H100", "dtype": "bfloat16", "width": 128, "config": {"BLOCK": 1}},
    {"capability": "9.0", "width": 512, "config": {"BLOCK": 2}},
    {"dtype": "float32", "config": {"BLOCK": 3}},
    {"config": {"BLOCK": 4}},
]
H100 = {"gpu": "NVIDIA H100 80GB HBM3", "capability": "9.0"}
TABLES = sorted(Path(lorentz_kernels.__path__[0]).glob("*/configs.json"))


@pytest.mark.parametrize(
    ("facts", "block"),
    [
        ({**H100, "dtype": "bfloat16", "width": 128}, 1),
        ({**H100, "dtype": "bfloat16", "width": 129}, 2),
        ({**H100, "dtype": "bfloat16", "width": 513}, 4),
        ({**H100, "dtype": "float32", "width": 513}, 3),
        ({"dtype": "float32", "width": 1}, 3),
        ({"dtype": "float16", "width": 1}, 4),
    ],
)
def test_the_first_rule_that_fits_counts(facts: dict[str, Any], block: int) -> None:
    assert first(RULES, facts) == {"BLOCK": block}


def test_sizes_share_a_bucket_up_to_a_power_of_two() -> None:
    assert bucket({"dtype": "float32", "width": 65}) == bucket({"dtype": "float32", "width": 128})
    assert bucket({"width": 128}) != bucket({"width": 129})


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_shipped_tables_end_in_a_default(path: Path) -> None:
    for kernel, rules in json.loads(path.read_text()).items():
        assert rules[-1].keys() == {"config"}, f"{kernel}: the last rule is the default, without a condition"


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    configs.forget()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The rules above as the table of an operation, on a GPU on which smaller blocks are faster; returns the cache."""
    monkeypatch.setattr(configs, "shipped", lambda op: {"forward": RULES})
    monkeypatch.setattr(configs, "_gpu", lambda device: H100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    triton_testing = pytest.importorskip("triton.testing")
    monkeypatch.setattr(triton_testing, "do_bench", lambda work, return_mode: work())
    return tmp_path / "lorentz_kernels" / "scale.json"


def test_tuning_keeps_the_fastest_for_its_bucket(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like, timed = torch.ones(1), []

    def run(config: dict[str, int]) -> int:
        timed.append(config["BLOCK"])
        return config["BLOCK"]

    assert pick("scale", "forward", like, run, width=1000) == {"BLOCK": 3}
    assert timed == []
    monkeypatch.setenv("LORENTZ_KERNELS_TUNE", "1")
    assert pick("scale", "forward", like, run, width=1000) == {"BLOCK": 2}
    assert pick("scale", "forward", like, run, width=1024) == {"BLOCK": 2}
    assert timed == [2, 3]  # the first is for another dtype, and none in this one gets the last
    monkeypatch.delenv("LORENTZ_KERNELS_TUNE")
    configs.forget()  # as a new process would
    assert pick("scale", "forward", like, run, width=513) == {"BLOCK": 2}
    assert pick("scale", "forward", like, run, width=1025) == {"BLOCK": 3}
    assert table.is_file()


def test_configurations_are_the_callers_to_change(table: Path) -> None:
    pick("scale", "forward", torch.ones(1), width=1).clear()
    assert pick("scale", "forward", torch.ones(1), width=1) == {"BLOCK": 2}


def test_values_are_changed_inside_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "shipped", lambda op: {"forward": [{"config": {"BLOCK": 4, "num_warps": 8}}]})

    def found() -> dict[str, Any]:
        return pick("scale", "forward", torch.ones(1), width=1)

    with changed("scale", "forward", BLOCK=2):
        assert found() == {"BLOCK": 2, "num_warps": 8}
        with changed("scale", "forward", num_warps=4):
            assert found() == {"BLOCK": 4, "num_warps": 4}
        assert found() == {"BLOCK": 2, "num_warps": 8}
        with changed("scale", "backward", BLOCK=1):
            assert found() == {"BLOCK": 2, "num_warps": 8}
    assert found() == {"BLOCK": 4, "num_warps": 8}


def test_a_table_without_a_default_is_a_fault_that_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "shipped", lambda op: {"forward": RULES[:1]})
    with pytest.raises(LookupError, match=r"no rule of scale/forward fits .*'width': 1"):
        pick("scale", "forward", torch.ones(1), width=1)
