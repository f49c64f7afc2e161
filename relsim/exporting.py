"""A comparison for other programs: tables (CSV, TSV, JSON, Parquet) and graphs (GraphML, GEXF)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.scale import quantile
from relsim.similar import nearest_pairs, pair_record
from relsim.storage import atomic_file

FORMATS = ("csv", "tsv", "json", "parquet", "graphml", "gexf")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what XML 1.0 has no way to say


def export(div: Divergence, path: str | Path, *, threshold: float = 0.0) -> int:
    """Write the pairs with `quantile` (`relsim.scale`) at least `threshold`; return how many.

    The ending of the name decides the format, one of `FORMATS`. Each pair has the fields of
    `relsim.similar.pair_record` and `quantile`. In a graph relations are nodes, named in the attribute `label`, and a
    pair is an undirected edge. The file appears whole or not at all.

    Raises:
        RelsimError: another ending.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lstrip(".").lower())
    if write is None:
        raise RelsimError(f"{path}: its ending names no known format: end it with .{', .'.join(FORMATS)}")
    pairs = list(_pairs(div, threshold))
    with atomic_file(path) as scratch:
        write(div, pairs, scratch)
    return len(pairs)


def graph(div: Divergence, threshold: float = 0.0) -> nx.Graph[int]:
    """Return relations as numbered nodes with `label` and `support`, and pairs as edges with the fields of `export`."""
    return _graph(div, list(_pairs(div, threshold)))


def _pairs(div: Divergence, threshold: float) -> Iterator[tuple[int, int, dict[str, Any]]]:
    scale = quantile(div)
    for a, b in nearest_pairs(div):
        if scale[a, b] >= threshold:
            yield a, b, {**pair_record(div, a, b), "quantile": float(scale[a, b])}


_Pairs = list[tuple[int, int, dict[str, Any]]]


def _table(div: Divergence, pairs: _Pairs) -> dict[str, list[Any]]:
    empty = pair_record(div, 0, 0) | {"quantile": 1.0} if len(div.relations) else {}
    return {key: [record[key] for _, _, record in pairs] for key in empty}


def _csv(delimiter: str) -> Callable[[Divergence, _Pairs, Path], None]:
    def write(div: Divergence, pairs: _Pairs, path: Path) -> None:
        columns = _table(div, pairs)
        with path.open("w", encoding="utf-8", errors="replace", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    return write


def _json(div: Divergence, pairs: _Pairs, path: Path) -> None:
    value = {
        "relations": [{"name": n, "support": int(s)} for n, s in zip(div.relations, div.support, strict=True)],
        "pairs": [{k: _finite(v) for k, v in record.items()} for _, _, record in pairs],
    }
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _parquet(div: Divergence, pairs: _Pairs, path: Path) -> None:
    pq.write_table(pa.table(_table(div, pairs)), path, compression="zstd")


def _graphml(div: Divergence, pairs: _Pairs, path: Path) -> None:
    nx.write_graphml(_graph(div, pairs), path)


def _gexf(div: Divergence, pairs: _Pairs, path: Path) -> None:
    nx.write_gexf(_graph(div, pairs), path)


def _graph(div: Divergence, pairs: _Pairs) -> nx.Graph[int]:
    result: nx.Graph[int] = nx.Graph()
    for index, (name, support) in enumerate(zip(div.relations, div.support, strict=True)):
        result.add_node(index, label=_UNPRINTABLE.sub("\ufffd", name), support=int(support))
    for a, b, record in pairs:
        kept = {key: value for key, value in record.items() if key not in ("a", "b", "support_a", "support_b")}
        result.add_edge(a, b, weight=record["quantile"], **kept)
    return result


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


_WRITERS: dict[str, Callable[[Divergence, _Pairs, Path], None]] = {
    "csv": _csv(","),
    "tsv": _csv("\t"),
    "json": _json,
    "parquet": _parquet,
    "graphml": _graphml,
    "gexf": _gexf,
}
