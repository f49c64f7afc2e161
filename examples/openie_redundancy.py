"""Which phrases of an open extraction say the same? Phrases that are linked to one relation have to be found.

    python examples/openie_redundancy.py                            a small file of extractions, in two minutes
    python examples/openie_redundancy.py --data combo/revised.val.json --out runs/openie

`--data` is a JSON list of extractions as COMBO has them: `h` and `t` with `id` and `instance` (classes), `r` with
`name` (the words of the phrase) and `label` (the relation that it was linked to). Entities stand for their classes
unless `--entities` is given: phrases have few facts each. A phrase counts as linked to its most frequent label; pairs
of phrases of one label are the positives. `--out` receives result.json, table.md and redundancy.png.

Beside the recall over all pairs stands its estimate from `--judgements` of them, drawn by similarity
(`relsim.judging`): what one would do where no labels are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _common import options_of, run
from _common import parser as parser_of
from _similarity import kept, start, write_result

import relsim
from relsim import baselines
from relsim.agreement import Curve, Floats, above, auc, average_precision, bootstrap, interval, precision_recall
from relsim.combining import rank_average
from relsim.errors import RelsimError
from relsim.jensen import jensen_shannon, smoothed_marginal
from relsim.judging import judge_some
from relsim.kb import KB
from relsim.scale import centred

SMALL = Path(__file__).parent / "openie_redundancy" / "small.json"  # made up of facts about cities, people and works
BASELINES = ("tail_cosine", "head_cosine", "pair_cosine", "tail_jaccard", "head_jaccard", "pair_jaccard")


def read(path: Path, at_least: int, entities: bool) -> tuple[KB, list[str]]:
    """Return the phrases with `at_least` extractions as the relations of a KB, and the label of each.

    Raises:
        RelsimError: the file is not a list of extractions, or too few phrases are left.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        facts = [(row["h"], " ".join(row["r"]["name"]), row["t"], row["r"]["label"]) for row in rows]
        count = Counter(phrase for _, phrase, _, _ in facts)
        linked: defaultdict[str, Counter[str]] = defaultdict(Counter)
        triples = []
        for head, phrase, tail, label in facts:
            if count[phrase] >= at_least:
                linked[phrase][label] += 1
                heads, tails = ([end["id"]] if entities else end["instance"] for end in (head, tail))
                triples += [(h, phrase, t) for h in heads for t in tails]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise RelsimError(f"{path}: not a JSON list of extractions ({error!r}): see --help for their form") from None
    kb = KB.from_names(triples, source=str(path))
    if len(kb.relations) < 3:
        raise RelsimError(f"{path}: {len(kb.relations)} phrases have {at_least} extractions: lower --at-least")
    return kb, [linked[phrase].most_common(1)[0][0] for phrase in kb.relations]


def word_jaccard(phrases: list[str]) -> Floats:
    """Return |words of both| / |words of either| of all pairs of phrases, (R, R): what needs no facts at all."""
    words = sorted({word for phrase in phrases for word in phrase.split()})
    has = np.array([[word in phrase.split() for word in words] for phrase in phrases], dtype=float)
    both = has @ has.T
    size = has.sum(axis=1)
    return np.asarray(both / (size[:, None] + size[None] - both))


def similarities(kb: KB, options: argparse.Namespace) -> dict[str, Floats]:
    """Return every similarity by name, (R, R) each."""
    scores = {f"baseline: {' '.join(reversed(name.split('_')))}": getattr(baselines, name)(kb) for name in BASELINES}
    words = word_jaccard(list(kb.relations))
    scores["baseline: Jaccard of words"] = words

    def compare() -> dict[str, np.ndarray]:
        model = relsim.fit_counts(kb, options.seed)
        div = relsim.RaoBlackwell(samples=options.heads, seed=options.seed).divergence(model, progress=options.progress)
        return {"kl": div.kl, "stderr": div.stderr}

    kl = kept(options.out / "kl.npz", compare)["kl"]
    heads, tails = (jensen_shannon(smoothed_marginal(kb, end, 0.1)) for end in ("head", "tail"))
    both = (heads + tails) / 2
    ours = {"KL max": np.maximum(kl, kl.T), "KL mean": (kl + kl.T) / 2, "JS of heads and tails": both}
    scores |= {f"counts: {name}": -distance for name, distance in ours.items()}
    scores |= {f"counts: {name}, centred": -centred(distance) for name, distance in ours.items()}
    cosine = (scores["baseline: cosine head"] + scores["baseline: cosine tail"]) / 2
    rivals = {"mean of cosines": cosine, "jaccard pair": scores["baseline: jaccard pair"]}
    for name, rival in rivals.items():  # the same recipes on rivals
        scores[f"control: {name}, centred"] = -centred(-rival)
        scores[f"control: {name} + words"] = rank_average([rival, words])
    return scores | {"JS of heads and tails, centred + words": rank_average([-centred(both), words])}


