"""What people ask of a divergence matrix: how similar, and which are nearest."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relsim.divergence import MANIFEST, Divergence
from relsim.storage import atomic_file, atomic_folder
from relsim.terminal import shown, table, with_error


class Neighbour(NamedTuple):
    """One relation near another: its name, the similarity, and the divergence each way with standard errors."""

    name: str
    similarity: float
    kl_from: float
    kl_from_stderr: float
    kl_to: float
    kl_to_stderr: float


def symmetric_kl(div: Divergence) -> NDArray[np.float64]:
    """Return max(KL(a || b), KL(b || a)), shape (R, R) (arXiv:1907.08937, Eq. 2)."""
    return np.maximum(div.kl, div.kl.T)


def similarity(div: Divergence) -> NDArray[np.float64]:
    """Return S = exp(-max(KL(a || b), KL(b || a))) in (0, 1], shape (R, R) (arXiv:1907.08937, Eq. 1 and 2)."""
    return np.exp(-np.maximum(symmetric_kl(div), 0))  # the KL of equal relations may round to less than zero


def neighbours(div: Divergence, name: str, k: int = 10) -> list[Neighbour]:
    """Return the `k` relations most similar to `name`, nearest first, itself left out.

    Raises:
        RelsimError: no relation has that name.
    """
    row = div.index(name)
    distance = symmetric_kl(div)[row]
    order = [int(j) for j in np.argsort(distance, kind="stable") if j != row][:k]
    return [
        Neighbour(
            div.relations[j],
            float(np.exp(-max(distance[j], 0))),
            float(div.kl[row, j]),
            float(div.stderr[row, j]),
            float(div.kl[j, row]),
            float(div.stderr[j, row]),
        )
        for j in order
    ]


def nearest_pairs(div: Divergence, k: int | None = None) -> list[tuple[int, int]]:
    """Return index pairs (a, b), a < b, most similar first: the first `k`, or all."""
    a, b = np.triu_indices(len(div.relations), 1)
    order = np.argsort(symmetric_kl(div)[a, b], kind="stable")[:k]
    return list(zip(a[order].tolist(), b[order].tolist(), strict=True))


def pair_record(div: Divergence, a: int, b: int) -> dict[str, Any]:
    """Return what is known of one pair: names, similarity, KL both ways with parts and standard errors, support."""
    return {
        "a": div.relations[a],
        "b": div.relations[b],
        "similarity": float(np.exp(-max(div.kl[a, b], div.kl[b, a], 0))),
        "kl_ab": float(div.kl[a, b]),
        "stderr_ab": float(div.stderr[a, b]),
        "kl_ba": float(div.kl[b, a]),
        "stderr_ba": float(div.stderr[b, a]),
        "head_ab": float(div.head[a, b]),
        "head_ba": float(div.head[b, a]),
        "tail_ab": float(div.tail[a, b]),
        "tail_ba": float(div.tail[b, a]),
        "support_a": int(div.support[a]),
        "support_b": int(div.support[b]),
    }


def save_comparison(div: Divergence, path: str | Path) -> None:
    """Write the result and, beside it in the same folder, `pairs.tsv`; the two appear together or not at all.

    Raises:
        RelsimError: as `Divergence.save`.
    """
    with atomic_folder(path, MANIFEST) as folder:
        div.save(folder)
        write_pairs(div, folder / "pairs.tsv")


def write_pairs(div: Divergence, path: str | Path) -> None:
    """Write every pair as a line of a TSV file with a heading, most similar first; it appears whole or not at all."""
    with atomic_file(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, "excel-tab", lineterminator="\n")
        for line, (a, b) in enumerate(nearest_pairs(div)):
            record = pair_record(div, a, b)
            if not line:
                writer.writerow(record)
            writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in record.values())


def render_pairs(div: Divergence, pairs: Sequence[tuple[int, int]]) -> str:
    """Return pairs as an aligned table for a terminal, with the support that tells weak evidence."""
    return render_records([pair_record(div, a, b) for a, b in pairs])


def render_records(records: Sequence[dict[str, Any]]) -> str:
    """Return pairs, each as `pair_record` gives it, as the same table."""
    rows = [
        (
            f"{pair['similarity']:.3f}",
            with_error(pair["kl_ab"], pair["stderr_ab"]),
            with_error(pair["kl_ba"], pair["stderr_ba"]),
            f"{pair['support_a']:,}",
            f"{pair['support_b']:,}",
            shown(pair["a"]),
            shown(pair["b"]),
        )
        for pair in records
    ]
    return table(("S", "KL(a||b)", "KL(b||a)", "facts a", "facts b", "a", "b"), rows)


def render_neighbours(found: Sequence[Neighbour]) -> str:
    """Return neighbours as an aligned table for a terminal; `from` is KL(relation || neighbour)."""
    rows = [
        (
            f"{n.similarity:.3f}",
            with_error(n.kl_from, n.kl_from_stderr),
            with_error(n.kl_to, n.kl_to_stderr),
            shown(n.name),
        )
        for n in found
    ]
    return table(("S", "KL from", "KL to", "relation"), rows)
