"""`Boost`, `Rotation`, `Isometry`: they keep distances, they invert, they are all of the group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
every_kind = pytest.mark.parametrize("kind", [lnn.Boost, lnn.Rotation, lnn.Isometry])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(kind: type, n: int = 4, c: float = 1.0, size: float = 1.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    module = kind(n, manifold=Lorentz(c), dtype=dtype)
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(size * normal(*parameter.shape, seed=seed))
    return module


@every_kind
@curvatures
def test_distances_are_kept(kind: type, c: float) -> None:
    module, x, y = moved(kind, c=c), normal(7, 4, seed=8), normal(7, 4, seed=9)
    torch.testing.assert_close(LF.dist(module(x), module(y), c), LF.dist(x, y, c))
    ambient = [oracles.ambient(module(point), c) for point in (x, y)]
    expected = oracles.ambient_inner(oracles.ambient(x, c), oracles.ambient(y, c))
    torch.testing.assert_close(oracles.ambient_inner(*ambient), expected)


@every_kind
@curvatures
def test_the_inverse_undoes_on_both_sides(kind: type, c: float) -> None:
    module, x = moved(kind, c=c), normal(7, 4, seed=8)
    inverse = module.inverse()
    assert not torch.allclose(module(x), x)
    torch.testing.assert_close(inverse(module(x)), x)
    torch.testing.assert_close(module(inverse(x)), x)
    assert inverse.inverse() is module
    torch.testing.assert_close(inverse.undo(x), module(x))


@every_kind
def test_the_inverse_shares_the_parameters_and_learns_with_them(kind: type) -> None:
    module, x = moved(kind), normal(7, 4, seed=8)
    inverse = module.inverse()
    assert {id(p) for p in inverse.parameters()} == {id(p) for p in module.parameters()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(inverse(module(x)), x)


@every_kind
def test_a_fresh_one_is_the_identity_and_learns(kind: type) -> None:
    module, x = kind(4), normal(7, 4).float()
    assert torch.equal(module(x), x)
    grads = torch.autograd.grad((module(x) * normal(7, 4, seed=1).float()).sum(), list(module.parameters()))
    assert all(grad.any() for grad in grads)


@curvatures
def test_a_boost_is_the_functional_one_at_its_velocity(c: float) -> None:
    module, x = moved(lnn.Boost, c=c), normal(7, 4, seed=8)
    assert module.velocity.norm() < 1
    torch.testing.assert_close(module(x), LF.boost(x, module.velocity, c))
    truth = oracles.each(lambda row, at: oracles.boost(row, oracles.row(module.velocity.detach()), at), c, x)
    assert oracles.relative_gaps(module(x), truth).max() < 1e-13


@curvatures
@pytest.mark.parametrize("length", [1e-8, 1e-3, 1.0, 9.0, 20.0, 40.0])
def test_a_boost_moves_the_origin_by_its_rapidity_also_near_the_speed_of_light(c: float, length: float) -> None:
    module = lnn.Boost(3, manifold=Lorentz(c))
    with torch.no_grad():
        module.rapidity.copy_(length * torch.tensor([0.6, 0.0, -0.8]))
    moved_by = LF.dist0(module(torch.zeros(3)), c)
    torch.testing.assert_close(moved_by.item(), length / c**0.5, rtol=1e-6, atol=0)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(moved_by, list(module.parameters())))
    assert module.velocity.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_rotation_matrix_is_orthogonal_with_determinant_one(n: int) -> None:
    matrix = moved(lnn.Rotation, n, size=3.0).matrix
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(matrix).item(), 1.0)


def test_a_rotation_in_float32_is_orthogonal_to_rounding() -> None:
    matrix = moved(lnn.Rotation, 32, dtype=torch.float32).matrix
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(32), rtol=0, atol=2e-5)


def test_every_rotation_of_the_plane_is_its_angle() -> None:
    module = lnn.Rotation(2, dtype=torch.float64)
    for angle in (0.3, torch.pi / 2, torch.pi, 5.0):
        with torch.no_grad():
            module.angles.fill_(angle)
        turn = torch.tensor(angle, dtype=torch.float64)
        expected = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()]).view(2, 2)
        torch.testing.assert_close(module.matrix, expected)


def test_an_isometry_is_the_boost_after_the_rotation() -> None:
    module, x = moved(lnn.Isometry), normal(7, 4, seed=8)
    expected = LF.boost(LF.rotate(x, module.rotation.matrix), module.boost.velocity)
    torch.testing.assert_close(module(x), expected)
    velocity, rotation = LF.isometry_inverse(module.boost.velocity, module.rotation.matrix)
    torch.testing.assert_close(module.inverse()(x), LF.boost(LF.rotate(x, rotation), velocity))


def test_an_isometry_learns_to_map_points_onto_their_images() -> None:
    x, target = normal(20, 3), moved(lnn.Isometry, 3, size=0.7)
    y = target(x).detach()
    module = lnn.Isometry(3, dtype=torch.float64)
    optimiser = torch.optim.LBFGS(module.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = LF.sqdist(module(x), y).mean()
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(module(x), y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.boost.velocity, target.boost.velocity, rtol=1e-3, atol=1e-4)


@every_kind
def test_autocast_does_not_round_an_isometry(kind: type) -> None:
    module, x = moved(kind, dtype=torch.float32), normal(7, 4, seed=8).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    torch.testing.assert_close(out, module(x), rtol=0, atol=0)


@every_kind
def test_another_width_is_refused(kind: type) -> None:
    with pytest.raises(
        ValueError, match=r"expected space coordinates \(..., 4\), got \(..., 5\): did you pass ambient"
    ):
        kind(4)(torch.zeros(2, 5))
