"""The graph encoders against the centroid of ambient coordinates in float64, and against each other."""

from __future__ import annotations

import copy

import networkx as nx
import pytest
import torch
from torch import Tensor

from lorentz import Lorentz
from lorentz.graphs import NeighborSampler, edge_index
from lorentz.models import EuclideanFermiDirac, EuclideanGraphEncoder, GraphEncoder
from lorentz.nn import FermiDiracDecoder
from tests.oracles import ambient, ambient_centroid, ambient_linear

GRAPH = edge_index(torch.tensor(list(nx.gnm_random_graph(9, 14, 1).edges)))
ENCODERS = [GraphEncoder, EuclideanGraphEncoder]


def drawn(encoder: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.5)
    return encoder.double().eval()


def shares(weight: Tensor, own: float) -> Tensor:
    """The matrix of weights, those of the neighbours and of the node itself."""
    adjacency = torch.zeros(9, 9, dtype=torch.float64)
    adjacency[GRAPH[1], GRAPH[0]] = weight
    return adjacency + own * torch.eye(9, dtype=torch.float64)


@pytest.mark.parametrize("c", [1.0, 0.4])
def test_points_are_centroids_of_ambient_coordinates(c: float) -> None:
    encoder = drawn(GraphEncoder(5, 4, 2, activation=torch.relu, manifold=Lorentz(c)))
    x, weight = torch.randn(9, 5, dtype=torch.float64), torch.rand(GRAPH.shape[1], dtype=torch.float64)
    truth = x
    for k, conv in enumerate(encoder.convs):
        truth = truth.relu() if k else truth
        matrix = torch.cat([conv.linear.time_weight[:, None], conv.linear.weight], 1)
        mapped = ambient_linear(ambient(truth, c), matrix, torch.zeros(4, dtype=torch.float64), c)
        own = encoder.log_self[k].exp().item()
        truth = torch.stack([ambient_centroid(mapped, row, c) for row in shares(weight, own)])[:, 1:]
    assert torch.allclose(encoder(x, GRAPH, weight), truth, rtol=1e-10)


def test_the_twin_is_the_weighted_mean() -> None:
    encoder = drawn(EuclideanGraphEncoder(5, 4, 2, activation=torch.relu))
    x, weight = torch.randn(9, 5, dtype=torch.float64), torch.rand(GRAPH.shape[1], dtype=torch.float64)
    truth = x
    for k, conv in enumerate(encoder.convs):
        truth = truth.relu() if k else truth
        matrix = shares(weight, encoder.log_self[k].exp().item())
        truth = matrix / matrix.sum(1, keepdim=True) @ (truth @ conv.linear.weight.T + conv.linear.bias)
    assert torch.allclose(encoder(x, GRAPH, weight), truth, rtol=1e-12)


@pytest.mark.parametrize("c", [1.0, 0.4])
def test_smoothing_is_the_centroid_of_ambient_coordinates_again_and_again(c: float) -> None:
    x, weight = torch.randn(9, 5, dtype=torch.float64), torch.rand(GRAPH.shape[1], dtype=torch.float64)
    truth = x
    for hops in range(3):
        smooth = GraphEncoder(5, 4, manifold=Lorentz(c)).smooth(x, GRAPH, weight, hops)
        assert torch.allclose(smooth, truth, rtol=1e-10)
        truth = torch.stack([ambient_centroid(ambient(truth, c), row, c) for row in shares(weight, 1.0)])[:, 1:]


def test_smoothing_of_the_twin_is_a_power_of_the_matrix_of_means() -> None:
    x, weight = torch.randn(9, 5, dtype=torch.float64), torch.rand(GRAPH.shape[1], dtype=torch.float64)
    matrix = shares(weight, 1.0)
    truth = torch.linalg.matrix_power(matrix / matrix.sum(1, keepdim=True), 3) @ x
    assert torch.allclose(EuclideanGraphEncoder(5, 4).smooth(x, GRAPH, weight, 3), truth, rtol=1e-12)


