"""`lorentz.plot`: points and arcs of the disk against closed forms, labels apart, errors by name."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from lorentz.plot import _spread, poincare_disk, principal_plane
from tests import oracles

pytest.importorskip("matplotlib")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


@pytest.fixture
def ax() -> Axes:
    figure = Figure(figsize=(9, 9))
    FigureCanvasAgg(figure)
    return figure.add_axes((0, 0, 1, 1))


def polar(radius: float, angle: float) -> list[float]:
    """The point at a geodesic distance and an angle, c = 1."""
    return [math.sinh(radius) * math.cos(angle), math.sinh(radius) * math.sin(angle)]


def dots(ax: Axes) -> np.ndarray:
    (collection,) = (a for a in ax.collections if not isinstance(a, LineCollection))
    return np.asarray(collection.get_offsets())


def arcs(ax: Axes) -> list[np.ndarray]:
    (collection,) = (a for a in ax.collections if isinstance(a, LineCollection))
    return collection.get_segments()


def texts(ax: Axes) -> dict[str, Text]:
    return {text.get_text(): text for text in ax.texts}


@curvatures
def test_points_lie_at_the_hyperbolic_tangent_of_half_their_radius(ax: Axes, c: float) -> None:
    radii = torch.tensor([0.0, 0.1, 1.0, 3.0, 8.0], dtype=torch.float64)
    u = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    x = u * (c**0.5 * radii).sinh().unsqueeze(-1) / c**0.5
    poincare_disk(x, c, ax=ax)
    np.testing.assert_allclose(dots(ax), u * torch.tanh(c**0.5 * radii / 2).unsqueeze(-1), rtol=1e-12, atol=1e-15)


@curvatures
def test_edges_are_arcs_of_circles_orthogonal_to_the_boundary(ax: Axes, c: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([oracles.points_at(r / c**0.5, 20, 2, seed=int(r), c=c) for r in (1.0, 3.0, 6.0)])
    edges = torch.randint(len(x), (200, 2), generator=generator)
    edges = edges[edges[:, 0] != edges[:, 1]]
    poincare_disk(x, c, edges=edges, ax=ax)
    p = dots(ax)
    assert len(arcs(ax)) == len(edges)
    for (a, b), arc in zip(p[edges.numpy()], arcs(ax), strict=True):
        np.testing.assert_allclose(arc[[0, -1]], [a, b], atol=1e-9)
        # The centre m has |m|^2 = 1 + r^2 (right angle), so |p - m| = r reads 2 m . p = 1 + |p|^2.
        centre = np.linalg.solve(2 * np.stack([a, b]), [1 + a @ a, 1 + b @ b])
        radius = math.sqrt(centre @ centre - 1)
        np.testing.assert_allclose(np.linalg.norm(arc - centre, axis=-1) / radius, 1, rtol=1e-6)
        chords = (arc[1:] + arc[:-1]) / 2
        assert np.abs(np.linalg.norm(chords - centre, axis=-1) - radius).max() < 1e-3
        assert (np.linalg.norm(arc, axis=-1) < 1).all()


def test_edges_through_the_origin_are_straight(ax: Axes) -> None:
    x = torch.tensor([polar(5.0, 0.3), polar(2.0, 0.3 + math.pi), [0.0, 0.0]])
    poincare_disk(x, edges=[(0, 1), (0, 2)], ax=ax)
    for arc in arcs(ax):
        np.testing.assert_allclose(arc @ [-math.sin(0.3), math.cos(0.3)], 0, atol=1e-6)


def test_picture_does_not_depend_on_the_unit_of_length(ax: Axes) -> None:
    x = oracles.points_at(2.0, 5, 2, seed=0)
    small, large = (Figure().add_subplot() for _ in range(2))
    poincare_disk(x / 10, 100.0, edges=[(0, 1)], ax=small)
    poincare_disk(x, torch.tensor([1.0], requires_grad=True), edges=[(0, 1)], ax=large)
    np.testing.assert_allclose(dots(small), dots(large), rtol=1e-12)
    np.testing.assert_allclose(arcs(small)[0], arcs(large)[0], rtol=1e-9)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x.float().requires_grad_(),
        lambda x: torch.nn.Parameter(x.bfloat16()),
    ],
    ids=["numpy", "list", "requires_grad", "bfloat16"],
)
def test_points_come_in_any_form(ax: Axes, convert: Any) -> None:
    x = torch.tensor([[0.5, -1.0], [0.25, 2.0]], dtype=torch.float64)  # exact in bfloat16
    given = convert(x)
    poincare_disk(given, edges=np.array([[0, 1]]), color=torch.tensor([0.0, 1.0]), ax=ax)
    np.testing.assert_allclose(dots(ax), LF.to_poincare(x), rtol=1e-12)


def test_thousands_of_edges_are_one_collection(ax: Axes) -> None:
    x = oracles.points_at(3.0, 5001, 2, seed=0)
    poincare_disk(x, edges=torch.arange(5001).unfold(0, 2, 1), ax=ax)
    assert len(arcs(ax)) == 5000
    assert len(ax.lines) == 0


def test_no_points_and_no_edges_are_a_bare_disk(ax: Axes) -> None:
    assert poincare_disk(torch.zeros(0, 2), edges=[], labels=[], ax=ax) is ax
    assert len(arcs(ax)) == 0
    assert len(ax.patches) == 1
    ax.figure.canvas.draw()


def test_labels_are_a_sequence_with_gaps_or_a_mapping() -> None:
    x = torch.tensor([[0.0, 0.0], [0.5, 0.0], polar(9.0, 1.0)])
    first, second = Figure().add_subplot(), Figure().add_subplot()
    poincare_disk(x, labels=["root", "", "leaf"], ax=first)
    poincare_disk(x, labels={2: "leaf", 0: "root"}, ax=second)
    assert set(texts(first)) == set(texts(second)) == {"root", "leaf"}


def test_labels_near_the_rim_stand_outside_along_the_radius(ax: Axes) -> None:
    angles = {"east": 0.2, "west": 3.0, "south": -1.4}
    x = torch.tensor([polar(7.0, angle) for angle in angles.values()])
    poincare_disk(x, labels=list(angles), ax=ax)
    for name, angle in angles.items():
        text = texts(ax)[name]
        a, b = text.get_position()
        assert math.hypot(a, b) > 1
        assert math.atan2(b, a) == pytest.approx(angle, abs=1e-5)
        upright = angle if math.cos(angle) > 0 else angle - math.pi
        assert math.radians(text.get_rotation()) % math.tau == pytest.approx(upright % math.tau, abs=1e-5)
        ax.figure.canvas.draw()
        corners = ax.transData.inverted().transform(text.get_window_extent())
        assert np.linalg.norm(corners.mean(0)) > 1.08
        low, high = ax.get_xlim()
        assert low < corners.min()
        assert corners.max() < high


def test_labels_outside_do_not_overlap_where_points_do() -> None:
    figure = Figure(figsize=(9, 9))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    x = torch.tensor([polar(8.0, 0.01 * i) for i in range(60)] + [polar(8.0, 3.0)] * 20)
    poincare_disk(x, labels=[f"label {i}" for i in range(80)], ax=ax)
    points_per_unit = 9 * 72 / (ax.get_xlim()[1] - ax.get_xlim()[0])
    places = np.array([text.get_position() for text in ax.texts])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 10 * np.eye(80)
    assert gaps.min() * points_per_unit > 1.15 * 6.5
    # In the order of the points, and centred on them.
    angles = np.arctan2(places[:60, 1], places[:60, 0])
    assert (np.diff(angles) > 0).all()
    assert angles.mean() == pytest.approx(0.295, abs=1e-6)


def test_a_line_leads_from_each_point_to_its_label_outside(ax: Axes) -> None:
    x = torch.tensor([polar(8.0, 1.0), polar(8.0, 1.001), polar(1.0, 0.0)])
    poincare_disk(x, labels=["one", "two", "inside"], ax=ax)
    assert len(ax.lines) == 2
    for i, (line, name) in enumerate(zip(ax.lines, ("one", "two"), strict=True)):
        start, end = line.get_xydata()
        assert np.linalg.norm(start - dots(ax)[i]) < 0.02
        assert np.linalg.norm(end - texts(ax)[name].get_position()) < 0.025


def test_labels_inside_point_to_the_middle(ax: Axes) -> None:
    angles = {"right": 0.1, "left": 3.1, "top": 1.6, "bottom": -1.6}
    poincare_disk(torch.tensor([polar(1.5, a) for a in angles.values()]), labels=list(angles), ax=ax)
    ax.figure.canvas.draw()
    for i, name in enumerate(angles):
        corners = ax.transData.inverted().transform(texts(ax)[name].get_window_extent().corners())
        outward = dots(ax)[i] / np.linalg.norm(dots(ax)[i])
        assert (corners @ outward).max() < dots(ax)[i] @ outward


def test_labels_have_the_colour_of_their_point_darkened(ax: Axes) -> None:
    x = torch.tensor([[0.5, 0.0], polar(8.0, 2.0)])
    poincare_disk(x, labels=["inside", "outside"], color=["C1", "C2"], ax=ax)
    for name, color in (("inside", "C1"), ("outside", "C2")):
        np.testing.assert_allclose(to_rgb(texts(ax)[name].get_color()), 0.65 * np.array(to_rgb(color)))


def test_colours_may_be_numbers(ax: Axes) -> None:
    x = torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    poincare_disk(x, labels=["low", "high"], color=torch.tensor([0.0, 1.0]), ax=ax)
    assert texts(ax)["low"].get_color().tolist() != texts(ax)["high"].get_color().tolist()


angle_lists = st.lists(st.floats(-math.pi, math.pi), max_size=40)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(1, 20), st.floats(0.01, 0.3))
def test_spread_angles_keep_their_order_and_are_apart(seed: int, count: int, clusters: float, gap: float) -> None:
    angles = (np.random.default_rng(seed).uniform(-math.pi, math.pi, count) * clusters).round() / clusters
    angles = np.remainder(angles, math.tau).tolist()
    moved = _spread(angles, gap)
    assert len(moved) == count
    # All around the circle, the gap from the last back to the first included.
    places = sorted(a % math.tau for a in moved)
    gaps = np.diff([*places, places[0] + math.tau])
    assert gaps.min() >= min(gap, math.tau / count) - 1e-9
    order = sorted(range(count), key=lambda i: angles[i])
    turns = [(moved[j] - moved[i]) % math.tau for i, j in zip(order, order[1:] + order[:1], strict=True)]
    assert sum(turns) == pytest.approx(math.tau)


@pytest.mark.parametrize("middle", [0.0, 1.0, math.pi])
def test_spread_centres_a_crowd_where_it_stands(middle: float) -> None:
    crowd = [math.remainder(middle + 0.001 * k, math.tau) for k in range(-5, 6)]
    shifts = [math.remainder(a - middle, math.tau) for a in _spread([*crowd, middle + 2.0], 0.1)[:-1]]
    assert shifts == pytest.approx([0.1 * k for k in range(-5, 6)])


@settings(deadline=None)
@given(angle_lists)
def test_spread_leaves_angles_that_are_apart(angles: list[float]) -> None:
    kept: list[float] = []
    for angle in angles:
        if all(abs(math.remainder(angle - other, math.tau)) >= 0.2 for other in kept):
            kept.append(angle)
    moved = _spread(kept, 0.2 - 1e-9)
    assert all(abs(math.remainder(a - b, math.tau)) < 1e-6 for a, b in zip(kept, moved, strict=True))


@pytest.mark.parametrize(
    ("x", "keywords", "message"),
    [
        (torch.zeros(3, 5), {}, "(N, 2), got (3, 5): reduce them with lorentz.plot.principal_plane(x, c)"),
        (torch.zeros(3, 1), {}, "expected points of the hyperbolic plane (N, 2), got (3, 1)"),
        (torch.zeros(2), {}, "expected points of the hyperbolic plane (N, 2), got (2,)"),
        (torch.tensor([[0.0, math.nan], [0.0, 0.0]]), {}, "expected finite points, got 1 of 2 that are not"),
        (torch.zeros(3, 2), {"edges": [(0, 3)]}, "expected edges between rows 0 to 2, got 0 to 3"),
        (torch.zeros(3, 2), {"edges": [(0, -1)]}, "expected edges between rows 0 to 2, got -1 to 0"),
        (torch.zeros(3, 2), {"edges": torch.zeros(2, 4).long()}, "got (2, 4) of torch.int64: transpose the edge_index"),
        (torch.zeros(3, 2), {"edges": torch.zeros(4, 2)}, "of integers, got (4, 2) of torch.float32"),
        (torch.zeros(3, 2), {"labels": ["a", "b"]}, "expected 3 labels, one per point, got 2: name a few with a map"),
        (torch.zeros(3, 2), {"labels": {3: "a"}}, "expected labels of rows 0 to 2, got 3 to 3"),
    ],
)
def test_errors_name_what_was_given(ax: Axes, x: Tensor, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        poincare_disk(x, ax=ax, **keywords)
    assert not ax.patches


def test_error_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=re.escape("drawing needs matplotlib: run `pip install 'lorentz-relsim[plot]'`")
    ):
        poincare_disk(torch.zeros(1, 2))


def test_pyplot_is_imported_for_a_new_figure_only(tmp_path: Path) -> None:
    script = (
        "import sys, torch, lorentz.plot as plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from matplotlib.figure import Figure\n"
        "figure = Figure()\n"
        "plot.poincare_disk(torch.zeros(1, 2), ax=figure.add_subplot())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "plot.poincare_disk(torch.zeros(1, 2)).figure.savefig(sys.argv[1])\n"
        "assert len(sys.modules['matplotlib.pyplot'].get_fignums()) == 1\n"
    )
    path = tmp_path / "disk.png"
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")


@curvatures
def test_principal_plane_of_points_on_a_plane_keeps_every_distance(c: float) -> None:
    flat = torch.cat([oracles.points_at(r / c**0.5, 10, 2, seed=int(r), c=c) for r in (1.0, 4.0)])
    normal = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = LF.rotate(torch.nn.functional.pad(flat, (0, 4)), torch.linalg.qr(normal).Q)
    wide = LF.boost(wide, 0.3 * torch.nn.functional.normalize(normal[0], dim=0), c)
    x = principal_plane(wide, c)
    torch.testing.assert_close(LF.pairwise_dist(x, x, c), LF.pairwise_dist(flat, flat, c), rtol=1e-6, atol=1e-6)


def test_principal_plane_is_centred_and_its_first_axis_is_the_longest() -> None:
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 0.2, 0.1, 0.9, 0.4]) + 1
    plane = principal_plane(x.requires_grad_())
    assert plane.dtype == torch.float64
    assert not plane.requires_grad
    spread = plane.std(0)
    assert spread[0] > 1.5 * spread[1]
    assert LF.dist0(LF.centroid(plane)) < 0.05


@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_principal_plane_needs_two_coordinates(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected points (N, n) with n >= 2, got {shape}")):
        principal_plane(torch.zeros(shape))
