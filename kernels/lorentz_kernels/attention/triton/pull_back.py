r"""The backward of attention begins with one pass over rows: the gradient g of a point is pulled back to its mean.

.. math::
    y = f m: \quad a = c f^2 (g \cdot y), \quad
    G = f g + a (m - m_0 u), \quad G_h = -a m_0, \quad \Delta_i = G_i \cdot \bar d_i + G_{h,i} \bar h_i

Delta is formed from the rounded G and the unrounded mean, so that the rounding of G cancels where values are near one
another. What follows are the tiles of plain attention.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lorentz_kernels.attention.triton.rows import (
    PARTS,
    load_reference,
    load_rows,
    parts,
    see,
    side_rows,
    squared_radius,
    store_rows,
)
from lorentz_kernels.launch import Remembered


@Remembered
@triton.jit
def pull_back(
    Q, POINT, REST, FACTOR, GRAD, REFERENCE, C, Q_TIME, SIDE, G, G_HEIGHT, DELTA, TO_C_OF_POINTS,
    q_batch, q_head, q_row, grad_batch, grad_head, grad_row, heads, groups, queries, c,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, D: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write of each query its time, the gradient (G, G_h) of its mean, Delta, and what its point adds to that of c.

    Where SIDE is given, time and G_h also as side rows: (t1, t2, t3, G1, G2, G3, 1, 0, ...).
    """
    blocks = tl.cdiv(queries, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * ROWS
    row = start + tl.arange(0, ROWS)
    inside = row < queries
    batch, of_batch = head // heads, head % heads
    kv_head = batch * (heads // groups) + of_batch // groups
    r = squared_radius(C, c)

    q = load_rows(Q + batch * q_batch + of_batch * q_head, start, queries, q_row, WIDTH, ROWS, D, True).to(tl.float32)
    q_time = tl.sqrt(tl.sum(q * q, 1) + r)
    tl.store(Q_TIME + head * queries + row, q_time, mask=inside)

    offset = head * queries * VALUE_WIDTH
    factor = tl.load(FACTOR + head * queries + row, mask=inside, other=0.0)
    alive = factor > 0
    f = tl.where(alive, factor, 1.0)
    gap = load_rows(REST + offset, start, queries, VALUE_WIDTH, VALUE_WIDTH, ROWS, E, True).to(tl.float32)
    if REST.dtype.element_ty != tl.float32:
        point = load_rows(POINT + offset, start, queries, VALUE_WIDTH, VALUE_WIDTH, ROWS, E, True)
        gap = (point.to(tl.float32) + gap) / f[:, None]
    reference = load_reference(REFERENCE, kv_head, VALUE_WIDTH, E)
    x, time, rise, _, height = see(gap, reference, r, REFERENCE is not None)
    mean_time = tl.sqrt(time * time - r + r / (f * f))
    excess = r * (1 / (f * f) - 1) / (mean_time + time)

    GRAD += batch * grad_batch + of_batch * grad_head
    grad = load_rows(GRAD, start, queries, grad_row, VALUE_WIDTH, ROWS, E, True).to(tl.float32)
    along = tl.sum(grad * x, 1) * factor
    tilt = along * factor * factor / r
    g = factor[:, None] * grad + tilt[:, None] * x
    if REFERENCE is not None:  # m - m0 u = x - R - (m0 - R0) u
        reference_time = tl.sqrt(tl.sum(reference * reference, 0) + r)
        g = factor[:, None] * grad + tilt[:, None] * (
            gap - ((rise + excess) / reference_time)[:, None] * reference[None, :]
        )
    g = g.to(G.dtype.element_ty)
    g_height = -tilt * mean_time
    delta = tl.sum(g.to(tl.float32) * gap, 1) + g_height * (height + excess)
    store_rows(G + offset, start, queries, g, VALUE_WIDTH, ROWS, E)
    tl.store(G_HEIGHT + head * queries + row, g_height, mask=inside)
    tl.store(DELTA + head * queries + row, delta, mask=inside)
    tl.store(TO_C_OF_POINTS + head * queries + row, -0.5 * r * along, mask=inside)
    if SIDE is not None:
        dtype = SIDE.dtype.element_ty
        side = side_rows(parts(q_time, dtype), parts(g_height, dtype))
        store_rows(SIDE + head * queries * PARTS, start, queries, side, PARTS, ROWS, PARTS)
