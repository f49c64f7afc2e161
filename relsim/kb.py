"""A knowledge base in memory and on disk: integer triples with multiplicities, and the names behind the integers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from relsim.errors import RelsimError, unknown_name
from relsim.kbfiles import COLUMNS, MANIFEST, read_manifest, read_table, write_facts, write_manifest, write_names
from relsim.names import Names
from relsim.storage import atomic_folder

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Triples:
    """Distinct facts (head, relation, tail) as int64 columns, each with the number of times that it was stated."""

    head: NDArray[np.int64]
    relation: NDArray[np.int64]
    tail: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def from_columns(
        cls, head: ArrayLike, relation: ArrayLike, tail: ArrayLike, count: ArrayLike | None = None
    ) -> Triples:
        """Merge equal rows, adding their counts (1 each by default). Rows come out sorted by relation, head, tail."""
        relation_, head_, tail_ = (np.asarray(column, dtype=np.int64) for column in (relation, head, tail))
        sizes = [int(column.max(initial=0)) + 1 for column in (relation_, head_, tail_)]
        if count is None and _packs(sizes, relation_, head_, tail_):
            return cls.from_keys(np.sort((relation_ * sizes[1] + head_) * sizes[2] + tail_), sizes[1], sizes[2])
        weight = np.ones(len(head_), np.int64) if count is None else np.asarray(count, dtype=np.int64)
        order, first = _sorting(relation_, head_, tail_)
        starts = np.flatnonzero(first)
        total = np.add.reduceat(weight[order], starts) if len(starts) else weight
        rows = order[starts]
        return cls(head_[rows], relation_[rows], tail_[rows], total)

    @classmethod
    def from_keys(cls, key: NDArray[np.int64], heads: int, tails: int) -> Triples:
        """Merge equal facts, each given as `(relation * heads + head) * tails + tail`, in ascending order.

        Numbers sort three times faster than rows do.
        """
        starts = np.flatnonzero(np.diff(key, prepend=key[:1] - 1))
        count = np.diff(starts, append=len(key))
        pair, tail = np.divmod(key[starts], tails)
        relation, head = np.divmod(pair, heads)
        return cls(head, relation, tail, count)

    @classmethod
    def concat(cls, parts: Iterable[Triples]) -> Triples:
        """Merge several sets of facts, adding the counts of equal facts."""
        parts = list(parts) or [cls.from_columns([], [], [])]
        return cls.from_columns(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("head", "relation", "tail", "count"))
        )

    def __len__(self) -> int:
        return len(self.head)

    @property
    def total(self) -> int:
        """The number of statements: the sum of the counts."""
        return int(self.count.sum())

    def distinct(self) -> Triples:
        """Return these facts, each as if it had been stated once."""
        return Triples(self.head, self.relation, self.tail, np.ones_like(self.count))

    def inside(self, entities: int, relations: int) -> bool:
        """Whether every id is one of so many entities and relations, and every count is positive."""
        limits = ((self.head, entities), (self.relation, relations), (self.tail, entities))
        within = all(column.min(initial=0) >= 0 and column.max(initial=-1) < size for column, size in limits)
        return within and bool(self.count.min(initial=1) >= 1)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Triples:
        """Return the facts at `rows`, indices or a mask."""
        return Triples(self.head[rows], self.relation[rows], self.tail[rows], self.count[rows])


@dataclass(frozen=True)
class KB:
    """Facts over named entities and relations, in the splits `train`, `valid` and `test` (absent ones are empty).

    `skipped` counts what ingestion left out, by reason (`{"literal": 3}`), and `source` says where the facts came from.
    """

    entities: Sequence[str]
    relations: Sequence[str]
    splits: Mapping[str, Triples]
    source: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.splits) - set(SPLITS)
        if unknown:
            raise ValueError(f"expected splits among {SPLITS}, got {sorted(unknown)}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(part):,}" for name, part in self.splits.items())
        return f"KB(entities={len(self.entities):,}, relations={len(self.relations):,}, {sizes})"

    @property
    def train(self) -> Triples:
        return self._split("train")

    @property
    def valid(self) -> Triples:
        return self._split("valid")

    @property
    def test(self) -> Triples:
        return self._split("test")

    @cached_property
    def facts(self) -> Triples:
        """All facts, whatever their split."""
        if len(self.splits) == 1 and (np.diff(self.train.relation) >= 0).all():
            return self.train  # merged and sorted already
        return Triples.concat(self.splits.values())

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """The number of distinct facts of each relation, shape (R,)."""
        return np.bincount(self.facts.relation, minlength=len(self.relations))

    def entity_id(self, name: str) -> int:
        """Return the index of an entity.

        Raises:
            RelsimError: no entity has that name; the message suggests the nearest ones.
        """
        try:
            return self._entity_ids[name]
        except KeyError:
            raise unknown_name("entity", name, self.entities) from None

    def relation_id(self, name: str) -> int:
        """Return the index of a relation.

        Raises:
            RelsimError: no relation has that name; the message suggests the nearest ones.
        """
        try:
            return self._relation_ids[name]
        except KeyError:
            raise unknown_name("relation", name, self.relations) from None

    def with_validation(self, share: float = 0.1, seed: int = 0) -> KB:
        """Return this KB if it has validation facts, else one that holds out `share` of the training facts for it.

        At least one fact is held out and at least one is left; a KB of a single fact stays as it is.
        """
        if len(self.valid) or len(self.train) < 2:
            return self
        draw = np.random.default_rng(seed).random(len(self.train))
        held_out = (draw < share) & (draw < draw.max())
        held_out[draw.argmin()] = True
        splits = {**self.splits, "train": self.train.take(~held_out), "valid": self.train.take(held_out)}
        return KB(self.entities, self.relations, splits, self.source, self.skipped)

    def save(self, path: str | Path) -> None:
        """Write the KB as a folder of Parquet files and a manifest with their hashes; it appears whole or not at all.

        Raises:
            RelsimError: `path` exists and is not a KB folder.
        """
        facts = ((name, {key: getattr(part, key) for key in COLUMNS}) for name, part in self.splits.items())
        with atomic_folder(path, MANIFEST) as folder:
            write_names(folder / "entities.parquet", Names(self.entities).array.chunks)
            write_names(folder / "relations.parquet", Names(self.relations).array.chunks)
            write_facts(folder / "triples.parquet", facts)
            write_manifest(folder, self.source, self.skipped, list(self.splits))

    @classmethod
    def load(cls, path: str | Path) -> KB:
        """Read a folder written by `save`.

        Raises:
            RelsimError: the folder is not a KB, was written by a later version, or a file is damaged.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        entities, relations = (
            Names(read_table(folder, name, manifest["sha256"].get(name))["name"]) for name in ("entities", "relations")
        )
        triples = read_table(folder, "triples", manifest["sha256"].get("triples"))
        splits = {name: _split(triples, name) for name in manifest["splits"] if name in SPLITS}
        for part in splits.values():
            if not part.inside(len(entities), len(relations)):
                raise RelsimError(f"{folder}: damaged (ids out of range): run `relsim ingest` again")
        return cls(entities, relations, splits, manifest["source"], manifest["skipped"])

    @classmethod
    def from_names(
        cls, facts: Iterable[tuple[str, str, str]], source: str = "", **splits: Iterable[tuple[str, str, str]]
    ) -> KB:
        """Build a KB from (head, relation, tail) names: `facts` is the training split, `valid=` and `test=` are others.

        Entities and relations are numbered in the order of their first appearance.
        """
        entities: dict[str, int] = {}
        relations: dict[str, int] = {}

        def encode(rows: Iterable[tuple[str, str, str]]) -> Triples:
            ids = [
                (
                    entities.setdefault(h, len(entities)),
                    relations.setdefault(r, len(relations)),
                    entities.setdefault(t, len(entities)),
                )
                for h, r, t in rows
            ]
            return Triples.from_columns(*np.array(ids, dtype=np.int64).reshape(-1, 3).T)

        encoded = {name: encode(rows) for name, rows in {"train": facts, **splits}.items()}
        return cls(list(entities), list(relations), encoded, source)

    @classmethod
    def from_networkx(cls, graph: nx.Graph[Any], relation: str = "relation") -> KB:
        """Build a KB from a graph whose edges carry their relation in the attribute `relation`, or as multigraph key.

        Nodes become entities named by `str`. An undirected edge is one fact, in the order that networkx gives it. A key
        counts where the edge has no such attribute and the key is a string.

        Raises:
            RelsimError: an edge says no relation.
        """
        options = {"keys": True} if graph.is_multigraph() else {}
        edges: Iterable[tuple[Any, ...]] = graph.edges(data=True, **options)  # type: ignore[call-overload]
        facts = []
        for head, tail, *key, data in edges:
            name = data.get(relation, next((k for k in key if isinstance(k, str)), None))
            if name is None:
                raise RelsimError(f"edge {head!r} -> {tail!r} has no attribute {relation!r}: name the one that it has")
            facts.append((str(head), str(name), str(tail)))
        return cls.from_names(facts, source="networkx")

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """Return the facts as a multigraph, each edge with the attributes `relation`, `split` and `count`."""
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        graph.add_nodes_from(self.entities)
        for split, part in self.splits.items():
            for h, r, t, n in zip(part.head, part.relation, part.tail, part.count, strict=True):
                name = self.relations[r]
                graph.add_edge(self.entities[h], self.entities[t], relation=name, split=split, count=int(n))
        return graph

    def _split(self, name: str) -> Triples:
        return self.splits.get(name) or Triples.from_columns([], [], [])

    @cached_property
    def _entity_ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.entities)}

    @cached_property
    def _relation_ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.relations)}


def _split(triples: pa.Table, name: str) -> Triples:
    rows = triples.filter(pc.equal(triples["split"], name))
    return Triples(*(rows[column].to_numpy() for column in COLUMNS))


def _sorting(*columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the order that sorts rows by the first column, then the next, and whether each differs from the last."""
    sizes = [int(column.max(initial=0)) + 1 for column in columns]
    if _packs(sizes, *columns):  # one key sorts ten times faster than three
        key = columns[0]
        for column, size in zip(columns[1:], sizes[1:], strict=True):
            key = key * size + column
        columns = (key,)
    order = np.lexsort(columns[::-1]) if len(columns) > 1 else np.argsort(columns[0])
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.logical_or.reduce([np.diff(column[order]) != 0 for column in columns])
    return order, first


def _packs(sizes: Sequence[int], *columns: NDArray[np.int64]) -> bool:
    """Whether rows whose columns are less than `sizes` can be told apart by one non-negative int64 each."""
    return math.prod(sizes) <= np.iinfo(np.int64).max and all(column.min(initial=0) >= 0 for column in columns)