@pytest.mark.parametrize("kind", ENCODERS)
def test_weights_are_ones_by_default_and_an_adjacency_is_a_graph(kind: type) -> None:
    encoder, x = drawn(kind(3, 4)), torch.randn(9, 3, dtype=torch.float64)
    ones = torch.ones(GRAPH.shape[1], dtype=torch.float64)
    adjacency = torch.sparse_coo_tensor(GRAPH.flip(0), ones, (9, 9), check_invariants=True)
    assert torch.equal(encoder(x, GRAPH), encoder(x, GRAPH, ones))
    assert torch.allclose(encoder(x, GRAPH), encoder(x, adjacency), rtol=1e-12)


def test_the_twins_have_as_many_parameters() -> None:
    for arguments in [(5, 4), (7, 3, 1), (6, 2, 4)]:
        counts = [sum(p.numel() for p in kind(*arguments).parameters()) for kind in ENCODERS]
        assert counts[0] == counts[1]


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_node_without_neighbours_is_its_own_image(kind: type) -> None:
    encoder, x = drawn(kind(3, 4, 1)), torch.randn(2, 3, dtype=torch.float64)
    apart = encoder(x, torch.empty(2, 0, dtype=torch.long))
    conv = encoder.convs[0]
    assert torch.allclose(apart, conv.linear(x), rtol=1e-12)
    assert torch.isfinite(encoder(x, torch.tensor([[0], [1]]), torch.zeros(1, dtype=torch.float64))).all()


@pytest.mark.parametrize("kind", ENCODERS)
def test_seeds_of_a_whole_sample_come_out_as_in_the_graph(kind: type) -> None:
    encoder, x, seeds = drawn(kind(3, 4, 2)), torch.randn(9, 3, dtype=torch.float64), torch.tensor([8, 2])
    sample = NeighborSampler(GRAPH, 9, [-1, -1])(seeds)
    assert torch.allclose(
        encoder(x[sample.nodes], sample.edge_index)[:2], encoder(x, GRAPH)[seeds], rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_parameter_has_the_right_gradient(kind: type) -> None:
    encoder, x = drawn(kind(3, 2, 2)), torch.randn(9, 3, dtype=torch.float64)
    names = [name for name, _ in encoder.named_parameters()]

    def encode(*values: Tensor) -> Tensor:
        return torch.func.functional_call(encoder, dict(zip(names, values, strict=True)), (x, GRAPH))

    assert torch.autograd.gradcheck(encode, tuple(encoder.parameters()))


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_own_weight_starts_as_told_beside_the_weights_of_the_edges(kind: type) -> None:
    encoder, x = kind(3, 4, 1, self_weight=3.0).double(), torch.randn(9, 3, dtype=torch.float64)
    degree = GRAPH[1].bincount(minlength=9)[GRAPH[1]].double()
    truth = kind(3, 4, 1).double()
    truth.convs.load_state_dict(encoder.convs.state_dict())
    assert torch.allclose(encoder(x, GRAPH, 1 / degree), truth(x, GRAPH, 1 / (3 * degree)), rtol=1e-6)
    assert encoder.log_self.exp().tolist() == pytest.approx([3.0])


@pytest.mark.parametrize("kind", ENCODERS)
def test_dropout_acts_in_training_only(kind: type) -> None:
    encoder, x = kind(3, 4, dropout=0.5), torch.randn(9, 3)
    assert not torch.equal(encoder(x, GRAPH), encoder(x, GRAPH))
    assert torch.equal(encoder.eval()(x, GRAPH), copy.deepcopy(encoder)(x, GRAPH))
    assert "dropout=0.5" in str(encoder)


def test_flat_and_curved_decoders_agree_near_the_origin() -> None:
    x, y = 1e-4 * torch.randn(2, 50, 6, dtype=torch.float64)
    flat, curved = EuclideanFermiDirac(2e-8, 1e-8), FermiDiracDecoder(2e-8, 1e-8)
    assert torch.allclose(flat.logits(x, y), curved.logits(x, y), atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_no_layers_are_an_error(kind: type) -> None:
    with pytest.raises(ValueError, match=r"^expected num_layers > 0, got 0$"):
        kind(3, 4, 0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_node_that_weighs_nothing_is_an_error(kind: type) -> None:
    with pytest.raises(ValueError, match=r"^expected self_weight > 0, got 0$"):
        kind(3, 4, self_weight=0)
