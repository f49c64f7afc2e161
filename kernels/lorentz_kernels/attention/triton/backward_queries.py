r"""The gradients of queries: tiles of keys and values stream past a tile of queries.

.. math::
    dq_i = \sum_j \beta_i\,dz_{ij} \Bigl(k_j - k_{j0} \frac{q_i}{q_{i0}}\Bigr), \qquad
    d\beta_i = \sum_j dz_{ij} (q_i \cdot k_j - q_{i0} k_{j0}), \qquad dz \text{ as in `backward_keys`}.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lorentz_kernels.attention.triton.rows import (
    LOG2E,
    PARTS,
    load_rows,
    mask_tile,
    squared_radius,
    store_rows,
    sum_of_parts,
    visible,
)
from lorentz_kernels.launch import Remembered


@triton.jit
def _step(
    K, V, SIDE, K_TIME, HEIGHT, MASK, k_row, v_row, mask_query, mask_key,
    start_query, start, queries, keys, diagonal, slope, q, g, q_time, g_height, lse, delta, dq, dq_time, sums,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr,
    SIDES: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add what a tile of keys and values gives to a tile of queries."""
    key = start + tl.arange(0, BLOCK_K)
    k = load_rows(K, start, keys, k_row, WIDTH, BLOCK_K, D, MASKED)
    v = load_rows(V, start, keys, v_row, VALUE_WIDTH, BLOCK_K, E, MASKED)
    k_time = tl.load(K_TIME + key, mask=key < keys, other=0.0) if MASKED else tl.load(K_TIME + key)
    v_height = tl.load(HEIGHT + key, mask=key < keys, other=0.0) if MASKED else tl.load(HEIGHT + key)
    dtype = k.dtype
    if UPCAST:
        k, v = k.to(tl.float32), v.to(tl.float32)
    score = tl.dot(q, tl.trans(k), input_precision=PRECISION) - q_time[:, None] * k_time[None, :]
    if MASKED:
        score *= slope[:, None]
        if ADDITIVE:
            added = mask_tile(
                MASK, mask_query, mask_key, start_query, start, queries, keys, PER_KEY, BLOCK_Q, BLOCK_K
            )  # fmt: skip
            score += added.to(tl.float32) * LOG2E
        sees = visible(
            MASK, mask_query, mask_key, start_query, start, queries, keys, diagonal,
            CAUSAL, ADDITIVE, PER_KEY, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
        weight = tl.exp2(tl.where(sees, score - lse[:, None], float("-inf")))
    else:
        weight = tl.exp2(score * slope[:, None] - lse[:, None])
    dp = tl.dot(g, tl.trans(v), input_precision=PRECISION) + g_height[:, None] * v_height[None, :]
    dz = (weight * (dp - delta[:, None])).to(dtype)
    if not SIDES:
        dq_time -= tl.sum(dz.to(tl.float32) * k_time[None, :], 1)
    if UPCAST:
        dz = dz.to(tl.float32)
    if SIDES:
        side = load_rows(SIDE, start, keys, PARTS, PARTS, BLOCK_K, PARTS, MASKED)
        if UPCAST:
            side = side.to(tl.float32)
        sums = tl.dot(dz, side, sums, input_precision=PRECISION)
    return tl.dot(dz, k, dq, input_precision=PRECISION), dq_time, sums


@Remembered
@triton.jit
def attention_backward_queries(
    Q, K, V, G, SIDE, Q_TIME, K_TIME, HEIGHT, G_HEIGHT, LSE, DELTA, TO_C_OF_POINTS, MASK, SCALE, C, DQ, TO_SCALE, TO_C,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    mask_batch, mask_head, mask_query, mask_key, scale_batch, scale_head, scale_row,
    heads, groups, queries, keys, diagonal, slope, c,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr,
    SIDES: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a tile of queries, and for each of them those of the scale and of c."""
    blocks = tl.cdiv(queries, BLOCK_Q)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    start_query = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q
    batch, of_batch = head // heads, head % heads
    of_keys = of_batch // groups
    kv_head = batch * (heads // groups) + of_keys
    row = start_query + tl.arange(0, BLOCK_Q)
    inside = row < queries
    r = squared_radius(C, c)

    Q += batch * q_batch + of_batch * q_head
    q = load_rows(Q, start_query, queries, q_row, WIDTH, BLOCK_Q, D, True)
    g = load_rows(G + head * queries * VALUE_WIDTH, start_query, queries, VALUE_WIDTH, VALUE_WIDTH, BLOCK_Q, E, True)
    q_time = tl.load(Q_TIME + head * queries + row, mask=inside, other=1.0)
    g_height = tl.load(G_HEIGHT + head * queries + row, mask=inside, other=0.0)
    lse = tl.load(LSE + head * queries + row, mask=inside, other=float("inf"))
    delta = tl.load(DELTA + head * queries + row, mask=inside, other=0.0)
    if UPCAST:
        q, g = q.to(tl.float32), g.to(tl.float32)
    betas = tl.full([BLOCK_Q], slope, tl.float32)
    if SCALE is not None:
        SCALE += batch * scale_batch + of_batch * scale_head
        betas *= tl.load(SCALE + tl.cast(row, tl.int64) * scale_row, mask=inside, other=1.0)
    slopes = betas * LOG2E

    K += batch * k_batch + of_keys * k_head
    V += batch * v_batch + of_keys * v_head
    K_TIME += kv_head * keys
    HEIGHT += kv_head * keys
    if SIDES:
        SIDE += kv_head * keys * PARTS
    if MASK is not None:
        MASK += batch * mask_batch + of_batch * mask_head

    whole, stop = keys // BLOCK_K * BLOCK_K, keys
    if CAUSAL:
        first, last = start_query + diagonal, start_query + diagonal + BLOCK_Q - 1
        whole = tl.minimum(whole, tl.maximum(first + 1, 0) // BLOCK_K * BLOCK_K)
        stop = tl.minimum(stop, tl.maximum(last + 1, 0))
    if MASK is not None:
        whole = 0

    dq, dq_time = tl.zeros([BLOCK_Q, D], tl.float32), tl.zeros([BLOCK_Q], tl.float32)
    sums = tl.zeros([BLOCK_Q, PARTS], tl.float32)
    for start in tl.range(0, whole, BLOCK_K):
        dq, dq_time, sums = _step(
            K, V, SIDE, K_TIME, HEIGHT, MASK, k_row, v_row, mask_query, mask_key,
            start_query, start, queries, keys, diagonal, slopes, q, g, q_time, g_height, lse, delta, dq, dq_time, sums,
            False, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    for start in tl.range(whole, stop, BLOCK_K):
        dq, dq_time, sums = _step(
            K, V, SIDE, K_TIME, HEIGHT, MASK, k_row, v_row, mask_query, mask_key,
            start_query, start, queries, keys, diagonal, slopes, q, g, q_time, g_height, lse, delta, dq, dq_time, sums,
            True, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
        )  # fmt: skip

    if SIDES:
        dq_time = -sum_of_parts(sums, 3, 3)
    wide = load_rows(Q, start_query, queries, q_row, WIDTH, BLOCK_Q, D, True).to(tl.float32)
    to_scale = (tl.sum(wide * dq, 1) + q_time * dq_time) * slope
    dq_time /= q_time
    dq = (dq + dq_time[:, None] * wide) * betas[:, None]
    store_rows(DQ + head * queries * WIDTH, start_query, queries, dq, WIDTH, BLOCK_Q, D)
    tl.store(TO_SCALE + head * queries + row, to_scale, mask=inside)
    to_c = tl.load(TO_C_OF_POINTS + head * queries + row, mask=inside, other=0.0) - 0.5 * r * r * betas * dq_time
    tl.store(TO_C + head * queries + row, to_c, mask=inside)
