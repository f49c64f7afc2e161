"""`GraphConv` and `GraphAttention`: the equations on dense matrices, the two forms of a graph, what a graph implies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
kinds = pytest.mark.parametrize("kind", [lnn.GraphConv, lnn.GraphAttention])
layouts = pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
beta = pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta:UserWarning")

NODES, WIDTH = 6, 4
EDGES = torch.tensor([[0, 1, 2, 5, 4, 4, 1, 3], [1, 0, 1, 1, 3, 0, 5, 3]])  # nodes 2 and 4 have no neighbours
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 0.7, 1.3, 0.4], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(layer: nn.Module, seed: int = 5) -> Any:
    """The layer in float64 with all parameters away from zero."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def dense(edges: Tensor = EDGES, weights: Tensor = WEIGHTS, nodes: int = NODES) -> Tensor:
    """The adjacency A with A[i, j] the weight of the edge from j to i, filled edge by edge."""
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64)
    for j, i, w in zip(*edges.tolist(), weights.tolist(), strict=True):
        adjacency[i, j] += w
    return adjacency


def sparse(adjacency: Tensor, layout: str) -> Tensor:
    return adjacency.to_sparse(
        layout={"coo": torch.sparse_coo, "csr": torch.sparse_csr, "csc": torch.sparse_csc}[layout]
    )


def ambient_map(linear: lnn.Linear, x: Tensor, c: float) -> Tensor:
    matrix = torch.cat([linear.time_weight[:, None], linear.weight], dim=1)
    return oracles.ambient_linear(oracles.ambient(x, c), matrix, linear.bias, c)


def dense_convolution(layer: lnn.GraphConv, x: Tensor, adjacency: Tensor, c: float) -> Tensor:
    """The paper's equations on ambient coordinates and a matrix of weights; the origin for a row of zeros."""
    y = oracles.ambient_centroid(ambient_map(layer.linear, x, c), adjacency, c)[:, 1:]
    return torch.where(adjacency.any(-1, keepdim=True), y, 0.0)


def dense_attention(layer: lnn.GraphAttention, x: Tensor, adjacency: Tensor, c: float) -> list[Tensor]:
    """The heads, each by the paper's equations on ambient coordinates and a matrix of weights."""
    n, heads = layer.out_features, []
    maps = [ambient_map(linear, x, c)[:, 1:] for linear in (layer.query, layer.key, layer.value)]
    for h in range(layer.heads):
        q, k, v = (oracles.ambient(each[:, h * n : (h + 1) * n], c) for each in maps)
        scale = float(layer.log_scale[h].detach().exp())
        alive = adjacency.any(-1, keepdim=True)
        bias = torch.where(alive, adjacency, 1.0).log()
        heads.append(torch.where(alive, oracles.ambient_attention(q, k, v, bias, scale, c)[:, 1:], 0.0))
    return heads


@curvatures
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_convolution_is_the_centroid_of_the_mapped_neighbours(weighted: bool, add_self_loops: bool, c: float) -> None:
    layer = trained(lnn.GraphConv(WIDTH, 3, add_self_loops=add_self_loops, manifold=Lorentz(c)))
    weights = WEIGHTS if weighted else torch.ones(8, dtype=torch.float64)
    adjacency = dense(weights=weights) + (torch.eye(NODES) if add_self_loops else 0)
    x = normal(NODES, WIDTH)
    expected = dense_convolution(layer, x, adjacency, c)
    torch.testing.assert_close(layer(x, EDGES, weights if weighted else None), expected)
    torch.testing.assert_close(layer(x, sparse(dense(weights=weights), "coo")), expected)


@curvatures
@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_attention_is_the_equation_of_the_paper(weighted: bool, add_self_loops: bool, concat: bool, c: float) -> None:
    layer = trained(lnn.GraphAttention(WIDTH, 3, 2, concat, add_self_loops=add_self_loops, manifold=Lorentz(c)))
    weights = WEIGHTS if weighted else torch.ones(8, dtype=torch.float64)
    adjacency = dense(weights=weights) + (torch.eye(NODES) if add_self_loops else 0)
    x = normal(NODES, WIDTH)
    heads = dense_attention(layer, x, adjacency, c)
    joined = torch.cat(heads, dim=-1) if concat else ambient_mean(heads, c)
    torch.testing.assert_close(layer(x, EDGES, weights if weighted else None), joined)


def ambient_mean(points: list[Tensor], c: float) -> Tensor:
    p = oracles.ambient(torch.stack(points, dim=-2), c)
    return oracles.ambient_centroid(p, torch.ones(1, len(points), dtype=torch.float64), c)[..., 0, 1:]


