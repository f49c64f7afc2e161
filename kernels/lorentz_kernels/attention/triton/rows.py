r"""What the kernels of attention know about a row: its time, and its height over a plane.

As on the CPU (`lorentz_kernels.attention.columns`), values are seen from a reference point R of the sheet. With
:math:`u = R / R_0`: the gap d = x - R, the rise :math:`\delta = x_0 - R_0`, the turn :math:`d - \delta u`, and the
height :math:`h = \delta - u \cdot d` over the tangent plane at R. Without a reference R is the origin, where d = x and
h = rise.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lorentz_kernels.launch import Remembered

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)  # exponentials have base 2
PARTS: tl.constexpr = tl.constexpr(16)  # width of a side row: what one step of a tensor core takes


@triton.jit
def see(gap, reference, k, CENTRED: tl.constexpr):
    """Return x, x0, rise, turn and h of rows of gaps (R, E), float32, for the squared radius k = 1 / c."""
    if CENTRED:
        x = gap + reference[None, :]
        time = tl.sqrt(tl.sum(x * x, 1) + k)
        reference_time = tl.sqrt(tl.sum(reference * reference, 0) + k)
        rise = tl.sum(gap * (gap + 2 * reference[None, :]), 1) / (time + reference_time)
        slant = rise / reference_time
        turn = gap - slant[:, None] * reference[None, :]
        height = (tl.sum(turn * turn, 1) + k * slant * slant) / (2 * time)
    else:
        x = gap
        square = tl.sum(x * x, 1)
        time = tl.sqrt(square + k)
        rise = square / (time + tl.sqrt(k))
        turn = gap
        height = rise
    return x, time, rise, turn, height


@triton.jit
def squared_radius(C, c):
    """Return 1 / c for a curvature given as a tensor of one element, or as a number."""
    return 1 / (tl.load(C).to(tl.float32) if C is not None else tl.cast(c, tl.float32))


@triton.jit
def load_rows(
    base, start, limit, stride, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr
):
    """Load ROWS rows from `start`, padded with zeros from row `limit` on and beyond WIDTH columns."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    pointers = base + tl.cast(start, tl.int64) * stride + (row[:, None] * stride + column[None, :])
    inside, within = (start + row < limit)[:, None], (column < WIDTH)[None, :]
    if MASKED and WIDTH < COLUMNS:
        rows = tl.load(pointers, mask=inside & within, other=0.0)
    elif MASKED:
        rows = tl.load(pointers, mask=inside, other=0.0)
    elif WIDTH < COLUMNS:
        rows = tl.load(pointers, mask=within, other=0.0)
    else:
        rows = tl.load(pointers)
    return rows


