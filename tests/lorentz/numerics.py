"""Measures the tables of docs/numerics.md: `python -m tests.lorentz.numerics [TABLE ...]` prints them as markdown.

Truth is mpmath at 50 digits (`tests.oracles`) of the very numbers that the function under test was given, unless a
table says otherwise. An error is printed with one digit; "NaN" stands for any result that is no finite number.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from statistics import median

import geoopt
import mpmath as mp
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from tests import oracles
from tests.oracles import Row

RADII = (1, 3, 5, 8, 12)
COUNT, WIDTH = 40, 16
Table = list[list[str]]


def table(header: str, rows: Sequence[Sequence[str]]) -> Table:
    """The cells, header first; columns of the header are separated by bars."""
    return [[cell.strip() for cell in header.split("|")], *([*row] for row in rows)]


def digit(value: float) -> str:
    """One digit: `3e-7`, `0.04`, `20`, `8e3`."""
    if not math.isfinite(value):
        return "NaN"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    size = int(exponent)
    if size >= 3 or size < -2:
        return f"{mantissa}e{size}"
    return f"{float(f'{value:.0e}'):g}"


def median_and_largest(errors: Tensor) -> str:
    errors = errors.nan_to_num(math.inf)
    return f"{digit(errors.median().item())} / {digit(errors.max().item())}"


def textbook_dist(x: Tensor, y: Tensor, c: float = 1.0) -> Tensor:
    """arccosh(-c <x, y>) / sqrt(c), its argument kept in the domain."""
    product = (x * y).sum(-1) - LF.time(x, c) * LF.time(y, c)
    return (-c * product).clamp_min(1).acosh() / c**0.5


def ball(x: Tensor, c: float = 1.0) -> Tensor:
    """float64 points, as the Poincare ball stores them in float32."""
    return LF.to_poincare(x.double(), c).float()


def ball_dist(p: Row, q: Row, c: float) -> mp.mpf:
    """The distance of the points of the ball p and q; NaN where rounding has put one of them on the boundary."""
    inside = [1 - c * oracles.dot(r, r) for r in (p, q)]
    if min(inside) <= 0:
        return mp.nan
    x, y = ([2 * value / share for value in r] for r, share in zip((p, q), inside, strict=True))
    return oracles.dist(x, y, c)


def errors_of_distances(radius: float, gap: float, c: float = 1.0) -> list[Tensor]:
    """Relative errors in float32: this library, the textbook form, geoopt.Lorentz, geoopt.PoincareBall."""
    wide = oracles.points_at(radius / c**0.5, COUNT, WIDTH, seed=1, c=c)
    other = oracles.neighbours_at(wide, gap / c**0.5, seed=2, c=c)
    x, y, p, q = wide.float(), other.float(), ball(wide, c), ball(other, c)
    truth, truth_in_ball = oracles.each(oracles.dist, c, x, y), oracles.each(ball_dist, c, p, q)
    ambient = geoopt.Lorentz(k=1 / c).dist(LF.to_ambient(x, c), LF.to_ambient(y, c))
    return [
        *(oracles.relative_errors(got, truth) for got in (LF.dist(x, y, c), textbook_dist(x, y, c), ambient)),
        oracles.relative_errors(geoopt.PoincareBall(c=c).dist(p, q), truth_in_ball),
    ]


def distance() -> Table:
    rows = [
        [f"{gap:g}", f"{radius}", *map(median_and_largest, errors_of_distances(radius, gap))]
        for gap in (1, 0.1, 0.01, 1e-4)
        for radius in RADII
    ]
    return table("distance | radius | LF.dist | acosh form | geoopt.Lorentz | geoopt.PoincareBall", rows)


def round_trips(v: Tensor, c: float = 1.0) -> list[Tensor]:
    """logmap0(expmap0(v)) of this library, geoopt.Lorentz, geoopt.PoincareBall."""
    hyperboloid, disk = geoopt.Lorentz(k=1 / c), geoopt.PoincareBall(c=c)
    tangent = torch.nn.functional.pad(v, (1, 0))
    return [
        LF.logmap0(LF.expmap0(v, c), c),
        hyperboloid.logmap0(hyperboloid.expmap0(tangent))[..., 1:],
        disk.logmap0(disk.expmap0(v / 2)) * 2,  # its metric at the origin is 4
    ]


def directions(count: int = COUNT, n: int = WIDTH) -> Tensor:
    u = torch.randn(count, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return u / u.norm(dim=-1, keepdim=True)


def origin() -> Table:
    rows = []
    for length in (1e-6, 1e-4, 1e-3, 1e-2, 1.0, 5.0, 10.0, 20.0, 40.0):
        v = (length * directions()).float()
        gaps = [oracles.relative_gaps(back, oracles.rows(v)) for back in round_trips(v)]
        rows.append([f"{length:g}", *(digit(gap.nan_to_num(math.inf).max().item()) for gap in gaps)])
    return table("length of v | this library | geoopt.Lorentz | geoopt.PoincareBall", rows)


def gradients() -> Table:
    """The length of the gradient in the space coordinates of x, through the library's own chart: median / largest."""
    libraries = [(LF, Tensor.clone), (geoopt.Lorentz(), LF.to_ambient), (geoopt.PoincareBall(), LF.to_poincare)]
    zero = torch.zeros(COUNT, 3)
    meeting = {radius: oracles.points_at(radius, COUNT, 3, seed=1).float() for radius in (1, 5, 8, 12)}
    wide = oracles.points_at(3.0, COUNT, 3, seed=1)
    x, y = wide.float(), oracles.neighbours_at(wide, 1e-3, seed=2).float()
    slopes = [float(mp.sqrt(oracles.dot(slope, slope))) for slope in oracles.each(oracles.dist_gradient, 1.0, x, y)]
    places = [
        ("x = y = 0", zero, zero, 0.0),
        *((f"x = y at radius {radius}", points, points, 0.0) for radius, points in meeting.items()),
        ("x at radius 3, y at 0.001 from it", x, y, median(slopes)),
        ("x at 1e-6 from the origin, y = 0", (1e-6 * directions(COUNT, 3)).float(), zero, 1.0),
    ]
    rows = []
    for where, x, y, truth in places:
        rows.append([where, digit(truth)])
        for library, chart in libraries:
            leaf = x.clone().requires_grad_()
            (grad,) = torch.autograd.grad(library.dist(chart(leaf), chart(y)).sum(), leaf)
            rows[-1].append(median_and_largest(grad.norm(dim=-1)))
    return table("dist(x, y) | truth | LF | geoopt.Lorentz | geoopt.PoincareBall", rows)


