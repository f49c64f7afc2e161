r"""The forward kernel of attention: tiles of keys and values stream past a tile of queries.

.. math::
    z_{ij} = \beta (q_i \cdot k_j - q_{i0} k_{j0}), \quad \beta = 2 s, \qquad
    (\bar d, \bar h)_i = \frac{\sum_j 2^{z_{ij} - \max} (d_j, h_j)}{\sum_j 2^{z_{ij} - \max}}

Products of space coordinates run on tensor cores; times and heights are float32. The mean height and the sum of the
weights use the weights as the product of the values rounded them, so that the Minkowski norm of the mean, a difference
of large numbers, sees one set of weights. The epilogue puts the mean on the sheet:

.. math::
    \text{point} = f m, \quad m = R + \bar d, \quad f = (1 + c\,e\,(2 \mu_0 + e))^{-1/2}, \quad
    \mu_0 = \sqrt{1/c + |m|^2}, \; e = \bar h - h(m).
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
    K, V, K_TIME, HEIGHT, SIDE, MASK, k_row, v_row, mask_query, mask_key,
    start_query, start, queries, keys, diagonal, q, q_time, slope, top, total, height, acc, sums,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr,
    SIDES: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Take one tile of keys and values into the online softmax."""
    key = start + tl.arange(0, BLOCK_K)
    k = load_rows(K, start, keys, k_row, WIDTH, BLOCK_K, D, MASKED)
    k_time = tl.load(K_TIME + key, mask=key < keys, other=0.0) if MASKED else tl.load(K_TIME + key)
    if UPCAST:
        k = k.to(tl.float32)
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
        score = tl.where(sees, score, float("-inf"))
        raised = tl.maximum(top, tl.max(score, 1))
        safe = tl.where(raised == float("-inf"), 0.0, raised)
        weight = tl.exp2(score - safe[:, None])
    else:
        raised = tl.maximum(top, tl.max(score, 1) * slope)
        safe = raised
        weight = tl.exp2(score * slope[:, None] - safe[:, None])
    shrink = tl.exp2(top - safe)
    v = load_rows(V, start, keys, v_row, VALUE_WIDTH, BLOCK_K, E, MASKED)
    weight = weight.to(v.dtype)
    if UPCAST:
        weight, v = weight.to(tl.float32), v.to(tl.float32)
    acc = tl.dot(weight, v, acc * shrink[:, None], input_precision=PRECISION)
    if SIDES:
        side = load_rows(SIDE, start, keys, PARTS, PARTS, BLOCK_K, PARTS, MASKED)
        if UPCAST:
            side = side.to(tl.float32)
        sums = tl.dot(weight, side, sums * shrink[:, None], input_precision=PRECISION)
    else:
        v_height = tl.load(HEIGHT + key, mask=key < keys, other=0.0) if MASKED else tl.load(HEIGHT + key)
        rounded = weight.to(tl.float32)
        total = total * shrink + tl.sum(rounded, 1)
        height = height * shrink + tl.sum(rounded * v_height[None, :], 1)
    return raised, total, height, acc, sums