def estimates(positive: np.ndarray, score: Floats, options: argparse.Namespace) -> list[dict[str, float]]:
    """Return, at a few thresholds, the recall over all pairs and its estimates from some, repeated with other draws."""
    ranks = above(rank_average([score]))
    rows = []
    for share in (0.005, 0.02, 0.1):
        taken = ranks >= np.quantile(ranks, 1 - share)
        row = {"share_taken": share, "recall": float(taken[positive].mean())}
        for name, chance in (("by similarity", ranks**4), ("evenly", np.ones_like(ranks))):
            draws = [judge_some(chance, positive.__getitem__, options.judgements, seed=s) for s in range(200)]
            found = np.array([judgement.recall(taken) for judgement in draws])
            found = found[~np.isnan(found[:, 0])]
            row |= {f"mean, {name}": float(found[:, 0].mean()), f"deviation, {name}": float(found[:, 0].std())}
            held = np.abs(found[:, 0] - row["recall"]) <= 1.96 * found[:, 1]
            row[f"95 % interval holds it, {name}"] = float(held.mean())
        rows.append(row)
    return rows


def at_recall(curve: Curve, grid: np.ndarray) -> np.ndarray:
    """Return the best precision at each recall of the grid or above it, (draws, grid)."""
    precision, recall = np.atleast_2d(curve.precision), np.atleast_2d(curve.recall)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    places = [np.searchsorted(row, grid).clip(max=precision.shape[1] - 1) for row in recall]
    return np.take_along_axis(best, np.array(places), axis=1)


def draw(gold: np.ndarray, scores: Mapping[str, Floats], names: list[str], options: argparse.Namespace) -> None:
    """Draw precision against recall with 95 % bands from resampled phrases."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    grid = np.linspace(0.01, 1, 100)
    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")

    def precision(positive: Any, score: Any, weight: Any) -> Floats:
        return at_recall(precision_recall(positive, score, weight), grid)

    for name in names:
        drawn = bootstrap(gold, {name: scores[name]}, precision, draws=options.draws, seed=options.seed)[name]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        middle = at_recall(precision_recall(above(gold), above(scores[name])), grid)[0]
        (line,) = axes.plot(grid, middle, label=name)
        axes.fill_between(grid, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="recall", ylabel="precision at this recall or more", ylim=(0, 1))
    axes.legend(fontsize="x-small")
    figure.savefig(options.out / "redundancy.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__, "openie_redundancy", dim=64, epochs=20, seeds=3)
    parser.add_argument("--at-least", type=int, default=3, help="extractions of a phrase that is compared")
    parser.add_argument("--entities", action="store_true", help="compare entities, not their classes")
    parser.add_argument("--heads", type=int, default=400, help="heads that the estimator evaluates at most")
    parser.add_argument("--judgements", type=int, default=300, help="pairs that are judged for the estimate of recall")
    parser.add_argument("--draws", type=int, default=500, help="resamples")
    options, began = options_of(parser), time.process_time()
    start(options)
    kb, labels = read(options.data or SMALL, options.at_least, options.entities)
    named = np.array(labels)
    gold = named[:, None] == named[None]
    np.fill_diagonal(gold, False)
    positive = above(gold)
    if not positive.any():
        raise RelsimError(f"{kb.source}: no two phrases have one label: lower --at-least")
    print(
        f"{len(named)} phrases of {len(set(labels))} labels, {int(positive.sum())} of {len(positive):,} pairs to find"
    )
    scores = similarities(kb, options)
    drawn = bootstrap(gold, scores, average_precision, draws=options.draws, seed=options.seed)
    table: dict[str, dict[str, Any]] = {}
    for name, score in scores.items():
        curve = precision_recall(positive, above(score))
        value = {"auc": float(auc(positive, above(score))), "ap": float(average_precision(positive, above(score)))}
        table[name] = {**value, "ap_interval": interval(drawn[name]), "f1": float(curve.f1.max())}
    order = sorted(table, key=lambda name: -table[name]["ap"])
    lines = ["| similarity | AUC | AP (95 %) | best F1 |", "|---|---|---|---|"]
    for name in order:
        low, high = table[name]["ap_interval"]
        row = table[name]
        lines.append(f"| {name} | {row['auc']:.3f} | {row['ap']:.3f} ({low:.2f} to {high:.2f}) | {row['f1']:.3f} |")
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")
    ours = next(name for name in order if not name.startswith(("baseline", "control")))
    rivals = [name for name in order if name.startswith(("baseline", "control"))][:3]
    lead = {name: float((drawn[ours] > drawn[name]).mean()) for name in rivals}
    recall = estimates(positive, scores[ours], options)
    draw(gold, scores, [ours, *rivals, "counts: KL max"], options)
    result = {"phrases": len(named), "positives": int(positive.sum()), "table": table, "best": ours}
    write_result(options, {**result, "share_of_resamples_ahead_in_ap": lead, "recall_estimates": recall}, began)


if __name__ == "__main__":
    run(main)
