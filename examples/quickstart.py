"""A tree of mammals in two dimensions: the hyperbolic plane, its curvature learned, beside the Euclidean plane.

    python examples/quickstart.py --out quickstart.png

Both have two numbers per node, and the same start, loss, learning rate and number of steps. Printed for each: the
average distortion, the mean over all pairs of |distance / tree distance - 1| (low is good), and the mean average
precision with which the nearest nodes are the neighbours in the tree (high is good; Nickel and Kiela, NeurIPS 2017).
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR

import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, param_groups
from lorentz.plot import poincare_disk


def read_outline(path: Path) -> nx.DiGraph:
    """Read a tree: one node a line, two spaces deeper than its parent."""
    tree, branch = nx.DiGraph(), []
    for line in path.read_text(encoding="utf-8").splitlines():
        name = line.strip()
        branch[(len(line) - len(name)) // 2 :] = [name]
        nx.add_path(tree, branch[-2:])
    return tree


def radial_drawing(depth: Tensor) -> Tensor:
    """Draw the tree, (N, 2): the depth is the radius, the place in the outline the angle, with some noise."""
    angle = torch.arange(len(depth)) * (2 * math.pi / len(depth))
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return depth.unsqueeze(-1) * circle + 0.1 * torch.randn_like(circle)


def fit(embedding: nn.Module, dist: Callable[..., Tensor], optimizer: Optimizer, target: Tensor, steps: int) -> Tensor:
    """Minimise the mean square of the relative errors of all distances; return the distances, (N, N)."""
    i, j = pairs = torch.triu_indices(*target.shape, offset=1)
    schedule = LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (dist(*embedding(pairs)) / target[i, j] - 1).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    return dist(embedding.weight.unsqueeze(0), embedding.weight.unsqueeze(1)).detach()


def scores(distance: Tensor, target: Tensor) -> str:
    """Return the average distortion and the mean average precision as text."""
    i, j = torch.triu_indices(*target.shape, offset=1)
    nearest = distance.clone().fill_diagonal_(math.inf).argsort(dim=1)
    found = (target == 1).gather(1, nearest).float()
    precision = found.cumsum(1) / torch.arange(1, len(found) + 1)
    score = ((precision * found).sum(1) / found.sum(1)).mean()
    return f"distortion {(distance[i, j] / target[i, j] - 1).abs().mean():.3f}  MAP {score:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Embed a tree in the hyperbolic and in the Euclidean plane.")
    parser.add_argument("--data", type=Path, default=Path(__file__).with_name("mammals.txt"), help="an outline")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("quickstart.png"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tree = read_outline(options.data)
    nodes, target = list(tree), torch.tensor(nx.floyd_warshall_numpy(tree.to_undirected())).float()
    depth = target[0]

    space, plane = Lorentz(learnable=True), nn.PairwiseDistance()
    curved, flat = lnn.Embedding(len(tree), 2, manifold=space), nn.Embedding(len(tree), 2)
    with torch.no_grad():
        flat.weight.copy_(radial_drawing(depth))
        curved.weight.copy_(space.expmap0(flat.weight))
    distance = fit(curved, space.dist, RiemannianAdam(param_groups(curved), lr=0.1), target, options.steps)
    print(f"hyperbolic plane  {scores(distance, target)}  curvature {-space.c.item():.2f}")
    distance = fit(flat, plane, Adam(flat.parameters(), lr=0.1), target, options.steps)
    print(f"Euclidean plane   {scores(distance, target)}")

    tops = {node: k for k, top in enumerate(tree[nodes[0]]) for node in (top, *nx.descendants(tree, top))}
    color = [f"C{tops[node]}" if node in tops else "0.3" for node in nodes]
    edges = [(nodes.index(parent), nodes.index(child)) for parent, child in tree.edges]
    named = (depth <= 2) & (space.dist0(curved.weight) < 2.3)  # of the inner nodes; all leaves are
    labels = [node if named[i] or not tree[node] else "" for i, node in enumerate(nodes)]
    edge_color = [color[child] for _, child in edges]
    ax = poincare_disk(curved.weight, space.c, edges=edges, labels=labels, color=color, edge_color=edge_color)
    ax.figure.savefig(options.out, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
