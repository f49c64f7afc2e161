"""Dependency trees: where they come from, distances between words, and the measures of a structural probe."""

from __future__ import annotations

import gzip
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _phrases import tree_of, written_from_rules
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path
from scipy.stats import rankdata

from relsim.errors import RelsimError

Array = NDArray[np.float64]


@dataclass
class Tree:
    """A sentence with its dependency tree."""

    text: str
    words: list[str]
    heads: list[int]
    """The place of each word's head, from 1; that of the root is 0."""
    counted: list[bool]
    """Whether a word is none of punctuation."""
    places: list[tuple[int, int]]
    """The letters of the text that each word covers, from and to."""

    def edges(self) -> list[tuple[int, int]]:
        """Return the pairs of a word and its head, from 0."""
        return [(word, head - 1) for word, head in enumerate(self.heads) if head]

    @cached_property
    def distances(self) -> Array:
        """The number of edges between every two words."""
        adjacent = np.zeros(2 * (len(self.words),))
        for word, head in self.edges():
            adjacent[word, head] = 1
        return shortest_path(adjacent, directed=False, unweighted=True)

    @property
    def depths(self) -> Array:
        """The number of edges between each word and the root."""
        return self.distances[self.heads.index(0)]


def read(path: Path | None) -> dict[str, list[Tree]]:
    """Return the trees of train, dev and test: of a treebank in CoNLL-U, or of sentences written by rules."""
    if path is None:
        trees = [located(english, *tree_of(english)) for _, english in written_from_rules(5000)]
        # The encoder may have seen the sentences, not the trees.
        return {"train": trees[:1500], "dev": trees[4400:4700], "test": trees[4700:]}
    found = {}
    for split in ("train", "dev", "test"):
        files = sorted(path.glob(f"*-{split}.conllu*"))
        if not files:
            raise RelsimError(f"{path}: no file *-{split}.conllu or .conllu.gz: give the folder of a treebank of UD")
        found[split] = list(conllu(files[0]))
    return found


def conllu(path: Path) -> Iterator[Tree]:
    """Yield the sentences of a file in CoNLL-U of two words or more; `conllu` reads the lines."""
    try:
        from conllu import parse_incr
        from conllu.exceptions import ParseException
    except ImportError:
        raise RelsimError("needs conllu: run `pip install 'lorentz-relsim[examples]'`") from None
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        sentences = parse_incr(file)
        for number in itertools.count(1):
            try:
                sentence = next(sentences, None)
                tree = sentence and tree_in(sentence)
            except (ParseException, KeyError, ValueError) as error:
                raise RelsimError(f"{path}: sentence {number} is not as CoNLL-U has it: {error}") from None
            if sentence is None:
                return
            if tree and len(tree.words) > 1:
                yield tree


def tree_in(sentence: Any) -> Tree:
    """Return the tree of a sentence as `conllu` has it, of words only: no ranges of words, no empty ones."""
    words = [token for token in sentence if isinstance(token["id"], int)]
    forms, heads = [word["form"] for word in words], [word["head"] for word in words]
    if sorted(heads)[:2].count(0) != 1:
        raise ValueError("expected one word with head 0")
    counted = [word["upos"] != "PUNCT" for word in words]
    return located(sentence.metadata.get("text", " ".join(forms)), forms, heads, counted)


def located(text: str, words: list[str], heads: list[int], counted: list[bool] | None = None) -> Tree:
    """Return the tree of a sentence whose words stand in its text in their order."""
    places, start = [], 0
    for word in words:
        start = text.index(word, start)
        places.append((start, start + len(word)))
        start += len(word)
    return Tree(text, words, heads, counted or [word != "." for word in words], places)


def right_edges(tree: Tree, distances: Array) -> tuple[int, int]:
    """Return how many edges of the minimum spanning tree are edges of the dependency tree, and how many it has.

    Punctuation is left out of both. Source: Hewitt and Manning, NAACL 2019, the unlabelled attachment score (UUAS).
    """
    kept = np.flatnonzero(tree.counted)
    if len(kept) < 2:
        return 0, 0
    gold = {frozenset(pair) for pair in spanning(tree.distances[np.ix_(kept, kept)])}
    found = {frozenset(pair) for pair in spanning(distances[np.ix_(kept, kept)])}
    return len(gold & found), len(gold)


def spanning(distances: Array) -> list[tuple[int, int]]:
    """Return the edges of the minimum spanning tree of a matrix of distances."""
    tree = minimum_spanning_tree(distances + 1e-9 * (1 - np.eye(len(distances)))).tocoo()
    return [(int(a), int(b)) for a, b in zip(tree.row, tree.col, strict=True)]


def spearman(found: Array, truth: Array) -> Array:
    """Return Spearman's correlation of each row (N, k) with that of the truth, NaN where one is constant: (N)."""
    ranks = [rankdata(rows, axis=1) for rows in (found, truth)]
    ours, theirs = (row - row.mean(axis=1, keepdims=True) for row in ranks)
    size = np.sqrt((ours**2).sum(1) * (theirs**2).sum(1))
    return np.divide((ours * theirs).sum(1), size, out=np.full(len(size), np.nan), where=size > 0)


def measures(trees: Iterable[Tree], distances: Iterable[Array], depths: Iterable[Array]) -> dict[str, float]:
    """Return the measures of Hewitt and Manning, NAACL 2019, in percent, of predicted distances and depths.

    UUAS; root accuracy, the share of sentences whose word of least depth, punctuation aside, is the root; and the means
    over the lengths 5 to 50 of the mean Spearman correlations of sentences of a length, of the distances from each word
    to the others, and of depths.
    """
    right = edges = roots = sentences = 0
    by_length: dict[str, dict[int, list[float]]] = {"distance": defaultdict(list), "depth": defaultdict(list)}
    for tree, distance, depth in zip(trees, distances, depths, strict=True):
        hits, count = right_edges(tree, distance)
        right, edges = right + hits, edges + count
        roots += int(np.where(tree.counted, depth, np.inf).argmin() == tree.heads.index(0))
        sentences += 1
        if 5 <= len(tree.words) <= 50:
            others = ~np.eye(len(tree.words), dtype=bool)
            rows = [matrix[others].reshape(len(tree.words), -1) for matrix in (distance, tree.distances)]
            by_length["distance"][len(tree.words)] += spearman(*rows).tolist()
            by_length["depth"][len(tree.words)] += spearman(depth[None], tree.depths[None]).tolist()
    result = {"uuas": right / edges, "root": roots / sentences}
    for name, lengths in by_length.items():
        known = [[value for value in values if not np.isnan(value)] for values in lengths.values()]
        result[name] = float(np.mean([np.mean(values) for values in known if values])) if any(known) else 0.0
    return {name: 100 * value for name, value in result.items()}
