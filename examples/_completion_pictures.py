"""The pictures of a model of knowledge-graph completion: its training, and its entities in the Poincaré disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import Tensor

import lorentz.functional as LF

RADII, BINS = (0.0, 12.0), 120  # of the histograms


def draw_training(folder: Path) -> None:
    """Draw loss and validation MRR, and the radii over training, from the log in `folder`: `training.png`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no pictures: run `pip install 'lorentz-relsim[plot]'`")
        return
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    ranked = [entry for entry in entries if "mrr" in entry]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([e["epoch"] for e in entries], [e["loss"] for e in entries], color="C1")
    left.set(xlabel="epoch")
    left.set_ylabel("training loss", color="C1")
    other = left.twinx()
    other.plot([e["epoch"] for e in ranked], [e["mrr"] for e in ranked], color="C0")
    other.set_ylabel("validation MRR", color="C0")
    radii = np.array([e["radii"] for e in ranked]).T
    right.imshow(radii, origin="lower", aspect="auto", extent=(0, entries[-1]["epoch"], *RADII), cmap="Blues")
    right.set(
        xlabel="epoch",
        ylabel="radius of the entities",
        ylim=(0, (radii.any(1).nonzero()[0].max() + 2) * RADII[1] / BINS),
    )
    figure.savefig(folder / "training.png", dpi=120)
    pyplot.close(figure)


def draw_disk(points: Tensor, degree: Tensor, names: list[str], folder: Path) -> None:
    """Draw points (E, n) in their principal plane, those of the most facts with their names: `disk.png`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    from lorentz.plot import poincare_disk, principal_plane

    plane = principal_plane(points)
    place = plane / (1 + LF.time(plane, keepdim=True))
    extent = 1.05 * place.abs().max().item()
    named = apart(place / extent, degree.argsort(descending=True, stable=True).tolist())
    axes = poincare_disk(
        plane, labels={i: names[i] for i in named}, size=max(3, 30 - 0.01 * len(plane)), color=(degree + 1).log()
    )
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
    axes.figure.savefig(folder / "disk.png", dpi=120, bbox_inches="tight")
    pyplot.close(axes.figure)


def apart(place: Tensor, order: list[int], count: int = 60) -> list[int]:
    """Return the first `count` of `order` whose places (N, 2) leave room for names: 0.15 across or 0.04 up and down."""
    chosen: list[int] = []
    for i in order:
        gap = (place[chosen] - place[i]).abs()
        if len(chosen) < count and bool(((gap[:, 0] > 0.15) | (gap[:, 1] > 0.04)).all()):
            chosen.append(i)
    return chosen
