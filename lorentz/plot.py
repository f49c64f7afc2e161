"""Pictures of the hyperbolic plane in the Poincaré disk, with matplotlib (the extra `plot`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

import lorentz.functional as LF
from lorentz._precision import Curvature

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP = 0.2
"""Length in radii of curvature of a piece of a drawn geodesic, 0.001 of the disk's radius off the arc at most."""
RIM = 0.97
"""From this share of the disk's radius on, a label stands outside the disk."""
CIRCLE = 1.07
"""Radius of the circle on which the labels outside the disk start."""


def poincare_disk(
    x: Tensor | ArrayLike,
    c: Curvature = 1.0,
    *,
    edges: Tensor | ArrayLike | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    color: Any = "C0",
    edge_color: Any = "0.7",
    size: Any = 10.0,
    font_size: float = 6.5,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw points of the hyperbolic plane, :math:`\sqrt c\,x / (1 + \sqrt c\,x_0)`, and geodesics between them.

    The disk is the unit disk whatever c is. A label stands beside its point; near the rim it stands outside the disk,
    along the radius, moved as little as keeps the labels there apart, and takes the colour of its point. A figure that
    cuts long labels is saved whole with `savefig(path, bbox_inches="tight")`.

    Args:
        x: points, (N, 2), a tensor of any dtype and device or an array.
        c: the curvature is -c, a number or a tensor of one.
        edges: pairs of row numbers, (E, 2).
        labels: N texts, empty for none, or a mapping from row numbers to texts.
        color: as `c` of `Axes.scatter`: a colour, N colours or N numbers.
        edge_color: as `colors` of a `LineCollection`: a colour or E colours.
        size: as `s` of `Axes.scatter`: one area in square points or N of them.
        font_size: of the labels, in points.
        ax: where to draw; by default a new figure of pyplot.

    Returns:
        The axes.

    Raises:
        ValueError: the points are not (N, 2) and finite, an edge or a label has no point, or edges are not (E, 2).
        ImportError: matplotlib is not installed.
    """
    x, c = _points(x), torch.as_tensor(c).item()
    pairs = None if edges is None else _pairs(edges, len(x))
    texts = _texts(labels, len(x))
    try:
        from matplotlib import colors, patches
        from matplotlib.collections import LineCollection
    except ImportError:
        raise ImportError("drawing needs matplotlib: run `pip install 'lorentz-relsim[plot]'`") from None

    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(figsize=(9, 9)).add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.add_patch(patches.Circle((0, 0), 1, facecolor="0.985", edgecolor="0.6", linewidth=0.8, zorder=0))
    if pairs is not None:
        ax.add_collection(
            LineCollection(list(_geodesics(x, pairs, c).numpy()), colors=edge_color, linewidths=1, zorder=1)
        )
    p = _disk(x, c)
    dots = ax.scatter(p[:, 0].numpy(), p[:, 1].numpy(), s=size, c=_array(color), linewidths=0, zorder=2)
    dots.update_scalarmappable()
    inks = 0.65 * colors.to_rgba_array(dots.get_facecolor())[:, :3]  # dark enough to read
    rim = {i: text for i, text in texts.items() if p[i].norm() >= RIM}
    _frame(ax, list(rim.values()), font_size)
    _label_inside(ax, p, {i: text for i, text in texts.items() if i not in rim}, inks, font_size)
    _label_outside(ax, p, rim, inks, font_size)
    return ax


def principal_plane(x: Tensor | ArrayLike, c: Curvature = 1.0) -> Tensor:
    r"""Return the points of the hyperbolic plane that show most of points of a wider space: (N, n) to (N, 2), float64.

    The points are moved so that their centroid is the origin, and :math:`v = \log_0 x` is projected on the two
    principal axes of :math:`\sum v v^T`. A picture, not an embedding: what lies off the plane is lost.

    Raises:
        ValueError: the points are not (N, n) with n >= 2.

    Source: Fletcher et al., Principal Geodesic Analysis, IEEE TMI 2004, the linear approximation.
    """
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"expected points (N, n) with n >= 2, got {tuple(x.shape)}")
    c = torch.as_tensor(c).item()
    mean = LF.centroid(x, c=c)
    v = LF.logmap0(LF.boost(x, mean / LF.time(mean, c, keepdim=True), c), c)
    axes = torch.linalg.eigh(v.mT @ v).eigenvectors[:, -2:].flip(-1)
    return LF.expmap0(v @ axes, c)


def _points(x: Tensor | ArrayLike) -> Tensor:
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.ndim != 2 or x.shape[1] != 2:
        wide = x.ndim == 2 and x.shape[1] > 2
        remedy = ": reduce them with lorentz.plot.principal_plane(x, c)" if wide else ""
        raise ValueError(f"expected points of the hyperbolic plane (N, 2), got {tuple(x.shape)}{remedy}")
    lost = (~x.isfinite().all(-1)).sum().item()
    if lost:
        raise ValueError(f"expected finite points, got {lost} of {len(x)} that are not")
    return x


def _pairs(edges: Tensor | ArrayLike, count: int) -> Tensor:
    pairs = torch.as_tensor(edges).cpu()
    if pairs.numel() == 0:
        return pairs.new_zeros(0, 2).long()
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        remedy = ": transpose the edge_index" if pairs.ndim == 2 and pairs.shape[0] == 2 else ""
        raise ValueError(f"expected edges (E, 2) of integers, got {tuple(pairs.shape)} of {pairs.dtype}{remedy}")
    if pairs.min() < 0 or pairs.max() >= count:
        raise ValueError(f"expected edges between rows 0 to {count - 1}, got {pairs.min()} to {pairs.max()}")
    return pairs.long()


def _texts(labels: Sequence[str] | Mapping[int, str] | None, count: int) -> dict[int, str]:
    if not isinstance(labels, Mapping):
        if labels is not None and len(labels) != count:
            raise ValueError(f"expected {count} labels, one per point, got {len(labels)}: name a few with a mapping")
        labels = dict(enumerate(labels or ()))
    elif labels and not 0 <= min(labels) <= max(labels) < count:
        raise ValueError(f"expected labels of rows 0 to {count - 1}, got {min(labels)} to {max(labels)}")
    return {i: str(text) for i, text in labels.items() if text}


def _array(color: Any) -> Any:
    return color.detach().cpu().double().numpy() if isinstance(color, Tensor) else color


def _disk(x: Tensor, c: float) -> Tensor:
    return c**0.5 * LF.to_poincare(x, c)


def _geodesics(x: Tensor, pairs: Tensor, c: float) -> Tensor:
    """Return the arcs of the disk that join pairs (E, 2) of points, as (E, T, 2) points at equal distances."""
    a, b = x[pairs[:, :1]], x[pairs[:, 1:]]  # (E, 1, 2)
    longest = c**0.5 * LF.dist(a, b, c).amax().item() if len(pairs) else 0.0
    t = torch.linspace(0, 1, 2 + math.ceil(longest / STEP), dtype=x.dtype)
    return _disk(LF.geodesic(t, a, b, c), c)


def _frame(ax: Axes, texts: Sequence[str], font_size: float) -> None:
    """Set the limits so that labels outside the disk have room on both sides, at 0.5 em a character."""
    width = ax.bbox.width / ax.figure.dpi * 72
    share = font_size * max(map(len, texts), default=0) / width
    limit = CIRCLE / max(1 - share, 0.5) if texts else 1.02
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)


def _label_inside(ax: Axes, p: Tensor, texts: Mapping[int, str], inks: Any, font_size: float) -> None:
    """Write labels at their points, towards the middle of the disk, where there is room."""
    from matplotlib.patheffects import withStroke

    for i, text in texts.items():
        angle = math.atan2(*p[i].flip(-1).tolist()) if p[i].norm() > 0.1 else math.pi / 2
        cos, sin = math.cos(angle), math.sin(angle)
        ax.annotate(
            text,
            (p[i, 0].item(), p[i, 1].item()),
            (-5 * cos, -5 * sin),
            textcoords="offset points",
            ha="center" if abs(cos) < 0.4 else "right" if cos > 0 else "left",
            va="center" if abs(sin) < 0.4 else "top" if sin > 0 else "bottom",
            color=inks[i % len(inks)],
            fontsize=font_size + 1,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _label_outside(ax: Axes, p: Tensor, texts: Mapping[int, str], inks: Any, font_size: float) -> None:
    """Write labels along the radius outside the disk, each with a line from its point."""
    ax.apply_aspect()
    unit = (ax.transData.transform((1, 0)) - ax.transData.transform((0, 0)))[0] / ax.figure.dpi * 72
    angles = [math.atan2(*p[i].flip(-1).tolist()) for i in texts]
    places = _spread(angles, 1.25 * font_size / unit / CIRCLE)
    for (i, text), angle, moved in zip(texts.items(), angles, places, strict=True):
        line = [(r * math.cos(t), r * math.sin(t)) for r, t in ((1.01, angle), (CIRCLE - 0.02, moved))]
        ax.plot(*zip(*line, strict=True), color="0.8", linewidth=0.5, zorder=0)
        left = math.cos(moved) < 0
        ax.text(
            CIRCLE * math.cos(moved),
            CIRCLE * math.sin(moved),
            text,
            rotation=math.degrees(moved) + 180 * left,
            rotation_mode="anchor",
            ha="right" if left else "left",
            va="center_baseline",
            color=inks[i % len(inks)],
            fontsize=font_size,
        )


def _spread(angles: Sequence[float], gap: float) -> list[float]:
    """Return angles near the given ones that keep their order and are `gap` apart, or as far as all can be.

    The circle is cut at its widest gap. Angles less k gaps must then not decrease, for which pooling adjacent
    violators is the least change by squares, nor leave the room that is left on the circle.
    """
    count = len(angles)
    order = sorted(range(count), key=lambda i: angles[i] % math.tau)
    first = max(range(count), key=lambda k: (angles[order[k]] - angles[order[k - 1]]) % math.tau, default=0)
    order = order[first:] + order[:first]
    gap = min(gap, math.tau / max(count, 1))
    pools: list[tuple[float, int]] = []  # sum and number
    for k, i in enumerate(order):
        total, size = angles[order[0]] + (angles[i] - angles[order[0]]) % math.tau - k * gap, 1
        while pools and pools[-1][0] / pools[-1][1] > total / size:
            total, size = total + pools[-1][0], size + pools.pop()[1]
        pools.append((total, size))
    levels = [total / size for total, size in pools for _ in range(size)]
    middle, half = sum(levels[:1] + levels[-1:]) / 2, (math.tau - count * gap) / 2
    moved = {i: min(max(levels[k], middle - half), middle + half) + k * gap for k, i in enumerate(order)}
    return [moved[i] for i in range(count)]