@Remembered
@triton.jit
def attention_forward(
    Q, K, V, K_TIME, HEIGHT, SIDE, REFERENCE, MASK, SCALE, C, POINT, REST, LSE, FACTOR,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    mask_batch, mask_head, mask_query, mask_key, scale_batch, scale_head, scale_row,
    heads, groups, queries, keys, diagonal, slope, c,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr, SIDES: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the centroids of a tile of queries, what the backward needs of them, and log2 of the sum of 2^z."""
    blocks = tl.cdiv(queries, BLOCK_Q)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    start_query = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q  # causal: the longest loops first
    batch, of_batch = head // heads, head % heads
    of_keys = of_batch // groups
    row = start_query + tl.arange(0, BLOCK_Q)
    r = squared_radius(C, c)

    Q += batch * q_batch + of_batch * q_head
    q = load_rows(Q, start_query, queries, q_row, WIDTH, BLOCK_Q, D, True)
    wide = q.to(tl.float32)
    q_time = tl.sqrt(tl.sum(wide * wide, 1) + r)
    if UPCAST:
        q = wide
    slopes = tl.full([BLOCK_Q], slope, tl.float32) * LOG2E
    if SCALE is not None:
        SCALE += batch * scale_batch + of_batch * scale_head
        slopes *= tl.load(SCALE + tl.cast(row, tl.int64) * scale_row, mask=row < queries, other=1.0)

    K += batch * k_batch + of_keys * k_head
    V += batch * v_batch + of_keys * v_head
    kv_head = batch * (heads // groups) + of_keys
    K_TIME += kv_head * keys
    HEIGHT += kv_head * keys
    if SIDES:
        SIDE += kv_head * keys * PARTS
    if MASK is not None:
        MASK += batch * mask_batch + of_batch * mask_head

    whole, stop = keys // BLOCK_K * BLOCK_K, keys
    if CAUSAL:
        first, last = start_query + diagonal, start_query + diagonal + BLOCK_Q - 1  # keys that bound what rows see
        whole = tl.minimum(whole, tl.maximum(first + 1, 0) // BLOCK_K * BLOCK_K)
        stop = tl.minimum(stop, tl.maximum(last + 1, 0))
    if MASK is not None:
        whole = 0

    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total, height = tl.zeros([BLOCK_Q], tl.float32), tl.zeros([BLOCK_Q], tl.float32)
    acc, sums = tl.zeros([BLOCK_Q, E], tl.float32), tl.zeros([BLOCK_Q, PARTS], tl.float32)
    for start in tl.range(0, whole, BLOCK_K):
        top, total, height, acc, sums = _step(
            K, V, K_TIME, HEIGHT, SIDE, MASK, k_row, v_row, mask_query, mask_key,
            start_query, start, queries, keys, diagonal, q, q_time, slopes, top, total, height, acc, sums,
            False, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    for start in tl.range(whole, stop, BLOCK_K):
        top, total, height, acc, sums = _step(
            K, V, K_TIME, HEIGHT, SIDE, MASK, k_row, v_row, mask_query, mask_key,
            start_query, start, queries, keys, diagonal, q, q_time, slopes, top, total, height, acc, sums,
            True, CAUSAL, ADDITIVE, PER_KEY, SIDES, UPCAST, PRECISION, WIDTH, VALUE_WIDTH, D, E, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
    if SIDES:
        height, total = sum_of_parts(sums, 0, 3), sum_of_parts(sums, 6, 1)

    alive = total > 0
    total = tl.where(alive, total, 1.0)
    gap, height = acc / total[:, None], height / total
    reference = load_reference(REFERENCE, kv_head, VALUE_WIDTH, E)
    x, time, _, _, sheet = see(gap, reference, r, REFERENCE is not None)
    excess = tl.maximum(height - sheet, 0.0)  # the sheet is convex; rounding is not
    factor = tl.where(alive, 1 / tl.sqrt(1 + excess * (2 * time + excess) / r), 0.0)
    point = factor[:, None] * x

    POINT += head * queries * VALUE_WIDTH
    REST += head * queries * VALUE_WIDTH
    store_rows(POINT, start_query, queries, point, VALUE_WIDTH, BLOCK_Q, E)
    rounded = point.to(POINT.dtype.element_ty).to(tl.float32)
    rest = gap if REST.dtype.element_ty == tl.float32 else point - rounded
    store_rows(REST, start_query, queries, rest, VALUE_WIDTH, BLOCK_Q, E)
    inside = row < queries
    lse = tl.where(alive, tl.where(top == float("-inf"), 0.0, top) + tl.log2(total), float("inf"))
    tl.store(LSE + head * queries + row, lse, mask=inside)
    tl.store(FACTOR + head * queries + row, factor, mask=inside)
