"""Embed the nodes of a graph: link prediction and node classification, in hyperbolic space and in its Euclidean twin.

    python examples/node_embedding.py                                        a tree, simulated: both tasks of it below
    python examples/node_embedding.py --task classify
    python examples/node_embedding.py --config examples/node_embedding/cora-link.json --data cora --out runs/cora

`--data` is a folder with `edges.csv` (two node numbers a line) and `features.npz` (sparse, scipy's), or one of the
folders airport, cora and disease-lp of the public data sets, or a `.pt` file of a `torch_geometric.data.Data`. Held-out
edges are neither seen by the encoder nor trained against. `--batch` trains on samples of neighbourhoods, without it on
the whole graph. `--out` receives result.json, a picture, and for each model and seed a log and a checkpoint, from which
`--resume` goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from _common import Results, descend, fit, options_of, parameters, parser, report, run
from _graphs import read
from torch import Tensor, nn

import lorentz.nn as lnn
from lorentz.graphs import (
    EdgeSplit,
    Graph,
    NeighborSampler,
    edge_index,
    mean_weight,
    split_edges,
    split_nodes,
    symmetric_weight,
)
from lorentz.models import EuclideanFermiDirac, EuclideanGraphEncoder, GraphEncoder
from lorentz.optim import RiemannianAdam, param_groups
from relsim.agreement import auc
from relsim.errors import RelsimError

PUBLISHED = {
    "airport-link": (97.3, 96.5),
    "cora-link": (93.6, 94.6),
    "disease-lp-link": (96.8, 96.0),
    "airport-classify": (90.9, 93.7),
    "cora-classify": (80.2, 80.7),
}
"""Chen et al., ACL 2022, and a run of their code with one seed: ROC AUC, micro F1 and accuracy, in percent."""
PREDICTED = "share of the training edges that an epoch predicts and hides from the encoder; 0: predict all, hide none"
NEIGHBOURS = "weight of a neighbour: 1, or 1 / degree of the node, or the ratio of roots of degrees of a GCN"
HOPS = "centroids of neighbours taken of the inputs before training; only with --task classify"
WEIGHTS = {"equal": None, "mean": mean_weight, "symmetric": symmetric_weight}
ACTIVATIONS = {"none": None, "relu": torch.relu, "tanh": torch.tanh}


def prepare(features: Tensor, options: argparse.Namespace) -> Tensor:
    """Return the inputs: features, scaled, and waves of them (Tancik et al., NeurIPS 2020), as the options say."""
    if options.standardise:
        features = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
    waves = [2**k * features for k in range(options.waves)]
    return torch.cat(
        [options.scale * features, *(wave.sin() for wave in waves), *(wave.cos() for wave in waves)], dim=1
    )


class Linker(nn.Module):
    """A graph encoder and the probability of an edge by the squared distance of its ends."""

    def __init__(self, model: str, width: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.encoder = encoder(model, width, options)
        decoder = lnn.FermiDiracDecoder if model == "lorentz" else EuclideanFermiDirac
        self.decoder = decoder(options.r, options.t)

    def logits(self, nodes: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits (E) of pairs (E, 2) of encoded nodes."""
        return self.decoder.logits(nodes[pairs[:, 0]], nodes[pairs[:, 1]])


