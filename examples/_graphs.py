"""Graphs that node embedding learns from: a tree, simulated, and those of files and folders."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import torch
from scipy.sparse import csr_matrix, load_npz
from torch import Tensor

from lorentz.graphs import Graph, NodeSplit, undirected
from relsim.errors import RelsimError


def tree(seed: int, nodes: int = 1000, width: int = 8) -> Graph:
    """Simulate a ternary tree: each node has the features of its parent plus noise, and the class is the top branch."""
    graph, noise = nx.full_rary_tree(3, nodes), torch.randn(nodes, width, generator=torch.Generator().manual_seed(seed))
    features, labels = torch.zeros(nodes, width), torch.zeros(nodes, dtype=torch.long)
    for parent, child in nx.bfs_edges(graph, 0):
        features[child] = features[parent] + noise[child]
        labels[child] = labels[parent] if parent else child - 1
    return Graph(features, undirected(torch.tensor(list(graph.edges))), labels)


def read(path: Path | None, seed: int, task: str) -> Graph:
    """Return the graph of `--data`, the simulated tree without it; features that give a class away only for links."""
    if path is None:
        return tree(seed)
    if path.suffix == ".pt":
        try:
            import torch_geometric  # noqa: F401  (its classes may then be loaded)
        except ImportError:
            raise RelsimError(f"{path}: needs torch_geometric: run `pip install torch_geometric`") from None
        return Graph.from_pyg(torch.load(path, weights_only=True))
    if (path / "nodes.npz").exists():
        return airport(path, task)
    if (path / "cora.npz").exists():
        return cora(path)
    edges, features, labels = (
        next(iter(sorted(path.glob(pattern))), None) for pattern in ("*edges.csv", "*feat*.npz", "*labels.npy")
    )
    if edges is None or features is None:
        raise RelsimError(f"{path}: no graph here: expected edges.csv and features.npz, see --help")
    return Graph(
        torch.tensor(load_npz(features).toarray()).float(),
        undirected(pairs(edges)),
        None if labels is None else torch.tensor(np.load(labels)),
    )


def pairs(path: Path) -> Tensor:
    """Return the edges (E, 2) of a file with two node numbers a line."""
    try:
        return torch.tensor(np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2))
    except ValueError as error:
        raise RelsimError(f"{path}: expected two node numbers a line, separated by a comma: {error}") from None


def airport(path: Path, task: str) -> Graph:
    """Return the flight network; the class is the fifth feature, binned at 7/7, 8/7 and 9/7."""
    features = np.load(path / "nodes.npz")["features"]
    labels = torch.tensor(np.digitize(features[:, 4], [7 / 7, 8 / 7, 9 / 7]))
    inputs = torch.tensor(features).float()[:, : 4 if task == "classify" else 5]
    return Graph(inputs, undirected(pairs(path / "edges.csv")), labels)


def cora(path: Path) -> Graph:
    """Return the citation network, each row of features divided by its sum."""
    z = np.load(path / "cora.npz")
    words = csr_matrix((z["feature_data"], z["feature_indices"], z["feature_indptr"]), z["feature_shape"]).toarray()
    features = torch.tensor(words)
    split = NodeSplit(*(torch.tensor(z[name]) for name in NodeSplit._fields))
    edges = undirected(torch.tensor(z["edges"]).long())
    return Graph(features / features.sum(1, keepdim=True).clamp_min(1), edges, torch.tensor(z["labels"]), split)
