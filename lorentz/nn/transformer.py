"""Stacks of layers, in the place of torch's: the encoder, the decoder, and the transformer made of both."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz.manifold import Lorentz
from lorentz.nn.cache import KeyValueCache
from lorentz.nn.norm import LayerNorm
from lorentz.nn.transformer_layer import (
    Activation,
    DecoderLayerCache,
    ResidualFactory,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]


class TransformerEncoder(nn.Module):
    """`torch.nn.TransformerEncoder`: copies of one layer in a row, and a norm.

    The copies share the manifold of the layer, so that a learnable curvature stays one parameter.

    Args:
        encoder_layer: the layer to copy.
        num_layers: number of copies.
        norm: applied to the output of the last, if given.
        enable_nested_tensor: torch's, and of no effect: padding is masked, never packed.
        mask_check: torch's, and of no effect.
    """

    def __init__(
        self,
        encoder_layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def make_cache(self) -> list[KeyValueCache]:
        """Return an empty cache for one batch of sequences, for a causal encoder that reads them step by step."""
        return [cast(TransformerEncoderLayer, layer).make_cache() for layer in self.layers]

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
        *,
        cache: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """Return points of the shape of `src`, (S, N, E), (N, S, E) if the layers have `batch_first`, or (S, E).

        Args:
            src: points.
            mask: (S, S) or (N * nhead, S, S); True is ignored, floats are added to the scores.
            src_key_padding_mask: (N, S) or (S), likewise.
            is_causal: position i sees the positions up to i, beside what `mask` says. None is no.
            cache: from `make_cache`; `src` then holds the new positions only, and the masks' last S all so far.

        Raises:
            ValueError: shapes do not fit, or the cache was made for another number of layers.
        """
        x = src
        for layer, own in zip(self.layers, _per_layer(cache, self.num_layers), strict=True):
            remembered = {} if own is None else {"cache": own}  # a custom layer may know no cache
            x = layer(
                x,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
                **remembered,
            )
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(nn.Module):
    """`torch.nn.TransformerDecoder`: copies of one layer in a row, and a norm.

    The copies share the manifold of the layer, so that a learnable curvature stays one parameter.

    Args:
        decoder_layer: the layer to copy.
        num_layers: number of copies.
        norm: applied to the output of the last, if given.
    """

    def __init__(self, decoder_layer: nn.Module, num_layers: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def make_cache(self) -> list[DecoderLayerCache]:
        """Return an empty cache for decoding one batch of sequences, and one memory, step by step."""
        return [cast(TransformerDecoderLayer, layer).make_cache() for layer in self.layers]

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        cache: Sequence[DecoderLayerCache] | None = None,
    ) -> Tensor:
        """Return points of the shape of `tgt`, (T, N, E), (N, T, E) if the layers have `batch_first`, or (T, E).

        Args:
            tgt: points.
            memory: points that the encoder returned, (S, N, E), (N, S, E) or (S, E).
            tgt_mask: (T, T) or (N * nhead, T, T); True is ignored, floats are added to the scores.
            memory_mask: (T, S) or (N * nhead, T, S), likewise.
            tgt_key_padding_mask: (N, T) or (T), likewise.
            memory_key_padding_mask: (N, S) or (S), likewise.
            tgt_is_causal: position i sees the positions up to i, beside what `tgt_mask` says. None is no.
            memory_is_causal: likewise for the memory.
            cache: from `make_cache`; `tgt` then holds the new positions only, and masks of keys all so far.

        Raises:
            ValueError: shapes do not fit, or the cache was made for another number of layers.
        """
        x = tgt
        for layer, own in zip(self.layers, _per_layer(cache, self.num_layers), strict=True):
            remembered = {} if own is None else {"cache": own}
            x = layer(
                x,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
                **remembered,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(nn.Module):
    """`torch.nn.Transformer` on points: an encoder, and a decoder that attends to what it returns.

    To decode step by step, call `encoder` once and `decoder` with a cache from `decoder.make_cache()`.

    Args:
        d_model: width of input and output.
        nhead: number of heads.
        num_encoder_layers: number of encoder layers.
        num_decoder_layers: number of decoder layers.
        dim_feedforward: width within the feed-forward maps.
        dropout: as in the layers.
        activation: as in the layers.
        custom_encoder: used in place of the encoder.
        custom_decoder: used in place of the decoder.
        layer_norm_eps: added to the variance in the norms.
        batch_first: inputs are (N, S, E), not (S, N, E).
        norm_first: normalise before each block instead of after the residual.
        bias: use biases in linear maps and norms.
        manifold: the space; curvature -1, fixed, if None. All layers share it.
        residual: as in the layers.
        num_kv_heads: as in `MultiheadAttention`.
        qk_norm: likewise.

    Source: Chen et al., ACL 2022, section 4.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: nn.Module | None = None,
        custom_decoder: nn.Module | None = None,
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

        def layer(kind: type[TransformerEncoderLayer] | type[TransformerDecoderLayer]) -> nn.Module:
            return kind(
                d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias,
                device, dtype, manifold=space, residual=residual, num_kv_heads=num_kv_heads,
                qk_norm=qk_norm,
            )  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, manifold=space, device=device, dtype=dtype)

        if custom_encoder is None:
            custom_encoder = TransformerEncoder(layer(TransformerEncoderLayer), num_encoder_layers, norm())
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(layer(TransformerDecoderLayer), num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return points of the shape of `tgt`; masks and causality as in `TransformerEncoder` and `TransformerDecoder`.

        Raises:
            ValueError: shapes do not fit.
        """
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the causal mask of torch, (sz, sz): 0 on and below the diagonal, -inf above."""
        return torch.full((sz, sz), float("-inf"), device=device, dtype=dtype).triu(1)

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


def _copies(layer: nn.Module, count: int) -> nn.ModuleList:
    shared = {id(module): module for module in layer.modules() if isinstance(module, Lorentz)}
    return nn.ModuleList(copy.deepcopy(layer, dict(shared)) for _ in range(count))


def _per_layer(cache: Sequence[object] | None, count: int) -> Sequence[object | None]:
    if cache is None:
        return [None] * count
    if len(cache) != count:
        raise ValueError(f"expected a cache for {count} layers, got one for {len(cache)}: use make_cache()")
    return cache