@beta
@layouts
@kinds
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sparse_adjacency_is_the_same_graph_as_its_edges(weighted: bool, kind: type, layout: str) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    weights = WEIGHTS if weighted else torch.ones(8, dtype=torch.float64)
    adjacency = sparse(dense(weights=weights), layout)
    assert adjacency.layout == getattr(torch, f"sparse_{layout}")
    torch.testing.assert_close(layer(x, adjacency), layer(x, EDGES, weights))


@beta
@layouts
@kinds
def test_the_weights_of_either_form_learn(kind: type, layout: str) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    adjacency, weights = sparse(dense(), layout).requires_grad_(), WEIGHTS.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x, adjacency).square().sum(), adjacency)
    (expected,) = torch.autograd.grad(layer(x, EDGES, weights).square().sum(), weights)
    assert expected.all()
    torch.testing.assert_close(grad.to_dense(), dense(weights=expected))


@kinds
def test_messages_flow_from_source_to_target_as_in_pyg_and_along_rows_of_the_adjacency(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3, add_self_loops=False)), normal(2, WIDTH)
    out = layer(x, torch.tensor([[0], [1]]))  # one edge, from node 0 to node 1
    message = (layer.linear if kind is lnn.GraphConv else layer.value)(x)[0]
    torch.testing.assert_close(out, torch.stack([torch.zeros_like(message), message]))
    torch.testing.assert_close(layer(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]]).to_sparse()), out)


