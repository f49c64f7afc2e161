"""The promises of docs/numerics.md that are about the page itself, or about training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, param_groups
from tests.lorentz import numerics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "numerics.md"
RELATIVE = ("distance", "origin", "clusters", "curvature", "limits")
NOISE = 3e-7
"""Relative errors below this are the rounding of float32, which differs between processors."""


def committed(name: str) -> numerics.Table:
    """The cells below the command that prints them."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"`python -m tests.lorentz.numerics {name}`\n\n")
    assert found, name
    lines = rest[: rest.index("\n\n")].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]


def numbers(cell: str) -> list[float]:
    return [math.inf if part == "NaN" else float(part) for part in cell.split(" / ")]


def agree(name: str, old: float, new: float) -> bool:
    """Whether two figures are the same but for the processor: within a factor of 3, sums of products within 10.

    How a matrix product sums, and so what is left where its terms cancel, differs between AVX2 and AVX-512.
    """
    if name in RELATIVE and max(old, new) >= 0.1:
        return min(old, new) >= 0.03  # hardly a digit is left in both
    low, high = sorted((old, new) if name == "storage" else (max(old, NOISE), max(new, NOISE)))
    return high <= (10 if name == "limits" else 3) * low


@pytest.mark.parametrize("name", numerics.TABLES)
def test_the_tables_of_the_page_are_measured_anew(name: str) -> None:
    old, new = committed(name), numerics.TABLES[name]()
    assert old[0] == new[0]
    assert len(old) == len(new)
    for before, now in zip(old[1:], new[1:], strict=True):
        for column, left, right in zip(new[0], before, now, strict=True):
            if left != right:
                pairs = zip(numbers(left), numbers(right), strict=True)
                assert all(agree(name, *pair) for pair in pairs), f"{column}: {before} on the page, {now} measured"


@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_training_with_a_learned_curvature_is_finite_from_either_end(start: float) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(start, learnable=True)
    table = lnn.Embedding(12, 8, manifold=manifold)
    layer = lnn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, manifold=manifold)
    head = lnn.MLR(8, 3, manifold=manifold)
    model = torch.nn.Sequential(table, layer, head)
    optimizer = RiemannianAdam(param_groups(model, lr=0.03))
    tokens, labels = torch.randint(12, (16, 5)), torch.randint(3, (16, 5))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.as_tensor(manifold.c).item() != pytest.approx(start, rel=1e-3)
