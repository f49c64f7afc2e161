"""Which relation is a kind of which: the asymmetry of KL as a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np

from relsim.divergence import Divergence
from relsim.report import RULE, Reading, Rule, readings
from relsim.similar import pair_record


def hierarchy(div: Divergence, rule: Rule | None = None) -> nx.DiGraph[str]:
    """Return the graph with an edge a -> b for each pair that reads "a is a kind of b" (`relsim.report.Rule`).

    KL(a || b) is small: b covers the facts of a; and KL(b || a) is larger by a gap: b has others too. Nodes have the
    attribute `support`, edges `kl` and `kl_back` with standard errors `stderr` and `stderr_back`. The rule is by
    default that of the report, scaled to the comparison.
    """
    codes = readings(div, rule or RULE.scaled(div))
    found = (pair_record(div, int(a), int(b)) for a, b in np.argwhere(codes == Reading.A_KIND_OF_B))
    graph = _graph(found)
    graph.add_nodes_from((name, {"support": int(n)}) for name, n in zip(div.relations, div.support, strict=True))
    return graph


def kinds(records: Iterable[Mapping[str, Any]], rule: Rule = RULE) -> nx.DiGraph[str]:
    """Return the same graph from pairs as `relsim.search.covered_pairs` finds them; nodes are what has an edge."""

    def earns(r: Mapping[str, Any]) -> bool:
        error = float(np.hypot(r["stderr_ab"], r["stderr_ba"]))
        return bool(
            r["kl_ab"] + rule.errors * r["stderr_ab"] <= rule.kind_of
            and r["kl_ba"] - r["kl_ab"] - rule.errors * error >= rule.gap
        )

    return _graph(record for record in records if earns(record))


def reduced(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """Return the graph without the edges that follow from others, a -> c beside a -> b -> c, attributes kept.

    KL obeys no triangle inequality, so the edges may form a cycle; such a graph is returned as it is.
    """
    if not nx.is_directed_acyclic_graph(graph):
        return graph
    return graph.edge_subgraph(nx.transitive_reduction(graph).edges).copy()


def render_tree(graph: nx.DiGraph[str], shown: Any = str) -> str:
    """Return the graph as indented text: what has no kind above it first, then its kinds; once under each parent."""
    back = graph.reverse(copy=False)
    lines: list[str] = []

    def visit(name: str, depth: int, above: frozenset[str]) -> None:
        lines.append("  " * depth + shown(name))
        for kind in sorted(back[name], key=lambda k: float(graph.edges[k, name]["kl"])):
            if kind not in above:
                visit(kind, depth + 1, above | {kind})

    tops = [name for name in graph if graph.out_degree(name) == 0 and graph.in_degree(name) > 0]
    for name in sorted(tops):
        visit(name, 0, frozenset([name]))
    return "\n".join(lines)


def _graph(records: Iterable[Mapping[str, Any]]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for r in records:
        graph.add_node(r["a"], support=r["support_a"])
        graph.add_node(r["b"], support=r["support_b"])
        graph.add_edge(
            r["a"], r["b"], kl=r["kl_ab"], stderr=r["stderr_ab"], kl_back=r["kl_ba"], stderr_back=r["stderr_ba"]
        )
    return graph
