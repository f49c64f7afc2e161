"""Multi-head attention on the hyperboloid, in the place of torch's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz.manifold import Lorentz
from lorentz.nn import _masks
from lorentz.nn._heads import check_heads, weights_of
from lorentz.nn.cache import KeyValueCache
from lorentz.nn.linear import Linear, plain
from lorentz.nn.module import LorentzModule
from lorentz_kernels.attention import at_one_radius
from lorentz_kernels.multihead import Heads, Map, multihead, plan


class MultiheadAttention(LorentzModule):
    r"""`torch.nn.MultiheadAttention` on points: scores are squared Lorentzian distances, outputs are centroids.

    .. math::
        head_i = \operatorname{centroid}_j\bigl(\operatorname{softmax}_j(-s_i\,|Q_i - K_{ij}|_L^2),\; V_{ij}\bigr),
        \qquad output = W_o\,[head_1, \dots, head_h] + w_t x_0 + b

    Q, K and V are `lorentz.nn.Linear` maps of the inputs, cut into heads. Arguments, shapes and masks (True is
    ignored) are torch's, and so are the names of the weights: a `state_dict` of torch's module loads. The Lorentz
    form alone has `in_proj_time_weight` and `out_proj.time_weight`, which start at zero, and `log_scale`, the logarithm
    of s > 0 per head, which starts where :math:`2 s\langle q, k\rangle` has torch's factor :math:`1/\sqrt{head\_dim}`.

    Args:
        embed_dim: width of the query and the output.
        num_heads: number of heads.
        dropout: probability that an attention weight is dropped; what is left gives the centroid.
        bias: use biases in the projections.
        add_bias_kv: append a learned key and value.
        add_zero_attn: append a key and a value at the origin.
        kdim: width of the key; `embed_dim` if None.
        vdim: width of the value; `embed_dim` if None.
        batch_first: batched inputs are (N, L, E), not (L, N, E).
        manifold: the space; curvature -1, fixed, if None.
        num_kv_heads: number of heads of keys and values, each serving `num_heads / num_kv_heads` heads of queries.
        qk_norm: put the queries and keys of each head, but not a zero key, at space norm sqrt(head_dim). A distance
            otherwise counts against keys far from the origin, whatever the query; at one radius it is one of angles.

    Raises:
        ValueError: widths and heads do not fit one another.

    Source: Chen et al., ACL 2022, Eq. 4 to 6; Ainslie et al., EMNLP 2023 (grouped heads); Henry et al., Findings of
    EMNLP 2020 (norms of queries and keys).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.qk_norm = qk_norm
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_heads(embed_dim, num_heads, self.num_kv_heads)
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.manifold = Lorentz() if manifold is None else manifold
        self._widths = (embed_dim, self.num_kv_heads * self.head_dim, self.num_kv_heads * self.head_dim)
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim

        def parameter(exists: bool, *shape: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if exists else None

        packed, (q_width, k_width, v_width) = self._qkv_same_embed_dim, self._widths
        self.in_proj_weight = parameter(packed, sum(self._widths), embed_dim)
        self.q_proj_weight = parameter(not packed, q_width, embed_dim)
        self.k_proj_weight = parameter(not packed, k_width, self.kdim)
        self.v_proj_weight = parameter(not packed, v_width, self.vdim)
        self.in_proj_bias = parameter(bias, sum(self._widths))
        self.in_proj_time_weight = nn.Parameter(torch.empty(sum(self._widths), device=device, dtype=dtype))
        self.log_scale = nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype))
        self.out_proj = Linear(embed_dim, embed_dim, bias, manifold=self.manifold, device=device, dtype=dtype)
        self.bias_k = parameter(add_bias_kv, 1, 1, k_width)
        self.bias_v = parameter(add_bias_kv, 1, 1, v_width)
        self._reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as torch does; time weights and biases are zero."""
        self.out_proj.reset_parameters()
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                nn.init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias, self.in_proj_time_weight):
            if bias is not None:
                nn.init.zeros_(bias)
        for point in (self.bias_k, self.bias_v):
            if point is not None:
                nn.init.xavier_normal_(point)
        nn.init.constant_(self.log_scale, self._initial_log_scale)

    @property
    def _initial_log_scale(self) -> float:
        return math.log(0.5 * self.head_dim**-0.5)

    @property
    def scale(self) -> Tensor:
        """The factor s > 0 of the squared distances in the scores, per head: (num_heads)."""
        return self.log_scale.to(torch.promote_types(self.log_scale.dtype, torch.float32)).exp()

    def extra_repr(self) -> str:
        """Return the widths and heads, and what differs from the defaults."""
        groups = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        dropout = f", dropout={self.dropout}" if self.dropout else ""
        norm = ", qk_norm=True" if self.qk_norm else ""
        return f"{self.embed_dim}, {self.num_heads}{dropout}, batch_first={self.batch_first}{groups}{norm}"

    def make_cache(self, static: bool = False) -> KeyValueCache:
        """Return an empty cache for `forward`; `static` for keys and values that stay, such as those of a memory."""
        return KeyValueCache(static)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended points and, if asked for, the weights that they are the centroids under.

        Args:
            query: points, (L, N, E), (N, L, E) with `batch_first`, or (L, E).
            key: points, (S, N, kdim), (N, S, kdim) or (S, kdim).
            value: points, (S, N, vdim), (N, S, vdim) or (S, vdim).
            key_padding_mask: (N, S) or (S); True is ignored, floats are added to the scores.
            need_weights: return the weights too. They take memory quadratic in the length; the output alone does not.
            attn_mask: (L, S) or (N * num_heads, L, S); True is ignored, floats are added to the scores. A query
                that no key may serve gets the origin from attention, and weights of zero.
            average_attn_weights: average the weights over the heads.
            is_causal: query i sees the keys up to i, of those that the masks let through. No mask is needed for it.
            cache: from `make_cache`: keys and values of earlier positions, to which these are added. S in the masks
                counts them all, and causality goes by the position in the whole sequence.

        Returns:
            Points of the shape of the query, and weights (N, L, S) or (L, S), with num_heads before L unless they
            are averaged, or None. Rows sum to one, also under dropout. Learned and zero keys count in S.

        Raises:
            ValueError: shapes do not fit, or `is_causal` with a static cache, which does not know positions.
        """
        if is_causal and cache is not None and cache.static:
            raise ValueError("expected no is_causal with a static cache, which knows no positions: give an attn_mask")
        dropout = self.dropout if self.training else 0.0
        self._check(query, key, value)
        if not (need_weights or dropout or cache is not None):
            found = self._at_once(query, key, value, attn_mask, key_padding_mask, is_causal)
            if found is not None:
                return found, None
        seen = 0 if cache is None or cache.static else len(cache)
        q, k, v = self._project(query, key, value, cache)
        queries, keys = q.shape[-2], k.shape[-2]
        mask = _masks.merge(attn_mask, key_padding_mask, (q.shape[0], self.num_heads, queries, keys))
        k, v = self._append_constants(k, v)
        extra = k.shape[-2] - keys
        if is_causal and (need_weights or seen or extra):
            mask, is_causal = _masks.restrict(mask, _masks.causal(queries, keys, seen, q.device)), False
        if mask is not None and extra:
            mask = _masks.extend(mask, extra)
        if need_weights and dropout:  # drawn here, so that output and weights see the same
            kept = torch.rand(*q.shape[:-1], k.shape[-2], device=q.device) >= dropout
            mask, dropout = _masks.restrict(mask, kept), 0.0
        scale, c = self.scale[:, None, None], self.manifold.c
        if need_weights and self.qk_norm:
            q, k = at_one_radius(q), at_one_radius(k)
        points = LF.attention(
            q, k, v, mask, dropout, is_causal, scale=scale, c=c,
            enable_gqa=self.num_kv_heads != self.num_heads, qk_norm=self.qk_norm and not need_weights,
        )  # fmt: skip
        out = self._join(points, query.dim())
        if not need_weights:
            return self.out_proj(out), None
        weights = weights_of(q, self._repeat_groups(k), mask, scale, c)
        weights = weights.mean(1) if average_attn_weights else weights
        return self.out_proj(out), weights if query.dim() == 3 else weights[0]

    def _at_once(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor | None:
        """Return the attended points where the maps and the attention are one function of autograd."""
        out_proj, appends = self.out_proj, self.bias_k is not None or self.add_zero_attn
        whole = plain(out_proj) and out_proj.manifold is self.manifold
        if self.in_proj_weight is None or key is not value or appends or not whole:
            return None
        x, memory = self._batched(query), None if query is key else self._batched(key)
        length = (x if memory is None else memory).shape[1]
        mask = _masks.merge(attn_mask, key_padding_mask, (len(x), self.num_heads, x.shape[1], length))
        into = Map(self.in_proj_weight, self.in_proj_time_weight, self.in_proj_bias)
        out = Map(out_proj.weight, out_proj.time_weight, out_proj.bias)
        heads, c = Heads(self.num_heads, self.num_kv_heads, is_causal, self.qk_norm), self.manifold.c
        how = plan(x, memory, into, out, heads, mask, c)
        if how is None:
            return None
        found = multihead(how, x, memory, into, out, mask, self.scale, c)
        return found[0] if query.dim() == 2 else found if self.batch_first else found.transpose(0, 1)

    def _batched(self, x: Tensor) -> Tensor:
        """Return points of the layout of the inputs as (N, length, width)."""
        return x.unsqueeze(0) if x.dim() == 2 else x if self.batch_first else x.transpose(0, 1)

    def _project(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the heads of Q, K and V, (N, heads, length, head_dim), with those of the cache."""
        held = None if cache is None else cache.held()
        if held is not None:
            return self._maps(query, 0, 1)[0], *held
        if self.in_proj_weight is None or key is not value:
            q, k, v = (self._maps(x, i, i + 1)[0] for i, x in enumerate((query, key, value)))
        elif query is key:
            q, k, v = self._maps(query, 0, 3)
        else:
            q, k, v = *self._maps(query, 0, 1), *self._maps(key, 1, 3)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _maps(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Return the heads of x under neighbouring maps, 0, 1, 2 being those to Q, K, V: one product for all."""
        rows = slice(sum(self._widths[:first]), sum(self._widths[:last]))

        def of(packed: Tensor) -> Tensor:
            return packed if last - first == 3 else packed[rows]  # a slice of all has a gradient of its own to write

        own: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[first]
        weight = own if self.in_proj_weight is None else of(self.in_proj_weight)
        bias = None if self.in_proj_bias is None else of(self.in_proj_bias)
        out = LF.linear(x, weight, of(self.in_proj_time_weight), bias, self.manifold.c)
        return tuple(map(self._cut, out.split(self._widths[first:last], dim=-1)))

    def _cut(self, x: Tensor) -> Tensor:
        """Cut points of the layout of the inputs into heads: (N, heads, length, head_dim)."""
        return LF.split_heads(self._batched(x), x.shape[-1] // self.head_dim)

    def _join(self, x: Tensor, dim: int) -> Tensor:
        """Undo `_cut`."""
        x = LF.merge_heads(x)
        return x.squeeze(0) if dim == 2 else x if self.batch_first else x.transpose(0, 1)

    def _append_constants(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the learned key and value, and the origin, where the constructor asked for them."""
        if self.bias_k is not None and self.bias_v is not None:
            k = self._append(k, LF.split_heads(self.bias_k, self.num_kv_heads))
            v = self._append(v, LF.split_heads(self.bias_v, self.num_kv_heads))
        if self.add_zero_attn:
            k, v = nn.functional.pad(k, (0, 0, 0, 1)), nn.functional.pad(v, (0, 0, 0, 1))
        return k, v

    def _append(self, x: Tensor, constant: Tensor) -> Tensor:
        return torch.cat([x, constant.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=-2)

    def _repeat_groups(self, x: Tensor) -> Tensor:
        groups = self.num_heads // self.num_kv_heads
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        wanted = (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim))
        for name, x, width in wanted:
            if x.shape[-1] != width or x.dim() not in (2, 3) or x.dim() != query.dim():
                hint = ": did you pass ambient points? use lorentz.from_ambient(x)" if x.shape[-1] == width + 1 else ""
                raise ValueError(
                    f"expected a {name} of two dimensions, or all three inputs of three, with space coordinates "
                    f"(..., {width}), got {tuple(x.shape)}{hint}"
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        times, scale = prefix + "in_proj_time_weight", prefix + "log_scale"
        weight = state_dict.get(prefix + "out_proj.weight")
        if weight is not None and times not in state_dict and scale not in state_dict:  # torch's module has neither
            state_dict[times] = weight.new_zeros(self.in_proj_time_weight.shape)
            state_dict[scale] = weight.new_full(self.log_scale.shape, self._initial_log_scale)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
