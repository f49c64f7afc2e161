r"""Attention where one tile holds all queries and all keys of a head: one kernel forward, one backward.

The formulas are those of `forward`, `pull_back`, `backward_queries` and `backward_keys`. Norms of queries and keys,
times, the mean of the values and the weights are formed where they are used, the backward forms them again, and nothing
is kept: short sequences wait for launches and for memory, not for arithmetic. Delta comes from the weights that the
backward has before it, so that the gradients of scores sum to zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lorentz_kernels.attention.triton.rows import LOG2E, load_rows, mask_tile, see, squared_radius, visible
from lorentz_kernels.launch import Remembered

EPSILON: tl.constexpr = tl.constexpr(1.1920928955078125e-07)  # that of `naive.at_one_radius`


@triton.jit
def _store(base, limit, stride, values, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (row < limit)[:, None] & (column < WIDTH)[None, :]
    tl.store(base + (row[:, None] * stride + column[None, :]), values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _points(rows, r, WIDTH: tl.constexpr, QK_NORM: tl.constexpr):
    """Return rows as float32, on one radius if asked for and rounded to their dtype, the rate of that, and times."""
    x = rows.to(tl.float32)
    rate = tl.full([x.shape[0]], 1.0, tl.float32)
    if QK_NORM:
        rate = 1 / tl.sqrt(tl.sum(x * x, 1) / WIDTH + EPSILON)
        x = (x * rate[:, None]).to(rows.dtype).to(tl.float32)
    return x, rate, tl.sqrt(tl.sum(x * x, 1) + r)


@triton.jit
def _gaps(V, v_row, keys, r, WIDTH: tl.constexpr, BLOCK: tl.constexpr, E: tl.constexpr, CENTRED: tl.constexpr):
    """Return values from their mean, as in their dtype, that mean or zeros, their times, turns and heights."""
    rows = load_rows(V, 0, keys, v_row, WIDTH, BLOCK, E, True)
    gap, reference = rows.to(tl.float32), tl.zeros([E], tl.float32)
    if CENTRED:
        reference = tl.sum(gap, 0) / keys
        gap = tl.where((tl.arange(0, BLOCK) < keys)[:, None], gap - reference[None, :], 0.0)
        gap = gap.to(rows.dtype).to(tl.float32)
    _, time, _, turn, height = see(gap, reference, r, CENTRED)
    return gap, reference, time, turn, height


@triton.jit
def _product(a, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """Multiply tiles that hold numbers of a dtype as float32; the interpreter, which knows no bfloat16, as they are."""
    return tl.dot(a.to(DTYPE), b.to(DTYPE), input_precision=PRECISION)


@triton.jit
def _attended(
    q, k, q_time, k_time, gap, reference, height, r, slopes, MASK, mask_query, mask_key, queries, keys, diagonal,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr, CENTRED: tl.constexpr,
    DTYPE: tl.constexpr, STORED: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return weights, their sums or ones, and of their means gap, x, time, rise, excess of height, and factor."""
    score = _product(q, tl.trans(k), DTYPE, PRECISION) - q_time[:, None] * k_time[None, :]
    score *= slopes[:, None]
    if ADDITIVE:
        added = mask_tile(MASK, mask_query, mask_key, 0, 0, queries, keys, PER_KEY, BLOCK, BLOCK)
        score += added.to(tl.float32) * LOG2E
    sees = visible(
        MASK, mask_query, mask_key, 0, 0, queries, keys, diagonal, CAUSAL, ADDITIVE, PER_KEY, BLOCK, BLOCK
    )  # fmt: skip
    score = tl.where(sees, score, float("-inf"))
    top = tl.max(score, 1)
    weight = tl.exp2(score - tl.where(top == float("-inf"), 0.0, top)[:, None])
    rounded = weight.to(STORED).to(tl.float32)
    total = tl.sum(rounded, 1)
    alive = total > 0
    total = tl.where(alive, total, 1.0)
    mean = _product(rounded, gap, DTYPE, PRECISION) / total[:, None]
    x, time, rise, _, sheet = see(mean, reference, r, CENTRED)
    excess = tl.maximum(tl.sum(rounded * height[None, :], 1) / total - sheet, 0.0)  # the sheet is convex
    factor = tl.where(alive, 1 / tl.sqrt(1 + excess * (2 * time + excess) / r), 0.0)
    return weight, total, mean, x, time, rise, excess, factor


