r"""The gradients of keys and values: tiles of queries stream past a tile of keys and values.

.. math::
    P_{ij} = 2^{z_{ij} - \mathrm{lse}_i}, \quad
    dz_{ij} = P_{ij} (G_i \cdot d_j + G_{h,i} h_j - \Delta_i)

.. math::
    dk_j = \sum_i \beta_i\,dz_{ij} \Bigl(q_i - q_{i0} \frac{k_j}{k_{j0}}\Bigr), \qquad
    dv_j = \sum_i P_{ij} \Bigl( G_i + G_{h,i} \bigl(\tfrac{v_j}{v_{j0}} - u\bigr) \Bigr)

Sums of times use the weights as the tensor cores saw them, so that their rounding cancels. Each sum has one program and
one order: two runs agree bit by bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lorentz_kernels.attention.triton.rows import (
    LOG2E,
    PARTS,
    load_reference,
    load_rows,
    mask_tile,
    see,
    squared_radius,
    store_rows,
    sum_of_parts,
    visible,
)
from lorentz_kernels.launch import Remembered


@triton.jit
def _step(
    Q, G, SIDE, Q_TIME, G_HEIGHT, LSE, DELTA, SCALE, MASK, q_row, scale_row, mask_query, mask_key,
    start, start_key, queries, keys, diagonal, slope, k, v, k_time, v_height,
    dk, dk_time, dv, dv_height, k_sums, v_sums,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr,
    SIDES: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add what a tile of queries gives to a tile of keys and values; queries past the end have weight zero."""
    row = start + tl.arange(0, BLOCK_Q)
    inside = row < queries
    q = load_rows(Q, start, queries, q_row, WIDTH, BLOCK_Q, D, True)
    g = load_rows(G, start, queries, VALUE_WIDTH, VALUE_WIDTH, BLOCK_Q, E, True)
    q_time = tl.load(Q_TIME + row, mask=inside, other=0.0)
    g_height = tl.load(G_HEIGHT + row, mask=inside, other=0.0)
    lse = tl.load(LSE + row, mask=inside, other=float("inf"))
    delta = tl.load(DELTA + row, mask=inside, other=0.0)
    dtype = q.dtype
    if UPCAST:
        q, g = q.to(tl.float32), g.to(tl.float32)
    score = tl.dot(k, tl.trans(q), input_precision=PRECISION) - k_time[:, None] * q_time[None, :]
    if SCALE is not None:
        scale = tl.load(
            SCALE + tl.cast(start, tl.int64) * scale_row + tl.arange(0, BLOCK_Q) * scale_row, mask=inside, other=0.0
        )
        score *= (scale * slope * LOG2E)[None, :]
    else:
        score *= slope * LOG2E
    if MASKED:
        if ADDITIVE:
            added = mask_tile(
                MASK, mask_query, mask_key, start, start_key, queries, keys, PER_KEY, BLOCK_Q, BLOCK_K
            )  # fmt: skip
            score += tl.trans(added.to(tl.float32)) * LOG2E
        sees = visible(
            MASK, mask_query, mask_key, start, start_key, queries, keys, diagonal,
            CAUSAL, ADDITIVE, PER_KEY, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
        weight = tl.exp2(tl.where(tl.trans(sees), score - lse[None, :], float("-inf")))
    else:
        weight = tl.exp2(score - lse[None, :])
    dp = tl.dot(v, tl.trans(g), input_precision=PRECISION) + v_height[:, None] * g_height[None, :]
    dz = weight * (dp - delta[None, :])
    if SCALE is not None:
        dz *= scale[None, :]
    weight, dz = weight.to(dtype), dz.to(dtype)
    if not SIDES:
        dk_time -= tl.sum(dz.to(tl.float32) * q_time[None, :], 1)
        dv_height += tl.sum(weight.to(tl.float32) * g_height[None, :], 1)
    if UPCAST:
        weight, dz = weight.to(tl.float32), dz.to(tl.float32)
    if SIDES:
        side = load_rows(SIDE, start, queries, PARTS, PARTS, BLOCK_Q, PARTS, True)
        if UPCAST:
            side = side.to(tl.float32)
        k_sums = tl.dot(dz, side, k_sums, input_precision=PRECISION)
        v_sums = tl.dot(weight, side, v_sums, input_precision=PRECISION)
    dv = tl.dot(weight, g, dv, input_precision=PRECISION)
    dk = tl.dot(dz, q, dk, input_precision=PRECISION)
    return dk, dk_time, dv, dv_height, k_sums, v_sums


@Remembered
@triton.jit
def attention_backward_keys(
    Q, K, V, G, SIDE, Q_TIME, K_TIME, HEIGHT, G_HEIGHT, LSE, DELTA, REFERENCE, MASK, SCALE, C, DK, DV, TO_C,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    mask_batch, mask_head, mask_query, mask_key, scale_batch, scale_head, scale_row,
    heads, groups, queries, keys, diagonal, slope, c,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr,
    SIDES: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a tile of keys and values, summed over the query heads of their group."""
    blocks = tl.cdiv(keys, BLOCK_K)
    kv_head = (tl.program_id(0) // blocks).to(tl.int64)
    start_key = tl.program_id(0) % blocks * BLOCK_K
    batch, of_keys = kv_head // (heads // groups), kv_head % (heads // groups)
    key = start_key + tl.arange(0, BLOCK_K)
    r = squared_radius(C, c)

    K += batch * k_batch + of_keys * k_head
    V += batch * v_batch + of_keys * v_head
    k = load_rows(K, start_key, keys, k_row, WIDTH, BLOCK_K, D, True)
    v = load_rows(V, start_key, keys, v_row, VALUE_WIDTH, BLOCK_K, E, True)
    k_time = tl.load(K_TIME + kv_head * keys + key, mask=key < keys, other=1e30)  # past the end: no weight
    v_height = tl.load(HEIGHT + kv_head * keys + key, mask=key < keys, other=0.0)
    if UPCAST:
        k, v = k.to(tl.float32), v.to(tl.float32)

    first, seen = 0, 0  # queries before the first see none of the keys, queries from `seen` on see all of them
    if CAUSAL:
        first = tl.maximum(start_key - diagonal, 0) // BLOCK_Q * BLOCK_Q
        seen = tl.cdiv(tl.maximum(start_key + BLOCK_K - 1 - diagonal, 0), BLOCK_Q) * BLOCK_Q
        seen = tl.maximum(tl.minimum(seen, queries), first)
    if MASK is not None:
        seen = queries

    dk, dk_time = tl.zeros([BLOCK_K, D], tl.float32), tl.zeros([BLOCK_K], tl.float32)
    dv, dv_height = tl.zeros([BLOCK_K, E], tl.float32), tl.zeros([BLOCK_K], tl.float32)
    k_sums, v_sums = tl.zeros([BLOCK_K, PARTS], tl.float32), tl.zeros([BLOCK_K, PARTS], tl.float32)
    for of_group in range(groups):
        of_batch = of_keys * groups + of_group
        head = batch * heads + of_batch
        Q_HEAD = Q + batch * q_batch + of_batch * q_head
        G_HEAD = G + head * queries * VALUE_WIDTH
        SIDE_HEAD, MASK_HEAD, SCALE_HEAD = SIDE, MASK, SCALE
        if SIDES:
            SIDE_HEAD = SIDE + head * queries * PARTS
        if MASK is not None:
            MASK_HEAD = MASK + batch * mask_batch + of_batch * mask_head
        if SCALE is not None:
            SCALE_HEAD = SCALE + batch * scale_batch + of_batch * scale_head
        rows = head * queries
        for start in tl.range(first, seen, BLOCK_Q):
            dk, dk_time, dv, dv_height, k_sums, v_sums = _step(
                Q_HEAD, G_HEAD, SIDE_HEAD, Q_TIME + rows, G_HEIGHT + rows, LSE + rows, DELTA + rows,
                SCALE_HEAD, MASK_HEAD, q_row, scale_row, mask_query, mask_key,
                start, start_key, queries, keys, diagonal, slope, k, v, k_time, v_height,
                dk, dk_time, dv, dv_height, k_sums, v_sums,
                True, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
            )  # fmt: skip
        for start in tl.range(seen, queries, BLOCK_Q):
            dk, dk_time, dv, dv_height, k_sums, v_sums = _step(
                Q_HEAD, G_HEAD, SIDE_HEAD, Q_TIME + rows, G_HEIGHT + rows, LSE + rows, DELTA + rows,
                SCALE_HEAD, MASK_HEAD, q_row, scale_row, mask_query, mask_key,
                start, start_key, queries, keys, diagonal, slope, k, v, k_time, v_height,
                dk, dk_time, dv, dv_height, k_sums, v_sums,
                False, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
            )  # fmt: skip

    if SIDES:
        dk_time, dv_height = -sum_of_parts(k_sums, 0, 3), sum_of_parts(v_sums, 3, 3)
    wide = load_rows(K, start_key, keys, k_row, WIDTH, BLOCK_K, D, True).to(tl.float32)
    dk_time /= k_time
    dk = (dk + dk_time[:, None] * wide) * slope
    store_rows(DK + kv_head * keys * WIDTH, start_key, keys, dk, WIDTH, BLOCK_K, D)
    gap = load_rows(V, start_key, keys, v_row, VALUE_WIDTH, BLOCK_K, E, True).to(tl.float32)
    reference = load_reference(REFERENCE, kv_head, VALUE_WIDTH, E)
    _, time, _, turn, _ = see(gap, reference, r, REFERENCE is not None)
    dv_height /= time
    dv += dv_height[:, None] * turn
    store_rows(DV + kv_head * keys * VALUE_WIDTH, start_key, keys, dv, VALUE_WIDTH, BLOCK_K, E)
    to_c = -0.5 * r * r * (dk_time * slope + dv_height)  # dx0/dc = -1 / (2 c^2 x0)
    tl.store(TO_C + kv_head * keys + key, to_c, mask=key < keys)