class Classifier(nn.Module):
    """A graph encoder and class points; in the twin hyperplanes, to which Euclidean class points come down."""

    def __init__(self, model: str, width: int, classes: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.encoder = encoder(model, width, options)
        head = lnn.CentroidClassifier if model == "lorentz" else nn.Linear
        self.head = head(options.dim, classes)


def encoder(model: str, width: int, options: argparse.Namespace) -> nn.Module:
    kind, activation = GraphEncoder if model == "lorentz" else EuclideanGraphEncoder, ACTIVATIONS[options.activation]
    return kind(width, options.dim, options.layers, options.dropout, activation, self_weight=options.self_weight)


def encode(model: nn.Module, inputs: Tensor, graph: Tensor, options: argparse.Namespace) -> Tensor:
    """Return the encoded nodes, (N, dim), of inputs (N, F) and edges in both directions, (2, E)."""
    return model.encoder(inputs, graph, weights_of(graph, len(inputs), options))


def weights_of(graph: Tensor, nodes: int, options: argparse.Namespace) -> Tensor | None:
    weights = WEIGHTS[options.neighbours]
    return weights and weights(graph, nodes)


def link_losses(model: Linker, inputs: Tensor, split: EdgeSplit, options: argparse.Namespace) -> Iterator[Tensor]:
    """Yield the loss of training edges and as many pairs that are none: all at once, or batches on samples."""
    predicted, seen = split.disjoint(options.predicted)
    negatives, graph = split.negatives(len(predicted)), edge_index(seen)
    if not options.batch:
        yield link_loss(model, encode(model, inputs, graph, options), predicted, negatives)
        return
    sampler = NeighborSampler(graph, len(inputs), [options.fanout] * options.layers)
    for edges, others in zip(*(shuffled(pairs).split(options.batch) for pairs in (predicted, negatives)), strict=True):
        seeds, place = torch.cat([edges, others]).unique(return_inverse=True)
        sample = sampler(seeds)
        nodes = encode(model, inputs[sample.nodes], sample.edge_index, options)
        yield link_loss(model, nodes, *place.split([len(edges), len(others)]))


def link_loss(model: Linker, nodes: Tensor, edges: Tensor, others: Tensor) -> Tensor:
    return F.softplus(-model.logits(nodes, edges)).mean() + F.softplus(model.logits(nodes, others)).mean()


def class_losses(
    model: Classifier, inputs: Tensor, graph: Tensor, labels: Tensor, train: Tensor, options: argparse.Namespace
) -> Iterator[Tensor]:
    """Yield the loss of the training nodes: all at once, or batches on samples of their neighbourhoods."""
    if not options.batch:
        yield F.cross_entropy(model.head(encode(model, inputs, graph, options)[train]), labels[train])
        return
    sampler = NeighborSampler(graph, len(inputs), [options.fanout] * options.layers)
    for seeds in shuffled(train).split(options.batch):
        sample = sampler(seeds)
        nodes = encode(model, inputs[sample.nodes], sample.edge_index, options)[: len(seeds)]
        yield F.cross_entropy(model.head(nodes), labels[seeds])


def shuffled(rows: Tensor) -> Tensor:
    return rows[torch.randperm(len(rows)).to(rows.device)]


def roc_auc(positive: Tensor, negative: Tensor) -> float:
    """Return the probability that a positive scores above a negative, ties counted half."""
    return float(
        auc(torch.arange(len(positive) + len(negative)) < len(positive), torch.cat([positive, negative]).cpu())
    )


def predict_links(model: str, graph: Graph, seed: int, options: argparse.Namespace) -> tuple[dict[str, float], Tensor]:
    """Train on 85 % of the edges; return the ROC AUC of the other 10 % in percent, and the encoded nodes."""
    split = split_edges(graph.edges, len(graph.features), generator=torch.Generator().manual_seed(seed))
    inputs, messages = prepare(graph.features, options), edge_index(split.train)
    torch.manual_seed(seed)
    net = Linker(model, inputs.shape[1], options).to(options.device)

    def area(edges: Tensor, others: Tensor) -> float:
        nodes = encode(net, inputs, messages, options)
        return 100 * roc_auc(net.logits(nodes, edges), net.logits(nodes, others))

    figures = train(
        net,
        lambda: link_losses(net, inputs, split, options),
        lambda: area(split.valid, split.valid_negatives),
        f"{model}-{seed}",
        seed,
        options,
    )
    with torch.no_grad():
        figures["test"] = area(split.test, split.test_negatives)
        return figures, encode(net, inputs, messages, options)


def classify(model: str, graph: Graph, seed: int, options: argparse.Namespace) -> tuple[dict[str, float], Tensor]:
    """Train on the training nodes; return the accuracy of the test nodes in percent, and the encoded nodes."""
    if graph.labels is None:
        raise RelsimError(f"{options.data}: no labels here: --task link needs none")
    labels = graph.labels
    split = graph.split or split_nodes(labels, generator=torch.Generator().manual_seed(seed))
    inputs, messages = prepare(graph.features, options), edge_index(graph.edges)
    torch.manual_seed(seed)
    net = Classifier(model, inputs.shape[1], int(labels.max()) + 1, options).to(options.device)
    inputs = net.encoder.smooth(inputs, messages, weights_of(messages, len(inputs), options), options.hops)

    def accuracy(nodes: Tensor) -> float:
        right = net.head(encode(net, inputs, messages, options)[nodes]).argmax(1) == labels[nodes]
        return 100 * right.double().mean().item()

    figures = train(
        net,
        lambda: class_losses(net, inputs, messages, labels, split.train, options),
        lambda: accuracy(split.valid),
        f"{model}-{seed}",
        seed,
        options,
    )
    with torch.no_grad():
        figures["test"] = accuracy(split.test)
        return figures, encode(net, inputs, messages, options)


def train(
    net: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    score: Callable[[], float],
    name: str,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Fit a network; return its figures."""
    optimiser = RiemannianAdam(param_groups(net), lr=options.lr)
    matrices = [parameter for parameter in net.encoder.parameters() if parameter.ndim == 2]

    def penalised() -> Iterator[Tensor]:
        for loss in losses():
            yield loss + options.l2 / 2 * torch.stack([matrix.square().sum() for matrix in matrices]).sum()

    figures = fit(
        options.out / name,
        net,
        optimiser,
        lambda: descend(optimiser, penalised()),
        score,
        options,
        seed=seed,
        every=options.every,
        patience=options.patience,
    )
    return {"parameters": parameters(net), **figures}


def draw(nodes: Tensor, graph: Graph, out: Path) -> None:
    """Draw the nodes of the first Lorentz model, their edges if they are few, in the disk of the principal plane."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    from lorentz.plot import poincare_disk, principal_plane

    color = "C0" if graph.labels is None else [f"C{label % 10}" for label in graph.labels.tolist()]
    edges = graph.edges.cpu() if len(graph.edges) <= 3000 else None
    axes = poincare_disk(principal_plane(nodes), edges=edges, color=color, edge_color="0.88", size=6)
    axes.figure.savefig(out / "disk.png", dpi=120, bbox_inches="tight")
    pyplot.close(axes.figure)


def arguments() -> argparse.Namespace:
    """Return the options, which suit the simulated tree."""
    options = parser(__doc__, "node_embedding", dim=16, epochs=100, seeds=2)
    options.add_argument("--task", choices=["link", "classify"], default="link")
    options.add_argument("--layers", type=int, default=2)
    options.add_argument("--hops", type=int, default=0, help=HOPS)
    options.add_argument("--dropout", type=float, default=0.0)
    options.add_argument("--self-weight", type=float, default=1.0, help="of a node in its centroid, at the start")
    options.add_argument("--neighbours", choices=WEIGHTS, default="equal", help=NEIGHBOURS)
    options.add_argument("--activation", choices=ACTIVATIONS, default="none", help="between layers")
    options.add_argument("--lr", type=float, default=0.02)
    options.add_argument("--l2", type=float, default=0.0, help="penalty l2 / 2 |W|^2 on the matrices of the encoder")
    options.add_argument("--r", type=float, default=2.0, help="squared distance at which an edge has probability 1/2")
    options.add_argument("--t", type=float, default=1.0, help="width of the step there")
    options.add_argument("--standardise", action="store_true", help="features of mean 0 and standard deviation 1")
    options.add_argument("--scale", type=float, default=1.0, help="factor of the features")
    options.add_argument("--waves", type=int, default=0, help="add sin(2^k x) and cos(2^k x) for so many k")
    options.add_argument("--predicted", type=float, default=0.5, help=PREDICTED)
    options.add_argument("--batch", type=int, default=0, help="edges or nodes of a step; 0: all, on the whole graph")
    options.add_argument("--fanout", type=int, default=10, help="with --batch: neighbours drawn at each node; -1: all")
    options.add_argument("--every", type=int, default=5, help="epochs between validations")
    options.add_argument("--patience", type=int, default=1000, help="stop after so many epochs without a better one")
    chosen = options_of(options)
    if chosen.hops and chosen.task == "link":
        raise RelsimError("--hops: would show edges that are to be predicted: leave it out, or use --task classify")
    return chosen


def main() -> None:
    options = arguments()
    graph = read(options.data, options.seed, options.task).to(options.device)
    name = options.data.stem if options.data else "tree"
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{name}: {len(graph.features):,} nodes, {len(graph.edges):,} edges, {graph.features.shape[1]} features")
    work, results, nodes = predict_links if options.task == "link" else classify, Results(), []
    for model in ("lorentz", "euclidean"):
        for seed in range(options.seed, options.seed + options.seeds):
            figures, encoded = work(model, graph, seed, options)
            results.setdefault(model, []).append(figures)
            nodes.append(encoded)
    measure = "ROC AUC" if options.task == "link" else "accuracy = micro F1"
    protocol = {"link": "85/5/10 % of the edges, as many negatives", "classify": "the given or a 70/15/15 % split"}
    shown = {"test": f"test, {measure}, %", "valid": "validation", "parameters": "parameters", "cpu_s": "CPU s"}
    means = report(
        options.out, results, shown, f"{measure}; {protocol[options.task]}; epoch of the best validation", data=name
    )
    if published := PUBLISHED.get(f"{name}-{options.task}"):
        ours = means["lorentz"]["test"][0]
        deltas = [f"{of} {x}: {ours - x:+.1f}" for of, x in zip(("published", "their code"), published, strict=True)]
        print("; ".join(deltas))
    draw(nodes[0], graph, options.out)


if __name__ == "__main__":
    run(main)