@kinds
def test_nodes_may_be_numbered_in_any_order(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    number = order.argsort()
    torch.testing.assert_close(layer(x[order], number[EDGES], WEIGHTS), layer(x, EDGES, WEIGHTS)[order])


@kinds
def test_edges_may_be_listed_in_any_order(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    order = torch.tensor([3, 0, 7, 5, 1, 6, 4, 2])
    torch.testing.assert_close(layer(x, EDGES[:, order], WEIGHTS[order]), layer(x, EDGES, WEIGHTS))


@kinds
def test_only_the_neighbours_matter(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    moved = x.index_put((torch.tensor(4),), normal(WIDTH, seed=9))
    changed = (layer(moved, EDGES) != layer(x, EDGES)).any(-1)
    assert changed.tolist() == [True, False, False, True, True, False]  # 4 itself, and its edges to 0 and 3


def test_an_isometry_of_the_messages_moves_the_centroids_along() -> None:
    """A convolution whose map is an isometry commutes with it; the aggregation alone does with every isometry."""
    layer = trained(lnn.GraphConv(WIDTH, WIDTH, bias=False, add_self_loops=False))
    u, r = 0.5 * nn.functional.normalize(normal(WIDTH, seed=1), dim=0), torch.linalg.qr(normal(WIDTH, WIDTH)).Q
    gamma = (1 - u @ u).rsqrt()
    x = normal(NODES, WIDTH)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(WIDTH))
        layer.linear.time_weight.zero_()
        plain = layer(x, EDGES, WEIGHTS)
        layer.linear.weight.copy_((torch.eye(WIDTH) + gamma**2 / (1 + gamma) * torch.outer(u, u)) @ r)
        layer.linear.time_weight.copy_(-gamma * u)
    neighbours = [0, 1, 3, 5]
    moved = LF.boost(LF.rotate(plain, r), u)
    torch.testing.assert_close(layer(x, EDGES, WEIGHTS)[neighbours], moved[neighbours])


@kinds
def test_nodes_without_neighbours_are_at_the_origin_with_finite_gradients(kind: type) -> None:
    layer, x = kind(WIDTH, 3, add_self_loops=False), normal(NODES, WIDTH).float().requires_grad_()
    for graph in (EDGES, EDGES[:, :0], torch.sparse_coo_tensor(size=(NODES, NODES), check_invariants=True)):
        out = layer(x, graph)
        lonely = [2, 4] if graph is EDGES else range(NODES)
        assert not out[lonely].any()
        assert out.isfinite().all()
        layer.zero_grad()
        out.square().sum().backward()
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (x, *layer.parameters()))


@kinds
def test_without_edges_self_loops_leave_the_map_of_each_node(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    linear = layer.linear if kind is lnn.GraphConv else layer.value
    torch.testing.assert_close(layer(x, EDGES[:, :0]), linear(x))
    assert layer(x[:0], EDGES[:, :0]).shape == (0, 3)


@kinds
def test_edges_between_the_same_nodes_add(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(NODES, WIDTH)
    doubled, heavy = torch.cat([EDGES, EDGES[:, :2]], dim=1), torch.ones(8, dtype=torch.float64)
    heavy[:2] = 2
    torch.testing.assert_close(layer(x, doubled), layer(x, EDGES, heavy))
    parallel = torch.sparse_coo_tensor(doubled.flip(0), torch.ones(10).double(), (NODES, NODES), check_invariants=True)
    torch.testing.assert_close(layer(x, parallel), layer(x, EDGES, heavy))
    loops = torch.arange(NODES).expand(2, -1)
    without = trained(kind(WIDTH, 3, add_self_loops=False))
    torch.testing.assert_close(layer(x, EDGES), without(x, torch.cat([EDGES, loops], dim=1)))


@kinds
@pytest.mark.parametrize("radius", [1.0, 6.0])
def test_an_edge_of_weight_zero_is_no_edge(kind: type, radius: float) -> None:
    """Also one whose score in the softmax is so much the largest that the others would vanish beside it."""
    layer = trained(kind(WIDTH, 3)).float()
    x = oracles.points_at(radius, NODES, WIDTH, seed=1).float()
    for dropped in range(8):
        weights = torch.ones(8)
        weights[dropped] = 0
        kept = [edge for edge in range(8) if edge != dropped]
        torch.testing.assert_close(layer(x, EDGES, weights), layer(x, EDGES[:, kept]), rtol=1e-5, atol=1e-5)


def test_the_scale_of_the_weights_into_a_node_is_immaterial_to_a_convolution() -> None:
    layer, x = trained(lnn.GraphConv(WIDTH, 3, add_self_loops=False)), normal(NODES, WIDTH)
    scale = torch.tensor([3.0, 0.1, 1.0, 2.0, 5.0, 1e-4], dtype=torch.float64)
    torch.testing.assert_close(layer(x, EDGES, scale[EDGES[1]] * WEIGHTS), layer(x, EDGES, WEIGHTS))


@curvatures
def test_on_a_complete_graph_attention_is_that_of_the_functional(c: float) -> None:
    layer = trained(lnn.GraphAttention(WIDTH, 3, heads=2, add_self_loops=False, manifold=Lorentz(c)))
    x = normal(2, NODES, WIDTH)
    complete = torch.cartesian_prod(torch.arange(NODES), torch.arange(NODES)).T
    q, k, v = (LF.split_heads(linear(x), 2) for linear in (layer.query, layer.key, layer.value))
    expected = LF.merge_heads(LF.attention(q, k, v, scale=layer.log_scale.exp()[:, None, None], c=c))
    torch.testing.assert_close(layer(x, complete), expected)


@kinds
def test_leading_dimensions_share_the_graph(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(2, 3, NODES, WIDTH)
    each = torch.stack([torch.stack([layer(x[i, j], EDGES, WEIGHTS) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(layer(x, EDGES, WEIGHTS), each)
    mapped = torch.vmap(lambda points: layer(points, EDGES, WEIGHTS))(x[0])
    torch.testing.assert_close(mapped, each[0])


@kinds
def test_a_batch_of_graphs_is_their_disjoint_union(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(2, NODES, WIDTH)
    union = torch.cat([EDGES, EDGES + NODES], dim=1)
    torch.testing.assert_close(layer(x.flatten(0, 1), union), layer(x, EDGES).flatten(0, 1))


@kinds
def test_per_sample_gradients_are_those_of_a_loop(kind: type) -> None:
    layer, x = trained(kind(WIDTH, 3)), normal(2, NODES, WIDTH)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], points: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (points, EDGES, WEIGHTS)).square().sum()

    mapped = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for row in range(2):
        torch.testing.assert_close({n: g[row] for n, g in mapped.items()}, torch.func.grad(loss)(parameters, x[row]))


@kinds
def test_gradients_of_points_and_weights_are_those_of_finite_differences(kind: type) -> None:
    layer = trained(kind(WIDTH, 3, add_self_loops=False, manifold=Lorentz(0.7)))
    x, weights = normal(NODES, WIDTH).requires_grad_(), WEIGHTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda *leaves: layer(leaves[0], EDGES, leaves[1]), (x, weights))


def test_dropout_leaves_the_centroid_of_some_of_the_neighbours_in_training_only() -> None:
    layer = trained(lnn.GraphAttention(WIDTH, 3, dropout=0.5, add_self_loops=False))
    x, graph = normal(3, WIDTH), torch.tensor([[1, 2], [0, 0]])
    both, first, second = (layer.eval()(x, graph[:, kept])[0] for kept in ([0, 1], [0], [1]))
    torch.manual_seed(0)
    layer.train()
    seen = [0] * 4
    for _ in range(200):
        out = layer(x, graph)[0]
        hits = [torch.allclose(out, each) for each in (both, first, second, torch.zeros_like(out))]
        assert sum(hits) == 1
        seen[hits.index(True)] += 1
    assert min(seen) > 25  # 50 expected of each


def test_the_scale_starts_where_that_of_multihead_attention_does_and_is_positive() -> None:
    layer = lnn.GraphAttention(8, 4, heads=2)
    torch.testing.assert_close(layer.scale, lnn.MultiheadAttention(8, 2).scale)
    with torch.no_grad():
        layer.log_scale.fill_(-50.0)
    assert (layer.scale > 0).all()


def test_heads_are_joined_or_averaged_and_said_in_the_repr() -> None:
    x = normal(NODES, WIDTH).float()
    assert lnn.GraphAttention(WIDTH, 3, heads=2)(x, EDGES).shape == (NODES, 6)
    assert lnn.GraphAttention(WIDTH, 3, heads=2, concat=False)(x, EDGES).shape == (NODES, 3)
    text = "4, 3, heads=2, concat=False, dropout=0.1, add_self_loops=True"
    assert lnn.GraphAttention(WIDTH, 3, 2, False, 0.1).extra_repr() == text
    assert lnn.GraphConv(WIDTH, 3, add_self_loops=False).extra_repr() == "add_self_loops=False"
    assert lnn.GraphConv(WIDTH, 3, bias=False).linear.bias is None
    assert lnn.GraphAttention(WIDTH, 3, bias=False).key.bias is None


@kinds
def test_out_manifold_is_the_space_of_the_output(kind: type) -> None:
    c_in, c_out = 0.5, 2.0
    x = normal(NODES, WIDTH)
    plain = trained(kind(WIDTH, 3, manifold=Lorentz(c_in)))
    layer = trained(kind(WIDTH, 3, manifold=Lorentz(c_in), out_manifold=Lorentz(c_out)))
    if kind is lnn.GraphAttention:  # squared distances, and so scores, shrink with the space
        with torch.no_grad():
            layer.log_scale += torch.tensor(c_out / c_in).log()
    ratio = (c_in / c_out) ** 0.5
    torch.testing.assert_close(layer(x, EDGES), ratio * plain(x, EDGES))


@kinds
def test_graphs_that_do_not_fit_are_refused(kind: type) -> None:
    layer, x = kind(WIDTH, 3), torch.zeros(NODES, WIDTH)
    index = r"expected edge_index \(2, E\) of int64 or a sparse adjacency \(6, 6\), got "
    for graph, message in (
        (dense().float(), index + r"\(6, 6\) of float32: did you pass a dense adjacency\? use adjacency.to_sparse\(\)"),
        (EDGES.T, index + r"\(8, 2\) of int64$"),
        (EDGES.int(), index + r"\(2, 8\) of int32$"),
        (EDGES[0], index + r"\(8,\) of int64$"),
        (torch.zeros(5, 5).to_sparse(), r"expected a sparse adjacency \(6, 6\), got \(5, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(x, graph)
    with pytest.raises(ValueError, match=r"expected edge_weight \(8,\), got \(7,\)"):
        layer(x, EDGES, torch.ones(7))
    with pytest.raises(ValueError, match="expected no edge_weight with a sparse adjacency"):
        layer(x, dense().to_sparse(), WEIGHTS)
    with pytest.raises(ValueError, match=r"expected space coordinates \(..., 4\), got \(..., 5\): .*from_ambient"):
        layer(LF.to_ambient(x), EDGES)
    with pytest.raises((IndexError, RuntimeError), match=r"(?i)index|indices"):
        layer(x, EDGES + 1)
    with pytest.raises(ValueError, match="expected heads > 0, got 0"):
        lnn.GraphAttention(WIDTH, 3, heads=0)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@kinds
def test_memory_is_linear_in_the_edges(kind: type) -> None:
    nodes, edges, width = 100_000, 1_000_000, 4
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(nodes, width, generator=generator).requires_grad_()
    graph = torch.randint(nodes, (2, edges), generator=generator)
    with LargestTensor() as largest:
        out = kind(width, width)(x, graph)
        out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert largest.elements == (edges + nodes) * width


@pytest.mark.slow
@kinds
def test_one_compiled_program_serves_graphs_of_every_size(kind: type) -> None:
    torch.compiler.reset()
    layer = trained(kind(WIDTH, 3))
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(normal(NODES, WIDTH), EDGES)
    with torch.compiler.set_stance("fail_on_recompile"):
        for nodes, edges in ((7, 20), (30, 11)):
            graph = torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(1))
            x = normal(nodes, WIDTH)
            torch.testing.assert_close(compiled(x, graph), layer(x, graph))


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("weighted", [False, True])
def test_one_exported_program_serves_graphs_of_every_size(weighted: bool, kind: type) -> None:
    layer = trained(kind(WIDTH, 3))
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    inputs, shapes = [normal(NODES, WIDTH), EDGES], [{0: nodes}, {1: edges}]
    if weighted:
        inputs, shapes = [*inputs, WEIGHTS], [*shapes, {0: edges}]
    program = torch.export.export(layer, tuple(inputs), dynamic_shapes=tuple(shapes), strict=True).module()
    larger = [normal(30, WIDTH), torch.randint(30, (2, 50), generator=torch.Generator().manual_seed(1))]
    larger = [*larger, normal(50).exp()] if weighted else larger
    torch.testing.assert_close(program(*larger), layer(*larger))
