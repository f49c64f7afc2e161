"""The whole job on the bundled KB, with the exact answer beside the estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from relsim.data import nations
from relsim.estimators import Enumerate, RaoBlackwell
from relsim.mlp import MLPDistribution
from relsim.models import save_model
from relsim.optimising import Training
from relsim.report import shared_facts, write_report
from relsim.similar import nearest_pairs, pair_record, render_pairs, save_comparison
from relsim.storage import check_target
from relsim.training import fit

FOLDERS = {"kb": "manifest.json", "model": "model.json", "comparison": "divergence.json"}
HEADS = 10  # of 14 nations, so that something is left to the sample
LISTED = 10


def run(out: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit, compare and report the Nations KB into the folder `out`, and say how far the estimate is from the truth.

    Returns what was said, as JSON values.
    """
    for name, marker in FOLDERS.items():
        check_target(out / name, marker)
    kb = nations()
    say(f"{kb.source}: {len(kb.entities)} nations, {len(kb.relations)} relations, {len(kb.facts):,} facts")
    kb.save(out / "kb")
    model: MLPDistribution = fit(kb, training=Training(seed=seed))
    save_model(model, out / "model")
    say(f"fitted p(head, tail | relation): validation NLL {model.meta['valid_nll']:.3f} nats per fact\n")
    div = RaoBlackwell(samples=HEADS, seed=seed).divergence(model)
    save_comparison(div, out / "comparison")
    nearest = nearest_pairs(div, LISTED)
    say(render_pairs(div, nearest))
    evidence = shared_facts(kb, div, nearest_pairs(div, 100))
    write_report(div, out / "report.html", title="Relations between nations, 1950 to 1965", evidence=evidence)
    say(f"\n{out / 'report.html'}: open it in a browser\n{out / 'comparison' / 'pairs.tsv'}: all pairs\n")
    exact = Enumerate().divergence(model)
    sampled = div.stderr > 0
    deviation = np.abs(div.kl - exact.kl)[sampled] / div.stderr[sampled]
    largest, median = float(deviation.max()), float(np.median(deviation))
    say(
        f"{HEADS} of {len(kb.entities)} heads against all of them: the largest deviation of {sampled.sum():,} "
        f"estimates is {largest:.1f} standard errors, the median {median:.1f}"
    )
    return {
        "out": str(out),
        "valid_nll": model.meta["valid_nll"],
        "pairs": [pair_record(div, a, b) for a, b in nearest],
        "deviation": {"unit": "standard errors", "estimates": int(sampled.sum()), "largest": largest, "median": median},
    }