@Remembered
@triton.jit
def attention_tile(
    Q, K, V, MASK, SCALE, C, POINT, point_batch, point_head, point_row,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    mask_batch, mask_head, mask_query, mask_key, scale_batch, scale_head, scale_row,
    heads, groups, queries, keys, diagonal, slope, c,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    CENTRED: tl.constexpr, QK_NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the centroids of a head."""
    STORED: tl.constexpr = Q.dtype.element_ty
    DTYPE: tl.constexpr = tl.float32 if UPCAST else STORED
    head = tl.program_id(0).to(tl.int64)
    batch, of_batch = head // heads, head % heads
    of_keys = of_batch // groups
    r = squared_radius(C, c)
    q = load_rows(Q + batch * q_batch + of_batch * q_head, 0, queries, q_row, WIDTH, BLOCK, D, True)
    k = load_rows(K + batch * k_batch + of_keys * k_head, 0, keys, k_row, WIDTH, BLOCK, D, True)
    q, _, q_time = _points(q, r, WIDTH, QK_NORM)
    k, _, k_time = _points(k, r, WIDTH, QK_NORM)
    V += batch * v_batch + of_keys * v_head
    gap, reference, _, _, height = _gaps(V, v_row, keys, r, VALUE_WIDTH, BLOCK, E, CENTRED)
    slopes = tl.full([BLOCK], slope, tl.float32) * LOG2E
    if SCALE is not None:
        row = tl.arange(0, BLOCK)
        SCALE += batch * scale_batch + of_batch * scale_head
        slopes *= tl.load(SCALE + row * scale_row, mask=row < queries, other=1.0)
    if MASK is not None:
        MASK += batch * mask_batch + of_batch * mask_head
    _, _, _, x, _, _, _, factor = _attended(
        q, k, q_time, k_time, gap, reference, height, r, slopes, MASK, mask_query, mask_key, queries, keys, diagonal,
        CAUSAL, ADDITIVE, PER_KEY, CENTRED, DTYPE, STORED, PRECISION, BLOCK,
    )  # fmt: skip
    POINT += batch * point_batch + of_batch * point_head
    _store(POINT, queries, point_row, factor[:, None] * x, VALUE_WIDTH, BLOCK, E)


@triton.jit
def _through_norm(grad, x, rate, WIDTH: tl.constexpr, QK_NORM: tl.constexpr):
    """Return the gradient of rows from that of the points that norms made of them."""
    if QK_NORM:
        grad = rate[:, None] * (grad - x * (tl.sum(x * grad, 1) / WIDTH)[:, None])
    return grad


@Remembered
@triton.jit
def attention_tile_backward(
    GRAD, Q, K, V, MASK, SCALE, C, DQ, DK, DV, TO_SCALE, TO_C, TO_C_OF_KEYS,
    g_batch, g_head, g_row, dq_batch, dq_head, dq_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    mask_batch, mask_head, mask_query, mask_key, scale_batch, scale_head, scale_row,
    heads, groups, queries, keys, diagonal, slope, c,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    CENTRED: tl.constexpr, QK_NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a head of keys and values, and of the heads of queries that it serves."""
    STORED: tl.constexpr = Q.dtype.element_ty
    DTYPE: tl.constexpr = tl.float32 if UPCAST else STORED
    kv_head = tl.program_id(0).to(tl.int64)
    batch, of_keys = kv_head // (heads // groups), kv_head % (heads // groups)
    row = tl.arange(0, BLOCK)
    r = squared_radius(C, c)
    k = load_rows(K + batch * k_batch + of_keys * k_head, 0, keys, k_row, WIDTH, BLOCK, D, True)
    k, k_rate, k_time = _points(k, r, WIDTH, QK_NORM)
    V += batch * v_batch + of_keys * v_head
    gap, reference, v_time, turn, height = _gaps(V, v_row, keys, r, VALUE_WIDTH, BLOCK, E, CENTRED)

    dk, dk_time = tl.zeros([BLOCK, D], tl.float32), tl.zeros([BLOCK], tl.float32)
    dv, dv_height = tl.zeros([BLOCK, E], tl.float32), tl.zeros([BLOCK], tl.float32)
    for of_group in range(groups):
        of_batch = of_keys * groups + of_group
        q = load_rows(Q + batch * q_batch + of_batch * q_head, 0, queries, q_row, WIDTH, BLOCK, D, True)
        q, q_rate, q_time = _points(q, r, WIDTH, QK_NORM)
        scale = tl.full([BLOCK], 1.0, tl.float32)
        if SCALE is not None:
            at = SCALE + batch * scale_batch + of_batch * scale_head + row * scale_row
            scale = tl.load(at, mask=row < queries, other=1.0)
        betas = tl.full([BLOCK], slope, tl.float32) * scale
        OF_HEAD = MASK
        if MASK is not None:
            OF_HEAD = MASK + batch * mask_batch + of_batch * mask_head
        weight, total, mean, x, time, rise, excess, factor = _attended(
            q, k, q_time, k_time, gap, reference, height, r, betas * LOG2E, OF_HEAD, mask_query, mask_key,
            queries, keys, diagonal, CAUSAL, ADDITIVE, PER_KEY, CENTRED, DTYPE, STORED, PRECISION, BLOCK,
        )  # fmt: skip

        grad = load_rows(GRAD + batch * g_batch + of_batch * g_head, 0, queries, g_row, VALUE_WIDTH, BLOCK, E, True)
        grad = grad.to(tl.float32)
        along = tl.sum(grad * x, 1) * factor
        tilt = along * factor * factor / r
        across = x
        if CENTRED:
            reference_time = tl.sqrt(tl.sum(reference * reference, 0) + r)
            across = mean - ((rise + excess) / reference_time)[:, None] * reference[None, :]
        g = (factor[:, None] * grad + tilt[:, None] * across).to(STORED).to(tl.float32)
        g_height = -tilt * (time + excess)

        slant = _product(g, tl.trans(gap), DTYPE, PRECISION) + g_height[:, None] * height[None, :]
        delta = tl.sum(weight * slant, 1) / tl.maximum(tl.sum(weight, 1), 1e-30)  # its own mean: no sum is left over
        weight /= total[:, None]
        of_scores = weight * (slant - delta[:, None])
        weight = weight.to(STORED).to(tl.float32)
        dv += _product(tl.trans(weight), g, DTYPE, PRECISION)
        dv_height += tl.sum(weight * g_height[:, None], 0)
        scaled = (of_scores * scale[:, None]).to(STORED).to(tl.float32)
        dk += _product(tl.trans(scaled), q, DTYPE, PRECISION)
        dk_time -= tl.sum(scaled * q_time[:, None], 0)
        of_scores = of_scores.to(STORED).to(tl.float32)
        dq = _product(of_scores, k, DTYPE, PRECISION)
        dq_time = -tl.sum(of_scores * k_time[None, :], 1)

        head = batch * heads + of_batch
        if SCALE is not None:
            to_scale = (tl.sum(q * dq, 1) + q_time * dq_time) * slope
            tl.store(TO_SCALE + head * queries + row, to_scale, mask=row < queries)
        dq_time /= q_time
        dq = (dq + dq_time[:, None] * q) * betas[:, None]
        dq = _through_norm(dq, q, q_rate, WIDTH, QK_NORM)
        _store(DQ + batch * dq_batch + of_batch * dq_head, queries, dq_row, dq, WIDTH, BLOCK, D)
        if C is not None:
            to_c = -0.5 * r * (along + r * betas * dq_time)  # dx0/dc = -1 / (2 c^2 x0)
            tl.store(TO_C + head * queries + row, to_c, mask=row < queries)

    dk_time /= k_time
    dk = _through_norm((dk + dk_time[:, None] * k) * slope, k, k_rate, WIDTH, QK_NORM)
    _store(DK + batch * dk_batch + of_keys * dk_head, keys, dk_row, dk, WIDTH, BLOCK, D)
    dv_height /= v_time
    _store(
        DV + batch * dv_batch + of_keys * dv_head, keys, dv_row, dv + dv_height[:, None] * turn, VALUE_WIDTH, BLOCK, E
    )
    if C is not None:
        to_c = -0.5 * r * r * (dk_time * slope + dv_height)
        tl.store(TO_C_OF_KEYS + kv_head * keys + row, to_c, mask=row < keys)
