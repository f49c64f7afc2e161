"""Encoders of graphs, nodes with features to points: in hyperbolic space, and Euclidean twins of as many parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn._edges import unpack
from lorentz.nn.graph import GraphConv

Activation = Callable[[Tensor], Tensor]


class _Stack(nn.Module, ABC):
    """Graph convolutions in a row: dropout of the coordinates before each, the activation between them."""

    def __init__(
        self, convs: list[nn.Module], dropout: float, activation: Activation | None, self_weight: float
    ) -> None:
        super().__init__()
        if not self_weight > 0:
            raise ValueError(f"expected self_weight > 0, got {self_weight}")
        self.convs = nn.ModuleList(convs)
        self.dropout, self.activation = dropout, activation
        self.log_self = nn.Parameter(torch.full((len(convs),), math.log(self_weight), device=_device(convs[0])))

    def forward(self, x: Tensor, graph: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Return the nodes, (..., N, dim); the graph and the weights are those of `lorentz.nn.GraphConv`."""
        edges, weight = _with_loops(graph, edge_weight, widen(x).dtype, x.shape[-2])
        for k, conv in enumerate(self.convs):
            own = self.log_self[k].to(weight.dtype).exp().expand(x.shape[-2])
            x = self.activation(x) if k and self.activation is not None else x
            x = conv(F.dropout(x, self.dropout, self.training), edges, torch.cat([weight, own]))
        return x

    def smooth(self, x: Tensor, graph: Tensor, edge_weight: Tensor | None = None, hops: int = 1) -> Tensor:
        """Return the centroids of the nodes (..., N, F) and their neighbours, so many times over, of the same shape.

        No matrix is involved: on a graph that stays as it is, call it once before training, under `torch.no_grad()` if
        the curvature is learned. The twin takes means. The graph and the weights are those of `forward`; a node weighs
        1.

        Source: Wu et al., Simplifying Graph Convolutional Networks, ICML 2019.
        """
        edges, weight = _with_loops(graph, edge_weight, widen(x).dtype, x.shape[-2])
        weight = torch.cat([weight, weight.new_ones(x.shape[-2])])
        for _ in range(hops):
            x = self._centre(x, edges, weight)
        return x

    @abstractmethod
    def _centre(self, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
        """Return the centroids (..., N, F) under weights (E) of edges (2, E): what the twins differ in."""

    def extra_repr(self) -> str:
        """Return the arguments that the children do not show."""
        name = getattr(self.activation, "__name__", None)
        return f"dropout={self.dropout}" + (f", activation={name}" if name else "")


class GraphEncoder(_Stack):
    r"""Graph network in hyperbolic space, of `lorentz.nn.GraphConv` without biases.

    .. math::
        y_j = W h(x_j) + w_t h(x_j)_0, \qquad x_i \leftarrow \operatorname{centroid}(y_j;\, w_{ij},\; y_i;\, s)

    over the neighbours j of i and i itself, whose weight s > 0 is learned, one for each layer.
    Features enter as space coordinates: every vector of them is a point. h is dropout and, after the first layer, the
    activation, both on the space part. The vector w_t stands where a Euclidean layer has its bias, so that
    `EuclideanGraphEncoder` has as many parameters.

    Args:
        in_features: width of the features.
        dim: width of the layers and of the points.
        num_layers: number of convolutions: how far a node sees.
        dropout: probability that a coordinate is dropped before a convolution.
        activation: between convolutions; by default none, and the centroid alone is not linear.
        self_weight: s at the start; with `edge_weight` of one over the degree, 1 makes a node weigh as much as all its
            neighbours together.
        manifold: space of the points; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: features (..., N, in_features) and a graph of N nodes to points (..., N, dim).

    Raises:
        ValueError: num_layers or self_weight is not positive.

    Source: Chen et al., ACL 2022, the graph encoder of its experiments, with the linear layer of its Eq. 2.
    """

    def __init__(
        self,
        in_features: int,
        dim: int,
        num_layers: int = 2,
        dropout: float = 0.0,
        activation: Activation | None = None,
        *,
        self_weight: float = 1.0,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        space = manifold or Lorentz()
        convs: list[nn.Module] = [
            GraphConv(width, dim, bias=False, add_self_loops=False, manifold=space, device=device, dtype=dtype)
            for width in _widths(in_features, dim, num_layers)
        ]
        super().__init__(convs, dropout, activation, self_weight)

    def _centre(self, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
        (source, target), first = edges, cast(GraphConv, self.convs[0])
        return LF.segment_centroid(x.index_select(-2, source), target, x.shape[-2], weight, first.manifold.c)


class EuclideanGraphEncoder(_Stack):
    r"""The Euclidean twin of `GraphEncoder`, of as many parameters: the mean of :math:`W h(x_j) + b`.

    Arguments, shapes and errors are those of `GraphEncoder`. Source: Kipf and Welling, ICLR 2017, with the mean of the
    neighbours (normalisation by rows) of Hamilton et al., NeurIPS 2017.
    """

    def __init__(
        self,
        in_features: int,
        dim: int,
        num_layers: int = 2,
        dropout: float = 0.0,
        activation: Activation | None = None,
        *,
        self_weight: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        widths = _widths(in_features, dim, num_layers)
        super().__init__(
            [_EuclideanGraphConv(nn.Linear(width, dim, device=device, dtype=dtype)) for width in widths],
            dropout,
            activation,
            self_weight,
        )

    def _centre(self, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
        return _weighted_mean(x, edges, weight)


class _EuclideanGraphConv(nn.Module):
    """A linear map of the nodes, then the weighted mean of those that have an edge into a node."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
        return _weighted_mean(self.linear(x), edges, weight)


class EuclideanFermiDirac(nn.Module):
    """The twin of `lorentz.nn.FermiDiracDecoder`: (r - |x - y|^2) / t as the logit of an edge."""

    def __init__(self, r: float = 2.0, t: float = 1.0) -> None:
        super().__init__()
        self.r, self.t = r, t

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logits (...) of edges between nodes (..., n) and (..., n)."""
        return (self.r - (x - y).square().sum(-1)) / self.t


def _weighted_mean(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of the nodes (..., N, n) that have an edge (2, E) into each, under weights (E)."""
    source, target = edges
    total = weight.new_zeros(x.shape[-2]).index_add(0, target, weight)
    share = (weight / total[target]).unsqueeze(-1).to(x.dtype)
    return torch.zeros_like(x).index_add(-2, target, share * x.index_select(-2, source))


def _with_loops(graph: Tensor, edge_weight: Tensor | None, dtype: torch.dtype, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the edges and then a loop at every node, (2, E + N), and the weights of the edges, (E)."""
    source, target, weight = unpack(graph, edge_weight, nodes, add_self_loops=False)
    loops = torch.arange(nodes, device=source.device)
    weight = torch.ones(len(source), device=source.device) if weight is None else weight
    return torch.stack([torch.cat([source, loops]), torch.cat([target, loops])]), weight.to(dtype)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _widths(in_features: int, dim: int, num_layers: int) -> list[int]:
    if num_layers <= 0:
        raise ValueError(f"expected num_layers > 0, got {num_layers}")
    return [in_features, *[dim] * (num_layers - 1)]
