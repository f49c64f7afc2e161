"""`examples/node_embedding.py`: its graphs, its protocol, its measures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, save_npz

from lorentz.graphs import Graph, split_edges
from relsim.errors import RelsimError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Make = Callable[[str], Any]


def test_the_simulated_graph_is_a_tree_whose_classes_are_its_branches(example: Make) -> None:
    graph = example("node_embedding").module.read(None, 0, "classify")
    truth = nx.Graph(graph.edges.tolist())
    assert nx.is_tree(truth)
    assert len(truth) == 1000
    truth.remove_node(0)
    branches = [graph.labels[sorted(part)] for part in nx.connected_components(truth)]
    assert len(branches) == 3
    assert all((labels == labels[0]).all() for labels in branches)
    assert len({int(labels[0]) for labels in branches}) == 3


def test_ties_count_half_in_the_area_under_the_curve(example: Make) -> None:
    positive, negative = torch.randint(6, (40,)).float(), torch.randint(5, (30,)).float()
    wins = sum(float(p > n) + 0.5 * float(p == n) for p in positive for n in negative)
    assert example("node_embedding").module.roc_auc(positive, negative) == pytest.approx(wins / 1200)


@pytest.mark.parametrize("batch", ["0", "16"])
def test_the_encoder_sees_no_held_out_edge_and_none_that_it_is_to_predict(
    example: Make, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every graph and every pair that a training touches, against the split of the same seed."""
    script = example("node_embedding")
    module, graph = script.module, script.module.read(None, 3, "link")
    split = split_edges(graph.edges, 1000, generator=torch.Generator().manual_seed(3))
    sets = {name: {tuple(p) for p in getattr(split, name).tolist()} for name in ("train", "valid", "test")}
    wrong = {tuple(p) for part in (split.valid_negatives, split.test_negatives) for p in part.tolist()}
    seen: list[set[tuple[int, ...]]] = []
    original_index, original_disjoint, original_negatives = (
        module.edge_index,
        type(split).disjoint,
        type(split).negatives,
    )

    def edge_index(edges: torch.Tensor) -> torch.Tensor:
        seen.append({tuple(p) for p in edges.tolist()})
        return original_index(edges)

    def disjoint(self: Any, share: float) -> Any:
        predicted, rest = original_disjoint(self, share)
        pairs = {tuple(p) for p in predicted.tolist()}
        assert pairs <= sets["train"]
        assert not pairs & {tuple(p) for p in rest.tolist()}
        return predicted, rest

    def negatives(self: Any, count: int) -> Any:
        drawn = original_negatives(self, count)
        assert not {tuple(p) for p in drawn.tolist()} & (set.union(*sets.values()) | wrong)
        return drawn

    monkeypatch.setattr(module, "edge_index", edge_index)
    monkeypatch.setattr(type(split), "disjoint", disjoint)
    monkeypatch.setattr(type(split), "negatives", negatives)
    script.run("--seed", "3", "--seeds", "1", "--epochs", "4", "--batch", batch, "--out", "o")
    assert len(seen) == 2 * (1 + 4)  # for each twin the graph of validation and test, and one an epoch
    assert all(edges <= sets["train"] for edges in seen)


@pytest.mark.parametrize("task", ["link", "classify"])
def test_samples_of_neighbourhoods_train_as_the_whole_graph_does(example: Make, task: str) -> None:
    script = example("node_embedding")
    chance = {"link": 50, "classify": 100 / 3}[task]
    for batch in ("0", "128"):
        options = ["--task", task, "--batch", batch, "--epochs", "30", "--seeds", "1", "--out", f"{task}-{batch}"]
        script.run(*options)
        for name, runs in script.result(f"{task}-{batch}")["seeds"].items():
            assert runs[0]["test"] > 1.5 * chance, name


def test_inputs_are_not_smoothed_over_edges_that_are_to_be_predicted(example: Make) -> None:
    with pytest.raises(RelsimError, match=r"^--hops: would show edges that are to be predicted: leave it out, or use "):
        example("node_embedding").run("--hops", "1")


def test_a_folder_of_edges_and_features_is_a_graph(example: Make) -> None:
    script = example("node_embedding")
    folder = script.folder / "mine"
    folder.mkdir()
    with pytest.raises(RelsimError, match=r"^mine: no graph here: expected edges.csv and features.npz, see --help$"):
        script.module.read(Path("mine"), 0, "link")
    (folder / "edges.csv").write_text("0,1\n2,1\n")
    save_npz(folder / "features.npz", csr_matrix(np.eye(3)))
    graph = script.module.read(Path("mine"), 0, "link")
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert torch.equal(graph.features, torch.eye(3))
    assert graph.labels is None
    with pytest.raises(RelsimError, match=r"^mine: no labels here: --task link needs none$"):
        script.run("--data", "mine", "--task", "classify")
    (folder / "edges.csv").write_text("0;1\n")
    with pytest.raises(RelsimError, match=r"^mine/edges.csv: expected two node numbers a line, separated by a comma: "):
        script.module.read(Path("mine"), 0, "link")


def test_a_file_of_torch_geometric_without_it_names_what_to_install(
    example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(RelsimError, match=r"^graph.pt: needs torch_geometric: run `pip install torch_geometric`$"):
        example("node_embedding").module.read(Path("graph.pt"), 0, "link")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes"),
    [("airport", 3188, 18630, 4), ("cora", 2708, 5278, 7), ("disease-lp", 2665, 2664, 2)],
)
def test_the_public_graphs_have_their_known_sizes(
    example: Make, shared_data: Path, name: str, nodes: int, edges: int, classes: int
) -> None:
    graph: Graph = example("node_embedding").module.read(shared_data / name, 0, "link")
    assert len(graph.features) == nodes
    assert len(graph.edges) == edges
    assert graph.labels is not None
    assert len(graph.labels.unique()) == classes == int(graph.labels.max()) + 1
    assert (graph.split is not None) == (name == "cora")


@pytest.mark.data
def test_the_class_of_an_airport_is_no_input(example: Make, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, widths = example("node_embedding"), []
    original = script.module.prepare

    def prepare(features: torch.Tensor, options: SimpleNamespace) -> torch.Tensor:
        widths.append(features.shape[1])
        return original(features, options)

    monkeypatch.setattr(script.module, "prepare", prepare)
    for task in ("classify", "link"):
        script.run(
            "--data", str(shared_data / "airport"), "--task", task, "--epochs", "1", "--seeds", "1", "--out", task
        )
    assert widths == [4, 4, 5, 5]


@pytest.mark.parametrize("config", sorted((EXAMPLES / "node_embedding").glob("*.json")), ids=lambda path: path.stem)
def test_committed_configurations_are_options_of_the_script(example: Make, config: Path) -> None:
    script = example("node_embedding")
    script.run("--config", str(config), "--epochs", "1", "--seeds", "1", "--out", "o")
    assert script.result("o")["data"] == "tree"
