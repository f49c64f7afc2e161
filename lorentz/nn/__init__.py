"""Layers that map points to points: `import lorentz.nn as lnn`, and change `nn.` into `lnn.`.

A module has the name, arguments, shapes and state_dict keys of its `torch.nn` twin, keyword-only `manifold`, and the
parameters that only the Lorentz form has. Tensors hold space coordinates (..., n), as in `lorentz.functional`.
"""

from lorentz.nn.activation import GELU, Dropout, ReLU, SiLU, Tanh
from lorentz.nn.attention import MultiheadAttention
from lorentz.nn.embedding import Embedding
from lorentz.nn.hybo import HyboLinear, NormalizedLinear
from lorentz.nn.hyperplane import HyperplaneLinear
from lorentz.nn.isometry import Boost, Inverse, Isometry, Rotation
from lorentz.nn.linear import Linear
from lorentz.nn.norm import BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm
from lorentz.nn.position import LearnedPositionalEncoding, PositionalEncoding, RotaryEmbedding
from lorentz.nn.residual import Residual
from lorentz.nn.transformer import Transformer, TransformerDecoder, TransformerEncoder
from lorentz.nn.transformer_layer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "GELU",
    "BatchNorm1d",
    "BatchNorm2d",
    "Boost",
    "Dropout",
    "Embedding",
    "HyboLinear",
    "HyperplaneLinear",
    "Inverse",
    "Isometry",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "Linear",
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
