"""The graphs that the graph layers take, an `edge_index` or a sparse adjacency, as sources, targets and weights."""

from __future__ import annotations

import torch
from torch import Tensor

Edges = tuple[Tensor, Tensor, Tensor | None]
"""The source, the target and the weight of each edge, (E) each; without weights, all of them are one."""

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def unpack(graph: Tensor, edge_weight: Tensor | None, num_nodes: int, add_self_loops: bool) -> Edges:
    """Return the edges of a graph of N nodes.

    Args:
        graph: edge_index, (2, E) of int64, sources over targets; or a sparse adjacency, (N, N), with the weight of the
            edge from j to i at [i, j].
        edge_weight: (E), for edge_index only.
        num_nodes: N.
        add_self_loops: add an edge of weight one from every node to itself: the adjacency A becomes A + I.

    Raises:
        ValueError: neither fits.
    """
    if graph.layout in _SPARSE:
        source, target, weight = _of_adjacency(graph, edge_weight, num_nodes)
    else:
        source, target, weight = _of_index(graph, edge_weight, num_nodes)
    if not add_self_loops:
        return source, target, weight
    nodes = torch.arange(num_nodes, device=source.device)
    weight = None if weight is None else torch.cat([weight, weight.new_ones(num_nodes)])
    return torch.cat([source, nodes]), torch.cat([target, nodes]), weight


def _of_adjacency(graph: Tensor, edge_weight: Tensor | None, num_nodes: int) -> Edges:
    if edge_weight is not None:
        raise ValueError("expected no edge_weight with a sparse adjacency, whose values are the weights")
    if graph.shape != (num_nodes, num_nodes):
        raise ValueError(f"expected a sparse adjacency ({num_nodes}, {num_nodes}), got {tuple(graph.shape)}")
    adjacency = graph.to_sparse_coo().coalesce()
    target, source = adjacency.indices()
    return source, target, adjacency.values()


def _of_index(graph: Tensor, edge_weight: Tensor | None, num_nodes: int) -> Edges:
    if graph.dtype != torch.int64 or graph.dim() != 2 or graph.shape[0] != 2:
        dense = graph.shape == (num_nodes, num_nodes)
        hint = ": did you pass a dense adjacency? use adjacency.to_sparse()" if dense else ""
        raise ValueError(
            f"expected edge_index (2, E) of int64 or a sparse adjacency ({num_nodes}, {num_nodes}), "
            f"got {tuple(graph.shape)} of {str(graph.dtype).removeprefix('torch.')}{hint}"
        )
    if edge_weight is not None and edge_weight.shape != graph.shape[1:]:
        raise ValueError(f"expected edge_weight ({graph.shape[1]},), got {tuple(edge_weight.shape)}")
    source, target = graph
    return source, target, edge_weight