def scores() -> Table:
    """The largest error of <q, k>, against float64 of the points as bfloat16 holds them."""
    rows = []
    for radius in (1, 3, 5):
        q, k = (oracles.points_at(radius, 64, 64, seed=seed).bfloat16() for seed in (1, 2))
        times = [LF.time(x, keepdim=True) for x in (q, k)]
        truth = LF.pairwise_inner(q.double(), k.double())
        product = q.float() @ k.float().mT  # as a tensor core does it: 16-bit factors, float32 sums
        column = product - times[0].bfloat16().float() @ times[1].bfloat16().float().mT
        rank_1 = product - times[0] @ times[1].mT
        rows.append([f"{radius}", *(digit(s.abs().max().item()) for s in (truth, column - truth, rank_1 - truth))])
    return table("radius | largest score | time as a bfloat16 column | time as a float32 rank-1 term", rows)


def storage() -> Table:
    """The largest distance between a point and what is stored of it."""
    charts: list[tuple[str, Callable[[float], mp.mpf], Callable[[Row, Row, float], mp.mpf]]] = [
        ("space part", mp.sinh, oracles.dist),
        ("Poincaré ball", lambda radius: mp.tanh(mp.mpf(radius) / 2), ball_dist),
    ]
    units = [[value / mp.sqrt(oracles.dot(u, u)) for value in u] for u in oracles.rows(directions(10))]
    radii = (1, 3, 5, 8, 12, 20, 30)
    rows = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for name, size, distance in charts:
            rows.append([str(dtype)[6:], name])
            for radius in radii:
                exact = [[size(radius) * value for value in u] for u in units]
                stored = torch.tensor([[*map(float, x)] for x in exact], dtype=torch.float64).to(dtype)
                if stored.isfinite().all():
                    gaps = [distance(a, b, 1.0) for a, b in zip(exact, oracles.rows(stored), strict=True)]
                else:
                    gaps = [mp.nan]
                rows[-1].append(digit(math.inf if any(map(mp.isnan, gaps)) else float(max(gaps))))
    return table("dtype | chart | " + " | ".join(f"radius {radius}" for radius in radii), rows)


