"""Graph layers: each node becomes a centroid of its neighbours, weighted by the graph or by attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import Curvature, widen
from lorentz.manifold import Lorentz
from lorentz.nn import _edges
from lorentz.nn.linear import Linear
from lorentz.nn.module import LorentzModule


class GraphConv(LorentzModule):
    r"""Graph convolution: a `Linear` map f of the nodes, then the centroid of the neighbours.

    .. math::
        y_i = \operatorname{centroid}_j(f(x_j);\, w_{ij})
            = \frac{\sum_j w_{ij} f(x_j)}{\sqrt c\,\bigl|\sum_j w_{ij} f(x_j)\bigr|_L}
            \quad\text{(ambient coordinates)}

    w_ij is the weight of the edge from j to i. The scale of the weights into a node does not matter, so an adjacency
    needs no normalisation by rows.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: as in `Linear`.
        add_self_loops: add an edge of weight one from every node to itself, also to nodes that have one.
        manifold: space of the input; by default curvature -1, fixed.
        out_manifold: space of the output; by default that of the input.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., N, in_features) and a graph of N nodes to points (..., N, out_features).

    Parameters: those of `linear`, the map f.

    Source: Chen et al., ACL 2022, its graph encoder; Zhang et al., Lorentzian Graph Convolutional Networks, WWW 2021.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        add_self_loops: bool = True,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.add_self_loops = add_self_loops
        self.manifold = manifold or Lorentz()
        self.out_manifold = out_manifold
        self.linear = Linear(
            in_features,
            out_features,
            bias,
            manifold=self.manifold,
            out_manifold=out_manifold,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Draw the parameters of `linear` anew."""
        self.linear.reset_parameters()

    def forward(self, x: Tensor, graph: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Return the centroids of the neighbours, (..., N, out_features); the origin for a node that has none.

        Memory is linear in the number of edges.

        Args:
            x: the nodes, points (..., N, in_features).
            graph: either `edge_index`, (2, E) of int64, with the sources in row 0 and the targets in row 1, as in
                PyG; or a sparse adjacency, (N, N) in the layout COO, CSR or CSC, whose value at [i, j] is the weight
                of the edge from j to i, as in the product of adjacency and features. Edges between the same nodes
                add. Compiled and exported graphs take `edge_index`; a sparse adjacency is for eager mode.
            edge_weight: non-negative, (E), with `edge_index`; by default all one.

        Raises:
            ValueError: the graph, the weights or the points have another shape, or the graph is dense.
        """
        num_nodes = x.shape[-2]
        source, target, weight = _edges.unpack(graph, edge_weight, num_nodes, self.add_self_loops)
        messages = self.linear(x).index_select(-2, source)  # (..., E, out)
        return LF.segment_centroid(messages, target, num_nodes, weight, _output_c(self))

    def extra_repr(self) -> str:
        """Return the argument that the children do not show."""
        return f"add_self_loops={self.add_self_loops}"


class GraphAttention(LorentzModule):
    r"""Graph attention: the weights of the neighbours are a softmax over squared Lorentzian distances.

    .. math::
        a_{ij} = \frac{w_{ij} \exp(-s\,|q_i - k_j|_L^2)}{\sum_l w_{il} \exp(-s\,|q_i - k_l|_L^2)}, \qquad
        y_i = \operatorname{centroid}_j(v_j;\, a_{ij}), \qquad s > 0,

    per head, over the edges from j to i. q, k and v are `Linear` maps of the nodes, cut into heads. On a complete graph
    this is `lorentz.functional.attention`.

    Args:
        in_features: width of the input.
        out_features: width of each head.
        heads: number of heads.
        concat: join the heads, heads * out_features wide; otherwise return their centroid, out_features wide.
        dropout: probability that a weight a_ij is dropped in training; what is left gives the centroid.
        bias: use biases in the three maps.
        add_self_loops: add an edge of weight one from every node to itself, also to nodes that have one.
        manifold: space of the input; by default curvature -1, fixed.
        out_manifold: space of q, k, v and the output; by default that of the input.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., N, in_features) and a graph of N nodes to points (..., N, heads * out_features), or
    (..., N, out_features) without `concat`.

    Parameters: those of the maps `query`, `key` and `value`; `log_scale` (heads), the logarithm of s, at the start
    that of 1 / (2 sqrt(out_features)) as in `MultiheadAttention`.

    Raises:
        ValueError: heads is not positive.

    Source: Velickovic et al., Graph Attention Networks, ICLR 2018, with the weights and centroids of Chen et al., ACL
    2022.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        heads: int = 1,
        concat: bool = True,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        add_self_loops: bool = True,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if heads <= 0:
            raise ValueError(f"expected heads > 0, got {heads}")
        self.in_features, self.out_features = in_features, out_features
        self.heads, self.concat, self.dropout = heads, concat, dropout
        self.add_self_loops = add_self_loops
        self.manifold = manifold or Lorentz()
        self.out_manifold = out_manifold

        def linear() -> Linear:
            return Linear(
                in_features,
                heads * out_features,
                bias,
                manifold=self.manifold,
                out_manifold=out_manifold,
                device=device,
                dtype=dtype,
            )

        self.query, self.key, self.value = linear(), linear(), linear()
        self.log_scale = nn.Parameter(torch.empty(heads, device=device, dtype=dtype))
        self._reset_scale()

    def reset_parameters(self) -> None:
        """Draw the three maps anew; set the scale to its value at the start."""
        for linear in (self.query, self.key, self.value):
            linear.reset_parameters()
        self._reset_scale()

    def _reset_scale(self) -> None:
        nn.init.constant_(self.log_scale, math.log(0.5 * self.out_features**-0.5))

    @property
    def scale(self) -> Tensor:
        """The factor s > 0 of the squared distances, per head: (heads)."""
        return widen(self.log_scale).exp()

    def forward(self, x: Tensor, graph: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Return the attended points, (..., N, heads * out_features) or, without `concat`, (..., N, out_features).

        Arguments and errors are those of `GraphConv.forward`. A node without neighbours gets the origin.
        """
        num_nodes, c = x.shape[-2], _output_c(self)
        source, target, weight = _edges.unpack(graph, edge_weight, num_nodes, self.add_self_loops)
        q, k, v = (LF.split_heads(linear(x), self.heads) for linear in (self.query, self.key, self.value))
        squares = LF.sqdist(q.index_select(-2, target), k.index_select(-2, source), c)  # (..., heads, E)
        attention = _weighted_softmax(-self.scale[:, None] * squares, target, num_nodes, weight)
        attention = F.dropout(attention, self.dropout, self.training)
        y = LF.segment_centroid(v.index_select(-2, source), target, num_nodes, attention, c)  # (..., heads, N, out)
        return LF.merge_heads(y) if self.concat else LF.centroid(y.transpose(-2, -3), c=c)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return (
            f"{self.in_features}, {self.out_features}, heads={self.heads}, concat={self.concat}, "
            f"dropout={self.dropout}, add_self_loops={self.add_self_loops}"
        )


def _output_c(layer: GraphConv | GraphAttention) -> Curvature:
    return (layer.out_manifold or layer.manifold).c


def _weighted_softmax(scores: Tensor, index: Tensor, num_segments: int, weight: Tensor | None) -> Tensor:
    """Return w exp(score) in the proportions of each segment: (..., E). The centroid needs no more."""
    if weight is None:
        return LF.segment_softmax(scores, index, num_segments)
    # An edge of weight zero is no edge: its score must not be the largest, before which the others vanish.
    present = scores.masked_fill(weight == 0, float("-inf"))
    return LF.segment_softmax(present, index, num_segments) * weight
