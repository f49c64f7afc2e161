"""Knowledge bases that grow, and several side by side: one numbering of names for facts from different sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.kb import KB, SPLITS, Triples


def align(*kbs: KB) -> list[KB]:
    """Return the same KBs over one list of entities and one of relations, so that equal numbers mean equal names.

    Names are numbered as in the first KB, then those that the second adds, and so on. Models of aligned KBs have tables
    of the same rows, and their relations can be compared by name.
    """
    entities, of_entity = _united([kb.entities for kb in kbs])
    relations, of_relation = _united([kb.relations for kb in kbs])
    return [_renumbered(kb, entities, relations, e, r) for kb, e, r in zip(kbs, of_entity, of_relation, strict=True)]


def side_by_side(**kbs: KB) -> KB:
    """Return one KB that holds the relations of each under a name of its own: `a: born in` beside `b: born in`.

    Entities of the same name are the same. One model of it then compares relations across the KBs: to what does the
    `born in` of one correspond in the other?

        relsim.side_by_side(dbpedia=dbpedia, wikidata=wikidata)
    """
    if not kbs:
        raise RelsimError("side_by_side: expected one KB or more, each under a keyword")
    apart = [replace(kb, relations=[f"{name}: {relation}" for relation in kb.relations]) for name, kb in kbs.items()]
    aligned = align(*apart)
    splits = {
        split: Triples.concat(kb.splits[split] for kb in aligned if split in kb.splits)
        for split in SPLITS
        if any(split in kb.splits for kb in aligned)
    }
    source = ", ".join(f"{name}: {kb.source}" for name, kb in kbs.items())
    return KB(aligned[0].entities, aligned[0].relations, splits, source)


def updated(kb: KB, new: KB, *, distinct: bool = False) -> tuple[KB, int]:
    """Return `kb` with all facts of `new` among its training facts, and how many distinct ones were left out.

    Numbers of names stay, and new names follow. Counts of equal facts add up, or are 1 where `distinct`. What `kb`
    holds out for validation or test is left out, since a model that saw it in training could not be judged by it.
    """
    base, addition = align(kb, new)
    facts = addition.facts
    held_out = contains(Triples.concat([base.valid, base.test]), facts)
    train = Triples.concat([base.train, facts.take(~held_out)])
    skipped = {**kb.skipped, **{reason: kb.skipped.get(reason, 0) + n for reason, n in new.skipped.items()}}
    splits = {**base.splits, "train": train.distinct() if distinct else train}
    return replace(base, splits=splits, skipped=skipped), int(np.count_nonzero(held_out))


def contains(facts: Triples, candidates: Triples) -> NDArray[np.bool_]:
    """Return which of the candidates are among the facts."""
    rows = [np.stack([t.relation, t.head, t.tail], axis=1) for t in (facts, candidates)]
    _, number = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    known = np.zeros(number.max(initial=-1) + 1, bool)
    known[number[: len(facts)]] = True
    return known[number[len(facts) :]]


def _united(lists: Sequence[Sequence[str]]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Return all names in the order of their first appearance, and for each list the positions of its names there."""
    index: dict[str, int] = {}
    positions = [np.array([index.setdefault(name, len(index)) for name in names], np.int64) for names in lists]
    return list(index), positions


def _renumbered(
    kb: KB, entities: list[str], relations: list[str], entity: NDArray[np.int64], relation: NDArray[np.int64]
) -> KB:
    splits = {
        name: Triples.from_columns(entity[part.head], relation[part.relation], entity[part.tail], part.count)
        for name, part in kb.splits.items()
    }
    return replace(kb, entities=entities, relations=relations, splits=splits)