def clusters() -> Table:
    """The largest distance of a centroid of eight points from the true one, in units of their spread."""
    rows = []
    for spread in (1e-3, 1.0):
        for radius in RADII:
            centres = oracles.points_at(radius, 8, WIDTH, seed=1)
            x = oracles.neighbours_at(centres[:, None].expand(8, 8, WIDTH), spread, seed=2).float()
            truth = [oracles.centroid(oracles.rows(cluster), [1.0] * 8, 1.0) for cluster in x]
            total = LF.to_ambient(x).sum(-2)
            square = total[..., :1].square() - total[..., 1:].square().sum(-1, keepdim=True)
            query = torch.zeros(8, 1, WIDTH)
            attended = LF.attention(query, torch.zeros_like(x), x)[:, 0]  # equal scores
            rows.append([f"{spread:g}", f"{radius}"])
            for got in (LF.centroid(x), attended, total[..., 1:] / square.sqrt()):
                pairs = zip(oracles.rows(got), truth, strict=True) if got.isfinite().all() else ()
                gaps = [float(oracles.dist(a, b, 1.0)) / spread for a, b in pairs]
                rows[-1].append(digit(max(gaps, default=math.inf)))
    return table("spread | radius | LF.centroid | LF.attention | sum of ambient points, normalised", rows)


def curvature() -> Table:
    """Lengths in units of the radius of curvature: neighbours at 0.1 at radius 3, and vectors of length 1."""
    rows = []
    for c in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3):
        ours, _, hyperboloid, disk = (digit(errors.max().item()) for errors in errors_of_distances(3.0, 0.1, c))
        v = (directions() / c**0.5).float()
        trip = digit(oracles.relative_gaps(round_trips(v, c)[0], oracles.rows(v)).max().item())
        rows.append([f"{c:g}", ours, hyperboloid, disk, trip])
    return table("c | LF.dist | geoopt.Lorentz | geoopt.PoincareBall | logmap0(expmap0(v))", rows)


def limits() -> Table:
    """What is not exact to rounding, beside what to use instead; relative errors, the largest of each."""
    rows = []
    for radius in (*RADII[:4], 9, 12):
        wide = oracles.points_at(radius, COUNT, WIDTH, seed=1)
        x, y = wide.float(), oracles.neighbours_at(wide, 1.0, seed=2).float()
        truth = oracles.each(oracles.inner, 1.0, x, y)
        products = [oracles.relative_errors(got, truth) for got in (LF.pairwise_inner(x, y).diagonal(), LF.inner(x, y))]
        # Queries that see one cluster of values of two, which lie apart: (2, 8, n).
        clusters = oracles.neighbours_at(wide[:2, None].expand(2, 8, WIDTH), 1.0, seed=3).float()
        seen = torch.eye(2, dtype=torch.bool).repeat_interleave(8, dim=1)
        values = clusters.flatten(0, 1)
        seeing = LF.attention(torch.zeros(1, 2, WIDTH), torch.zeros_like(values)[None], values[None], seen)[0]
        truth = [oracles.centroid(oracles.rows(cluster), [1.0] * 8, 1.0) for cluster in clusters]
        means = [oracles.relative_gaps(got, truth) for got in (seeing, LF.centroid(clusters))]
        boost, origin = lnn.Boost(3), torch.zeros(1, 3)
        with torch.no_grad():
            boost.rapidity.copy_(radius * directions(1, 3)[0])
            moved = [LF.boost(origin, boost.velocity), boost(origin)]
        shifts = [(LF.dist0(point) / radius - 1).abs() for point in moved]
        errors = [*products, *means, *shifts]
        rows.append([f"{radius}", *(digit(each.nan_to_num(math.inf).max().item()) for each in errors)])
    return table("radius | pairwise_inner | inner | attention | centroid | LF.boost | lnn.Boost", rows)


TABLES: dict[str, Callable[[], Table]] = {
    function.__name__: function
    for function in (distance, origin, gradients, scores, storage, clusters, curvature, limits)
}


def markdown(cells: Table) -> str:
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or TABLES:
        sys.stdout.write(f"`python -m tests.lorentz.numerics {name}`\n\n{markdown(TABLES[name]())}\n")
