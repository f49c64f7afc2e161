"""What a KB holds, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from relsim.kb import KB
from relsim.terminal import shown, table


def describe(kb: KB, top: int) -> dict[str, Any]:
    """Return the counts of a KB, and the `top` relations by support, as JSON values."""
    facts, size = kb.facts, len(kb.relations)
    frequent = np.argsort(-kb.support, kind="stable")[:top]

    # facts are sorted by relation
    bounds = np.searchsorted(facts.relation, [frequent, frequent + 1])

    def distinct(column: np.ndarray, index: int) -> int:
        return len(np.unique(column[bounds[0, index] : bounds[1, index]]))

    return {
        "source": kb.source,
        "entities": len(kb.entities),
        "relations": size,
        "facts": {name: len(part) for name, part in kb.splits.items()},
        "duplicates": {name: part.total - len(part) for name, part in kb.splits.items()},
        "skipped": dict(kb.skipped),
        "few_facts": int((kb.support < 10).sum()),
        "top": [
            {
                "relation": kb.relations[r],
                "facts": int(kb.support[r]),
                "heads": distinct(facts.head, index),
                "tails": distinct(facts.tail, index),
            }
            for index, r in enumerate(frequent)
        ],
    }


def render(summary: dict[str, Any]) -> str:
    """Return what `describe` found as text for a terminal."""
    facts = ", ".join(f"{name} {count:,}" for name, count in summary["facts"].items())
    repeated = sum(summary["duplicates"].values())
    lines = [
        f"{summary['entities']:,} entities, {summary['relations']:,} relations; distinct facts: {facts}",
        f"{repeated:,} statements repeat a fact of their split; the repetitions are counted",
        f"{summary['few_facts']:,} relations have fewer than 10 facts",
        *(f"skipped {count:,} statements: {reason}" for reason, count in summary["skipped"].items()),
        "",
    ]
    rows = [(f"{r['facts']:,}", f"{r['heads']:,}", f"{r['tails']:,}", shown(r["relation"])) for r in summary["top"]]
    return "\n".join([*lines, table(("facts", "heads", "tails", "relation"), rows)])
