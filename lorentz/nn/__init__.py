"""Layers that map points to points: `import lorentz.nn as lnn`, and change `nn.` into `lnn.`.

A module has the name, arguments, shapes and state_dict keys of its `torch.nn` twin, keyword-only `manifold`, and the
parameters that only the Lorentz form has. Tensors hold space coordinates (..., n), as in `lorentz.functional`.
"""

from lorentz.nn.activation import GELU, Dropout, ReLU, SiLU, Tanh
from lorentz.nn.attention import MultiheadAttention
from lorentz.nn.centroid_pool import AdaptiveCentroidPool1d, AdaptiveCentroidPool2d, CentroidPool1d, CentroidPool2d
from lorentz.nn.classifier import MLR, CentroidClassifier
from lorentz.nn.conv import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from lorentz.nn.decoder import FermiDiracDecoder
from lorentz.nn.embedding import Embedding
from lorentz.nn.graph import GraphAttention, GraphConv
from lorentz.nn.hybo import HyboLinear, NormalizedLinear
from lorentz.nn.hyperplane import HyperplaneLinear
from lorentz.nn.isometry import Boost, Inverse, Isometry, Rotation
from lorentz.nn.linear import Linear
from lorentz.nn.loss import ContrastiveLoss, EntailmentConeLoss
from lorentz.nn.norm import BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm
from lorentz.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    Flatten,
    MaxPool1d,
    MaxPool2d,
)
from lorentz.nn.position import LearnedPositionalEncoding, PositionalEncoding, RotaryEmbedding
from lorentz.nn.residual import Residual
from lorentz.nn.transformer import Transformer, TransformerDecoder, TransformerEncoder
from lorentz.nn.transformer_layer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "GELU",
    "MLR",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveCentroidPool1d",
    "AdaptiveCentroidPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Boost",
    "CentroidClassifier",
    "CentroidPool1d",
    "CentroidPool2d",
    "ContrastiveLoss",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "EntailmentConeLoss",
    "FermiDiracDecoder",
    "Flatten",
    "GraphAttention",
    "GraphConv",
    "HyboLinear",
    "HyperplaneLinear",
    "Inverse",
    "Isometry",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MultiheadAttention",
    "NormalizedLinear",
    "PositionalEncoding",
    "RMSNorm",
    "ReLU",
    "Residual",
    "RotaryEmbedding",
    "Rotation",
    "SiLU",
    "Tanh",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
