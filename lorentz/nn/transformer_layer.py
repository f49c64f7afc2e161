"""The layers of the encoder and the decoder, in the place of torch's.

Every block is `x + f(x)`: the residual of Chen et al., Eq. 7, adds space parts, which in this chart are the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz.manifold import Lorentz
from lorentz.nn.activation import Dropout
from lorentz.nn.attention import MultiheadAttention
from lorentz.nn.cache import KeyValueCache
from lorentz.nn.linear import Linear, activated
from lorentz.nn.norm import LayerNorm

Activation = str | Callable[[Tensor], Tensor]
"""`"relu"`, `"gelu"`, or any function of the space part."""


class ResidualFactory(Protocol):
    """What makes a residual: a module of two points, the input and the output of a block, for the given space."""

    def __call__(
        self, *, manifold: Lorentz, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Module: ...


@dataclass
class DecoderLayerCache:
    """What one decoder layer remembers: its own keys and values, which grow, and those of the memory, which stay."""

    target: KeyValueCache
    memory: KeyValueCache

    def reorder(self, index: Tensor) -> None:
        """Replace the batch by its rows `index`, (N'): the survivors of a beam search."""
        self.target.reorder(index)
        self.memory.reorder(index)


class TransformerEncoderLayer(nn.Module):
    """`torch.nn.TransformerEncoderLayer` on points: self-attention and a feed-forward map, each with a residual.

    With `norm_first`, `x + dropout(f(norm(x)))` twice, else `norm(x + dropout(f(x)))`; f is `MultiheadAttention`, then
    `linear2(dropout(activation(linear1(x))))`. Norm, activation and dropout act on the space part. With the weights of
    torch's layer, whose `state_dict` loads, it differs from that in the attention scores and the centroid only.

    Args:
        d_model: width of input and output.
        nhead: number of heads.
        dim_feedforward: width between the two linear maps.
        dropout: probability, in the attention weights, the feed-forward map and after each block.
        activation: `"relu"`, `"gelu"`, or a function.
        layer_norm_eps: added to the variance in the norms.
        batch_first: inputs are (N, S, E), not (S, N, E).
        norm_first: normalise before each block instead of after the residual.
        bias: use biases in linear maps and norms.
        manifold: the space; curvature -1, fixed, if None.
        residual: makes the modules `residual(x, f(x))` that take the place of the sum, such as `lorentz.nn.Residual`.
        num_kv_heads: heads of keys and values, as in `MultiheadAttention`.
        qk_norm: as in `MultiheadAttention`.

    Raises:
        ValueError: no such activation, or widths and heads do not fit one another.

    Source: Chen et al., ACL 2022, section 4.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        residual: ResidualFactory | None = None,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        space = Lorentz() if manifold is None else manifold
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype,
            manifold=space, num_kv_heads=num_kv_heads, qk_norm=qk_norm,
        )  # fmt: skip
        self.linear1 = Linear(d_model, dim_feedforward, bias, manifold=space, device=device, dtype=dtype)
        self.dropout = Dropout(dropout, manifold=space)
        self.linear2 = Linear(dim_feedforward, d_model, bias, manifold=space, device=device, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)
        self.dropout1 = Dropout(dropout, manifold=space)
        self.dropout2 = Dropout(dropout, manifold=space)
        self.activation = _activation(activation)
        self.residual1 = _residual(residual, space, device, dtype)
        self.residual2 = _residual(residual, space, device, dtype)

    def make_cache(self) -> KeyValueCache:
        """Return an empty cache for one batch of sequences that a causal layer reads step by step."""
        return self.self_attn.make_cache()

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return points of the shape of `src`, (S, N, E), (N, S, E) with `batch_first`, or (S, E).

        Masks, `is_causal` and `cache` are those of `MultiheadAttention`.
        """

        def attend(x: Tensor) -> Tensor:
            out, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal, cache=cache)
            return self.dropout1(out)

        x = _block(src, attend, self.norm1, self.residual1, self.norm_first)
        return _block(x, self._feed_forward, self.norm2, self.residual2, self.norm_first)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(activated(self.linear1, self.activation, x))))


class TransformerDecoderLayer(nn.Module):
    """`torch.nn.TransformerDecoderLayer` on points: self-attention, attention to a memory, a feed-forward map.

    Arguments, errors and source are those of `TransformerEncoderLayer`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        residual: ResidualFactory | None = None,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        space = Lorentz() if manifold is None else manifold

        def attention() -> MultiheadAttention:
            return MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype,
                manifold=space, num_kv_heads=num_kv_heads, qk_norm=qk_norm,
            )  # fmt: skip

        self.self_attn = attention()
        self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, manifold=space, device=device, dtype=dtype)
        self.dropout = Dropout(dropout, manifold=space)
        self.linear2 = Linear(dim_feedforward, d_model, bias, manifold=space, device=device, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)
        self.dropout1 = Dropout(dropout, manifold=space)
        self.dropout2 = Dropout(dropout, manifold=space)
        self.dropout3 = Dropout(dropout, manifold=space)
        self.activation = _activation(activation)
        self.residual1 = _residual(residual, space, device, dtype)
        self.residual2 = _residual(residual, space, device, dtype)
        self.residual3 = _residual(residual, space, device, dtype)

    def make_cache(self) -> DecoderLayerCache:
        """Return an empty cache for decoding one batch of sequences, and one memory, step by step."""
        return DecoderLayerCache(self.self_attn.make_cache(), self.multihead_attn.make_cache(static=True))

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: DecoderLayerCache | None = None,
    ) -> Tensor:
        """Return points of the shape of `tgt`, (T, N, E), (N, T, E) with `batch_first`, or (T, E).

        Masks and causality are those of `MultiheadAttention`. With a `cache`, `tgt` holds the new positions only and
        the memory is projected once, in the first step.
        """
        own, fixed = (None, None) if cache is None else (cache.target, cache.memory)

        def attend(x: Tensor) -> Tensor:
            out, _ = self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal, cache=own)
            return self.dropout1(out)

        def look_up(x: Tensor) -> Tensor:
            out, _ = self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal, cache=fixed
            )
            return self.dropout2(out)

        x = _block(tgt, attend, self.norm1, self.residual1, self.norm_first)
        x = _block(x, look_up, self.norm2, self.residual2, self.norm_first)
        return _block(x, self._feed_forward, self.norm3, self.residual3, self.norm_first)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(activated(self.linear1, self.activation, x))))


class Sum(nn.Module):
    """The residual of Chen et al., Eq. 7: the sum of space parts, x + y."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return x + y


def _block(x: Tensor, f: Callable[[Tensor], Tensor], norm: nn.Module, residual: nn.Module, norm_first: bool) -> Tensor:
    return residual(x, f(norm(x))) if norm_first else norm(residual(x, f(x)))


def _residual(
    factory: ResidualFactory | None, manifold: Lorentz, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Module:
    return Sum() if factory is None else factory(manifold=manifold, device=device, dtype=dtype)


def _activation(activation: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(activation, str):
        return activation
    named: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
    if activation not in named:
        raise ValueError(f'expected the activation "relu", "gelu" or a function, got "{activation}"')
    return named[activation]
