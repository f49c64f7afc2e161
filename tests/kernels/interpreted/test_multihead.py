"""`multihead` by the kernels, in the interpreter: the specification in float64, in value and gradients."""

from __future__ import annotations

import pytest
import torch

from lorentz_kernels.attention import operators, tile
from lorentz_kernels.linear import closed, rows
from lorentz_kernels.multihead import naive, op
from tests.kernels.compare import assert_close
from tests.kernels.multihead_cases import CASES, Case, gradients, problem

SUMS = "scale", "c"  # over rows whose summands cancel


@pytest.fixture(autouse=True)
def _by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORENTZ_KERNELS_BACKEND", "triton")


@pytest.mark.parametrize("module", [rows, closed], ids=["kernels", "torch"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_and_gradients_are_those_of_the_specification(
    case: Case, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op, "implementation", lambda *_: module)  # of linear maps, for many points and for few
    p = problem(case)
    truth = gradients(p, naive.multihead, torch.float64)
    for name, found in gradients(p).items():
        assert_close(name, truth[name], found, 5e-5 if name in SUMS else 1e-5)


@pytest.mark.parametrize(("case", "name"), [(CASES[0], "tile"), (CASES[5], "operators")], ids=["short", "long"])
def test_the_length_decides_between_the_kernels(case: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators if name == "tile" else tile.Tile, "attention", None)
    gradients(problem(case))
