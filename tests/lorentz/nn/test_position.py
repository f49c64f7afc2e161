"""Positions: the sinusoids of the paper, learned vectors, and rotary angles, which are isometries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn

both_fixed = pytest.mark.parametrize("kind", [lnn.PositionalEncoding, lnn.RotaryEmbedding])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("offset", [0, 3])
def test_sinusoids_are_those_of_the_formula(offset: int) -> None:
    x = normal(2, 5, 6)
    out = lnn.PositionalEncoding(6, base=100.0, scale=0.7)(x, offset) - x
    for i in range(5):
        for k in range(3):
            angle = (i + offset) / 100 ** (2 * k / 6)
            expected = torch.tensor([0.7 * math.sin(angle), 0.7 * math.cos(angle)], dtype=torch.float64)
            torch.testing.assert_close(out[:, i, 2 * k : 2 * k + 2], expected.expand(2, 2))


def test_by_default_every_position_has_norm_one() -> None:
    torch.testing.assert_close(lnn.PositionalEncoding(6)(torch.zeros(9, 6)).norm(dim=-1), torch.ones(9))


@pytest.mark.parametrize("offset", [0, 3])
def test_rotary_turns_each_pair_by_the_angle_of_its_position(offset: int) -> None:
    x = normal(2, 5, 6)
    pairs = torch.view_as_complex(x.view(2, 5, 3, 2).contiguous())
    positions = torch.arange(5, dtype=torch.float64)[:, None] + offset
    angles = positions * 10_000.0 ** (-2 * torch.arange(3, dtype=torch.float64) / 6)
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    torch.testing.assert_close(lnn.RotaryEmbedding(6)(x, offset), expected)


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_rotary_distances_depend_on_the_difference_of_positions_only(c: float) -> None:
    rotary, q, k = lnn.RotaryEmbedding(6), normal(1, 6), normal(1, 6, seed=1)

    def distance(i: int, j: int) -> Tensor:
        return LF.dist(rotary(q, i), rotary(k, j), c)

    torch.testing.assert_close(distance(9, 4), distance(5, 0))
    torch.testing.assert_close(distance(4, 4), LF.dist(q, k, c))
    assert not torch.allclose(distance(9, 4), distance(9, 3))


def test_rotary_is_an_isometry_of_points_at_one_position() -> None:
    rotary, x, y = lnn.RotaryEmbedding(6), normal(5, 6), normal(5, 6, seed=1)
    torch.testing.assert_close(LF.dist(rotary(x), rotary(y)), LF.dist(x, y))
    torch.testing.assert_close(LF.time(rotary(x)), LF.time(x))


@pytest.mark.parametrize("kind", ["fixed", "learned", "rotary"])
def test_one_position_at_a_time_is_the_whole_sequence(kind: str) -> None:
    module = {
        "fixed": lnn.PositionalEncoding(6),
        "learned": lnn.LearnedPositionalEncoding(5, 6),
        "rotary": lnn.RotaryEmbedding(6),
    }[kind]
    x = normal(2, 5, 6).float()
    steps = torch.cat([module(x[:, i : i + 1], i) for i in range(5)], dim=1)
    torch.testing.assert_close(steps, module(x), rtol=0, atol=1e-6)


@both_fixed
def test_the_offset_may_be_a_tensor(kind: type) -> None:
    module, x = kind(6), normal(2, 5, 6)
    assert torch.equal(module(x, torch.tensor(3)), module(x, 3))


@both_fixed
def test_positions_have_no_state_and_no_end(kind: type) -> None:
    module = kind(2)
    assert not module.state_dict()
    assert module(torch.ones(1, 100_000, 2)).isfinite().all()
    for odd in (3, 0):
        with pytest.raises(ValueError, match=f"expected an even embedding_dim, got {odd}"):
            kind(odd)


def test_learned_positions_are_added_to_the_space_part() -> None:
    module, x = lnn.LearnedPositionalEncoding(7, 4, std=0.5), normal(2, 5, 4).float()
    torch.testing.assert_close(module(x, 2), x + module.weight[2:7])
    torch.manual_seed(0)
    assert abs(lnn.LearnedPositionalEncoding(5000, 4, std=0.5).weight.std() - 0.5) < 0.02


@pytest.mark.parametrize(("length", "offset"), [(8, 0), (5, 3), (1, -1)])
def test_learned_positions_past_the_end_are_refused(length: int, offset: int) -> None:
    with pytest.raises(ValueError, match="expected positions below 7, got"):
        lnn.LearnedPositionalEncoding(7, 4)(torch.zeros(1, length, 4), offset)
