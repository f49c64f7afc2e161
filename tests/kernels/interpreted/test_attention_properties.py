"""What attention keeps whatever the numbers are, asked of its kernels through the public function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.attention import attention, naive, triton
from tests import oracles
from tests.kernels.attention_cases import Case, problem, truth
from tests.kernels.compare import assert_close, error_ratio

RUN = {"backend": "triton", "c": 0.5}


@pytest.fixture(autouse=True, params=[32, 0], ids=["short", "long"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the kernels of short sequences, and of the others."""
    monkeypatch.setattr("lorentz_kernels.attention.tile.LONGEST", request.param)


def operands(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, length, 3, generator=generator).to(dtype) for length in (5, 17, 17))
    return q, k, v


def test_equal_scores_give_the_centroid_of_all_values() -> None:
    q, k, v = operands()
    centroids = [oracles.centroid(oracles.rows(values), [1.0] * 17, 0.5) for values in v]
    expected = torch.tensor([[float(x) for x in point] for point in centroids], dtype=torch.float64)
    assert_close("points", expected[:, None].expand(2, 5, 3), attention(q, k, v, scale=0.0, **RUN), 5e-7)


@pytest.mark.parametrize("radius", [1.0, 100.0])
def test_equal_values_are_returned(radius: float) -> None:
    q, k, v = operands()
    v = radius * v[:, :1].expand_as(v)
    assert_close("points", v[:, :5].double(), attention(q, k, v, **RUN), 2e-7)


def test_the_order_of_the_keys_does_not_matter() -> None:
    q, k, v = operands()
    order = torch.randperm(17)
    assert_close("points", attention(q, k, v, **RUN), attention(q, k[:, order], v[:, order], **RUN), 5e-7)


def test_isometries_commute_with_attention() -> None:
    q, k, v = operands()
    velocity = torch.tensor([0.3, -0.5, 0.4])
    moved = (LF.boost(x, velocity, 0.5) for x in (q, k, v))
    expected = LF.boost(attention(q.double(), k.double(), v.double(), c=0.5), velocity.double(), 0.5)
    assert_close("points", expected, attention(*moved, **RUN), 5e-6)


def test_a_number_added_to_all_scores_moves_nothing() -> None:
    q, k, v = operands()
    mask = torch.linspace(-1, 1, 17).expand(5, 17)
    shifted = mask + torch.tensor([[9.0], [-7.0], [0.0], [3.0], [1.0]])
    assert_close("points", attention(q, k, v, mask, **RUN), attention(q, k, v, shifted, **RUN), 5e-6)


@pytest.mark.parametrize("sides", [True, False], ids=["sides", "rank1"])
@pytest.mark.parametrize("radius", [1.0, 3.0, 10.0])
def test_the_norm_of_a_far_cluster_survives_weights_in_16_bits(
    radius: float, sides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norm of a mean is a difference of squares of radius^2: one set of weights must have made both."""
    config = {"BLOCK_Q": 16, "BLOCK_K": 32, "SIDES": sides}
    monkeypatch.setattr("lorentz_kernels.attention.triton.launch.pick", lambda *_, **__: config)
    p = problem(Case(queries=16, keys=64, radius=radius, clustered=True), torch.float16)
    point, rest, *_ = triton.forward(*p.tensors, *p.options(centred=False))
    gap = LF.dist(point.double() + rest.double(), truth(p)["points"])
    assert gap.max() < 1e-4
    plain = LF.dist(truth(p, torch.float16)["points"].double(), truth(p)["points"])
    assert not gap.max() > 0.1 * plain.max()  # the specification in 16 bits is NaN where it is far out


def test_second_derivatives_leave_the_kernels_for_torch() -> None:
    def penalty(x: tuple[Tensor, ...], **options: object) -> tuple[Tensor, ...]:
        leaves = [each.detach().requires_grad_() for each in x]
        function = attention if options else naive.attention
        slopes = torch.autograd.grad(function(*leaves, c=0.5, **options).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves)

    found = penalty(operands(), backend="triton")
    for name, expected, got in zip("qkv", penalty(tuple(x.double() for x in operands())), found, strict=True):
        assert error_ratio(expected, got) < 1e-4, name