@triton.jit
def store_rows(base, start, limit, values, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Store rows from `start` up to `limit` of a contiguous tensor of WIDTH columns, in its dtype."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    pointers = base + tl.cast(start, tl.int64) * WIDTH + (row[:, None] * WIDTH + column[None, :])
    inside = (start + row < limit)[:, None] & (column < WIDTH)[None, :]
    tl.store(pointers, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_reference(REFERENCE, head, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Load the reference of a head of values; zeros where there is none."""
    column = tl.arange(0, COLUMNS)
    if REFERENCE is None:
        reference = tl.zeros([COLUMNS], tl.float32)
    else:
        reference = tl.load(REFERENCE + head * WIDTH + column, mask=column < WIDTH, other=0.0)
    return reference


@triton.jit
def visible(
    MASK, mask_query, mask_key, start_query, start_key, queries, keys, diagonal,
    CAUSAL: tl.constexpr, ADDITIVE: tl.constexpr, PER_KEY: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Return which keys the queries of a tile see: (QUERIES, KEYS), or (1, KEYS) where all queries see the same."""
    query, key = start_query + tl.arange(0, QUERIES), start_key + tl.arange(0, KEYS)
    sees = (key < keys)[None, :]
    if CAUSAL:
        sees = sees & (key[None, :] <= query[:, None] + diagonal)
    if MASK is not None and not ADDITIVE:
        given = mask_tile(MASK, mask_query, mask_key, start_query, start_key, queries, keys, PER_KEY, QUERIES, KEYS)
        sees = sees & (given != 0)
    return sees


@triton.jit
def mask_tile(
    MASK, mask_query, mask_key, start_query, start_key, queries, keys,
    PER_KEY: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Load a tile of the mask: (QUERIES, KEYS), or (1, KEYS) of one that is the same for all queries."""
    query, key = start_query + tl.arange(0, QUERIES), start_key + tl.arange(0, KEYS)
    at = (MASK + tl.cast(key, tl.int64) * mask_key)[None, :]
    inside = (key < keys)[None, :]
    if not PER_KEY:
        at += (tl.cast(query, tl.int64) * mask_query)[:, None]
        inside = inside & (query < queries)[:, None]
    return tl.load(at, mask=inside, other=0)


@triton.jit
def parts(x, DTYPE: tl.constexpr):
    """Return three numbers of a narrow dtype whose sum is x, as float32."""
    first = x.to(DTYPE).to(tl.float32)
    second = (x - first).to(DTYPE).to(tl.float32)
    return first, second, x - first - second


@triton.jit
def side_rows(x, y):
    """Return rows (x1, x2, x3, y1, y2, y3, 1, 0, ...) of PARTS numbers from the parts of two numbers for each row.

    A tensor core sums them under the weights that it sums the coordinates under, in float32.
    """
    part = tl.arange(0, PARTS)[None, :]
    side = tl.where(part == 6, 1.0, tl.zeros([x[0].shape[0], PARTS], tl.float32))
    for i in tl.static_range(3):
        side = tl.where(part == i, x[i][:, None], tl.where(part == i + 3, y[i][:, None], side))
    return side


@triton.jit
def sum_of_parts(side, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Return the sum of COUNT columns of summed side rows, from the column FIRST on."""
    part = tl.arange(0, PARTS)[None, :]
    return tl.sum(tl.where((part >= FIRST) & (part < FIRST + COUNT), side, 0.0), 1)


@Remembered
@triton.jit
def prepare(
    K, V, REFERENCE, C, K_TIME, HEIGHT, SIDE, GAP,
    k_batch, k_head, k_row, v_batch, v_head, v_row, heads, keys, c,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write of each key its time, of each value its gap, where there is a reference, and its height.

    Where SIDE is given, both also as side rows: (h1, h2, h3, t1, t2, t3, 1, 0, ...).
    """
    blocks = tl.cdiv(keys, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * ROWS
    row = start + tl.arange(0, ROWS)
    batch, of_batch = head // heads, head % heads
    k = squared_radius(C, c)
    key = load_rows(K + batch * k_batch + of_batch * k_head, start, keys, k_row, WIDTH, ROWS, D, True).to(tl.float32)
    k_time = tl.sqrt(tl.sum(key * key, 1) + k)
    tl.store(K_TIME + head * keys + row, k_time, mask=row < keys)
    gap = load_rows(V + batch * v_batch + of_batch * v_head, start, keys, v_row, VALUE_WIDTH, ROWS, E, True)
    reference = load_reference(REFERENCE, head, VALUE_WIDTH, E)
    if REFERENCE is not None:
        gap = (gap.to(tl.float32) - reference[None, :]).to(GAP.dtype.element_ty)
        store_rows(GAP + head * keys * VALUE_WIDTH, start, keys, gap, VALUE_WIDTH, ROWS, E)
    _, _, _, _, height = see(gap.to(tl.float32), reference, k, REFERENCE is not None)
    tl.store(HEIGHT + head * keys + row, height, mask=row < keys)
    if SIDE is not None:
        dtype = SIDE.dtype.element_ty
        side = side_rows(parts(height, dtype), parts(k_time, dtype))
        store_rows(SIDE + head * keys * PARTS, start, keys, side, PARTS, ROWS, PARTS)
