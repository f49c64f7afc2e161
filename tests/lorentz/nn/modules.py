"""Every module of `lorentz.nn` with arguments and inputs: the table that the tests of the machinery run over.

A new module joins by one line here; a test compares the table with `lorentz.nn.__all__`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lorentz.nn as lnn


@dataclass(frozen=True)
class Layer:
    """A module under test.

    `text` is the repr, or its first line where it ends there. `build` takes the keywords that every constructor has:
    manifold, and device and dtype where parameters are made. `shapes` are those of the inputs: points, or indices
    below `indices` where that is set. `twin` builds the torch module whose state_dict must load; `same_space` says that
    the twin, given the same weights, agrees on the space part. `stack` marks the modules that take long to trace.
    `graph`, sources and targets, becomes the last input as an edge_index.
    """

    name: str
    text: str
    build: Callable[..., nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    twin: Callable[[], nn.Module] | None = None
    same_space: bool = False
    indices: int = 0
    stack: bool = False
    graph: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def makes_parameters(self) -> bool:
        return "dtype" in inspect.signature(getattr(lnn, self.name)).parameters

    def inputs(self, dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[Tensor, ...]:
        """The same inputs on every call."""
        generator = torch.Generator().manual_seed(seed)
        if self.indices:
            # Without the padding row, to which torch gives no gradient.
            return tuple(torch.randint(1, self.indices, shape, generator=generator) for shape in self.shapes)
        points = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in self.shapes]
        return (*points, *([] if self.graph is None else [torch.tensor(self.graph)]))

    def ready(self, seed: int = 2, **keywords: Any) -> nn.Module:
        """The module in eval mode with parameters away from their special values at the start."""
        module = self.build(**keywords).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return module


def first(output: Any) -> Tensor:
    """The points among what a module returns."""
    return output[0] if isinstance(output, tuple) else output


POINTS = ((5, 4),)
SEQUENCE = ((2, 5, 4),)
ROW = ((2, 4, 5),)
IMAGE = ((2, 4, 5, 3),)
GRAPH = ((0, 1, 2, 2, 4), (1, 0, 1, 1, 3))  # nodes 2 and 4 have no neighbours, node 1 one of them twice
WIDE = ((2, 5, 16),)  # layer norm over four features would magnify 16-bit rounding

LAYERS = [
    Layer(
        "Linear",
        "Linear(in_features=4, out_features=3, bias=True)",
        lambda **kw: lnn.Linear(4, 3, **kw),
        POINTS,
        lambda: nn.Linear(4, 3),
        same_space=True,
    ),
    Layer(
        "NormalizedLinear",
        "NormalizedLinear(in_features=4, out_features=3, bias=True, scale=10, learnable_scale=True, activation=relu)",
        lambda **kw: lnn.NormalizedLinear(4, 3, activation=torch.relu, **kw),
        POINTS,
    ),
    Layer(
        "HyboLinear",
        "HyboLinear(in_features=4, out_features=3, bias=True, scale=10, learnable_scale=True)",
        lambda **kw: lnn.HyboLinear(4, 3, **kw),
        POINTS,
    ),
    Layer(
        "HyperplaneLinear",
        "HyperplaneLinear(in_features=4, out_features=3, bias=True)",
        lambda **kw: lnn.HyperplaneLinear(4, 3, **kw),
        POINTS,
        lambda: nn.Linear(4, 3),
    ),
    Layer(
        "MLR",
        "MLR(in_features=4, num_classes=3, bias=True)",
        lambda **kw: lnn.MLR(4, 3, **kw),
        POINTS,
        lambda: nn.Linear(4, 3),
    ),
    Layer(
        "CentroidClassifier",
        "CentroidClassifier(in_features=4, num_classes=3, bias=True, std=0.5)",
        lambda **kw: lnn.CentroidClassifier(4, 3, **kw),
        POINTS,
    ),
    Layer(
        "FermiDiracDecoder",
        "FermiDiracDecoder(r=2, t=1)",
        lambda **kw: lnn.FermiDiracDecoder(**kw),
        (*POINTS, *POINTS),
    ),
    Layer(
        "EntailmentConeLoss",
        "EntailmentConeLoss(threshold=1, margin=0.01, min_radius=0.1, reduction='mean')",
        lambda **kw: lnn.EntailmentConeLoss(**kw),
        (*POINTS, *POINTS),
    ),
    Layer(
        "ContrastiveLoss",
        "ContrastiveLoss(temperature=1, learnable_temperature=True, reduction='mean')",
        lambda **kw: lnn.ContrastiveLoss(1.0, **kw),  # at 0.07, gradients of random points are hundreds
        (*POINTS, *POINTS),
    ),
    Layer("Boost", "Boost(num_features=4)", lambda **kw: lnn.Boost(4, **kw), POINTS),
    Layer("Rotation", "Rotation(num_features=4)", lambda **kw: lnn.Rotation(4, **kw), POINTS),
    Layer(
        "Isometry",
        "Isometry(\n  (manifold): Lorentz(c=1, learnable=False) manifold\n"
        "  (rotation): Rotation(num_features=4)\n  (boost): Boost(num_features=4)\n)",
        lambda **kw: lnn.Isometry(4, **kw),
        POINTS,
    ),
    Layer(
        "Inverse",
        "Inverse(\n  (isometry): Boost(num_features=4)\n  (manifold): Lorentz(c=1, learnable=False) manifold\n)",
        lambda **kw: lnn.Boost(4, **kw).inverse(),
        POINTS,
    ),
    Layer(
        "LayerNorm",
        "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)",
        lambda **kw: lnn.LayerNorm(4, **kw),
        POINTS,
        lambda: nn.LayerNorm(4),
        same_space=True,
    ),
    Layer(
        "RMSNorm",
        "RMSNorm((4,), eps=None, elementwise_affine=True)",
        lambda **kw: lnn.RMSNorm(4, **kw),
        POINTS,
        lambda: nn.RMSNorm(4),
        same_space=True,
    ),
    Layer(
        "BatchNorm1d",
        "BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        lambda **kw: lnn.BatchNorm1d(4, **kw),
        POINTS,
        lambda: nn.BatchNorm1d(4),
        same_space=True,
    ),
    Layer(
        "BatchNorm2d",
        "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        lambda **kw: lnn.BatchNorm2d(4, **kw),
        ((2, 4, 3, 3),),
        lambda: nn.BatchNorm2d(4),
        same_space=True,
    ),
    Layer(
        "Conv1d",
        "Conv1d(4, 3, kernel_size=(3,), stride=(1,), padding=(1,))",
        lambda **kw: lnn.Conv1d(4, 3, 3, padding=1, **kw),
        ROW,
        lambda: nn.Conv1d(4, 3, 3, padding=1),
        same_space=True,
    ),
    Layer(
        "Conv2d",
        "Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=2, padding_mode=circular)",
        lambda **kw: lnn.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode="circular", **kw),
        IMAGE,
        lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode="circular"),
        same_space=True,
    ),
    Layer(
        "ConvTranspose1d",
        "ConvTranspose1d(4, 3, kernel_size=(3,), stride=(2,))",
        lambda **kw: lnn.ConvTranspose1d(4, 3, 3, 2, **kw),
        ROW,
        lambda: nn.ConvTranspose1d(4, 3, 3, 2),
        same_space=True,
    ),
    Layer(
        "ConvTranspose2d",
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1), groups=2)",
        lambda **kw: lnn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, **kw),
        IMAGE,
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2),
        same_space=True,
    ),
    Layer(
        "AvgPool1d",
        "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))",
        lambda **kw: lnn.AvgPool1d(2, **kw),
        ROW,
        lambda: nn.AvgPool1d(2),
        same_space=True,
    ),
    Layer(
        "AvgPool2d",
        "AvgPool2d(kernel_size=2, stride=2, padding=0)",
        lambda **kw: lnn.AvgPool2d(2, **kw),
        IMAGE,
        lambda: nn.AvgPool2d(2),
        same_space=True,
    ),
    Layer(
        "MaxPool1d",
        "MaxPool1d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
        lambda **kw: lnn.MaxPool1d(2, **kw),
        ROW,
        lambda: nn.MaxPool1d(2),
        same_space=True,
    ),
    Layer(
        "MaxPool2d",
        "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
        lambda **kw: lnn.MaxPool2d(2, **kw),
        IMAGE,
        lambda: nn.MaxPool2d(2),
        same_space=True,
    ),
    Layer(
        "AdaptiveAvgPool1d",
        "AdaptiveAvgPool1d(output_size=2)",
        lambda **kw: lnn.AdaptiveAvgPool1d(2, **kw),
        ROW,
        lambda: nn.AdaptiveAvgPool1d(2),
        same_space=True,
    ),
    Layer(
        "AdaptiveAvgPool2d",
        "AdaptiveAvgPool2d(output_size=2)",
        lambda **kw: lnn.AdaptiveAvgPool2d(2, **kw),
        IMAGE,
        lambda: nn.AdaptiveAvgPool2d(2),
        same_space=True,
    ),
    Layer("Flatten", "Flatten(start_dim=1, end_dim=-1)", lambda **kw: lnn.Flatten(**kw), IMAGE, nn.Flatten, True),
    Layer(
        "CentroidPool1d",
        "CentroidPool1d(kernel_size=(3,), stride=(2,), padding=(1,), ceil_mode=True)",
        lambda **kw: lnn.CentroidPool1d(3, 2, 1, True, **kw),
        ROW,
    ),
    Layer(
        "CentroidPool2d",
        "CentroidPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=False)",
        lambda **kw: lnn.CentroidPool2d(2, **kw),
        IMAGE,
    ),
    Layer(
        "AdaptiveCentroidPool1d",
        "AdaptiveCentroidPool1d(output_size=(2,))",
        lambda **kw: lnn.AdaptiveCentroidPool1d(2, **kw),
        ROW,
    ),
    Layer(
        "AdaptiveCentroidPool2d",
        "AdaptiveCentroidPool2d(output_size=(2, None))",
        lambda **kw: lnn.AdaptiveCentroidPool2d((2, None), **kw),
        IMAGE,
    ),
    Layer("ReLU", "ReLU()", lambda **kw: lnn.ReLU(**kw), POINTS, nn.ReLU, same_space=True),
    Layer("GELU", "GELU(approximate='none')", lambda **kw: lnn.GELU(**kw), POINTS, nn.GELU, same_space=True),
    Layer("SiLU", "SiLU()", lambda **kw: lnn.SiLU(**kw), POINTS, nn.SiLU, same_space=True),
    Layer("Tanh", "Tanh()", lambda **kw: lnn.Tanh(**kw), POINTS, nn.Tanh, same_space=True),
    Layer("Dropout", "Dropout(p=0.5, inplace=False)", lambda **kw: lnn.Dropout(**kw), POINTS, nn.Dropout, True),
    Layer(
        "Embedding",
        "Embedding(6, 4, padding_idx=0)",
        lambda **kw: lnn.Embedding(6, 4, padding_idx=0, **kw),
        ((5, 2),),
        lambda: nn.Embedding(6, 4, padding_idx=0),
        same_space=True,
        indices=6,
    ),
    Layer("Residual", "Residual(ratio=0.5)", lambda **kw: lnn.Residual(0.5, **kw), (*POINTS, *POINTS)),
    Layer(
        "PositionalEncoding",
        "PositionalEncoding(4, base=10000, scale=0.707107)",
        lambda **kw: lnn.PositionalEncoding(4, **kw),
        SEQUENCE,
    ),
    Layer(
        "LearnedPositionalEncoding",
        "LearnedPositionalEncoding(7, 4, std=0.02)",
        lambda **kw: lnn.LearnedPositionalEncoding(7, 4, **kw),
        SEQUENCE,
    ),
    Layer("RotaryEmbedding", "RotaryEmbedding(4, base=10000)", lambda **kw: lnn.RotaryEmbedding(4, **kw), SEQUENCE),
    Layer(
        "MultiheadAttention",
        "MultiheadAttention(\n",
        lambda **kw: lnn.MultiheadAttention(4, 2, batch_first=True, **kw),
        SEQUENCE * 3,
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    ),
    Layer("GraphConv", "GraphConv(\n", lambda **kw: lnn.GraphConv(4, 3, **kw), POINTS, graph=GRAPH),
    Layer("GraphAttention", "GraphAttention(\n", lambda **kw: lnn.GraphAttention(4, 3, 2, **kw), POINTS, graph=GRAPH),
    Layer(
        "TransformerEncoderLayer",
        "TransformerEncoderLayer(\n",
        lambda **kw: lnn.TransformerEncoderLayer(16, 2, 6, batch_first=True, **kw),
        WIDE,
        lambda: nn.TransformerEncoderLayer(16, 2, 6, batch_first=True),
    ),
    Layer(
        "TransformerDecoderLayer",
        "TransformerDecoderLayer(\n",
        lambda **kw: lnn.TransformerDecoderLayer(16, 2, 6, batch_first=True, **kw),
        WIDE * 2,
        lambda: nn.TransformerDecoderLayer(16, 2, 6, batch_first=True),
        stack=True,
    ),
    Layer(
        "TransformerEncoder",
        "TransformerEncoder(\n",
        lambda **kw: lnn.TransformerEncoder(lnn.TransformerEncoderLayer(16, 2, 6, batch_first=True, **kw), 2),
        WIDE,
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 6, batch_first=True), 2),
        stack=True,
    ),
    Layer(
        "TransformerDecoder",
        "TransformerDecoder(\n",
        lambda **kw: lnn.TransformerDecoder(lnn.TransformerDecoderLayer(16, 2, 6, batch_first=True, **kw), 2),
        WIDE * 2,
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 6, batch_first=True), 2),
        stack=True,
    ),
    Layer(
        "Transformer",
        "Transformer(\n",
        lambda **kw: lnn.Transformer(16, 2, 1, 1, 6, batch_first=True, **kw),
        WIDE * 2,
        lambda: nn.Transformer(16, 2, 1, 1, 6, batch_first=True),
        stack=True,
    ),
]
