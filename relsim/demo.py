"""The whole job on the bundled KB, with the exact answer beside the estimate."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from relsim.data import nations
from relsim.estimators import Enumerate, RaoBlackwell
from relsim.models import save_model
from relsim.report import shared_facts, write_report
from relsim.similar import nearest_pairs, render_pairs, write_pairs
from relsim.training import Training, fit

HEADS = 10  # of 14 nations, so that something is left to the sample
LISTED = 10


def run(out: Path, seed: int) -> None:
    """Fit, compare and report the Nations KB into the folder `out`, and say how far the estimate is from the truth."""
    kb = nations()
    click.echo(f"{kb.source}: {len(kb.entities)} nations, {len(kb.relations)} relations, {len(kb.facts):,} facts")
    kb.save(out / "kb")
    model = fit(kb, training=Training(seed=seed))
    save_model(model, out / "model")
    click.echo(f"fitted p(head, tail | relation): validation NLL {model.meta['valid_nll']:.3f} nats per fact\n")
    div = RaoBlackwell(samples=HEADS, seed=seed).divergence(model)
    div.save(out / "comparison")
    write_pairs(div, out / "comparison" / "pairs.tsv")
    click.echo(render_pairs(div, nearest_pairs(div, LISTED)))
    evidence = shared_facts(kb, div, nearest_pairs(div, 100))
    write_report(div, out / "report.html", title="Relations between nations, 1950 to 1965", evidence=evidence)
    click.echo(f"\n{out / 'report.html'}: open it in a browser\n{out / 'comparison' / 'pairs.tsv'}: all pairs\n")
    exact = Enumerate().divergence(model)
    sampled = div.stderr > 0
    deviation = np.abs(div.kl - exact.kl)[sampled] / div.stderr[sampled]
    click.echo(
        f"{HEADS} of {len(kb.entities)} heads against all of them: the largest deviation of {sampled.sum():,} "
        f"estimates is {deviation.max():.1f} standard errors, the median {np.median(deviation):.1f}"
    )
