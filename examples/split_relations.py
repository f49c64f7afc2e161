"""A test with a known answer: relations are cut into parts, and the parts of one relation have to be found again.

    python examples/split_relations.py                                       the bundled Nations, in two minutes
    python examples/split_relations.py --data codex-m --at-least 500 --part 50 --out runs/split-codex-m

A Chinese restaurant process over the facts of each relation with `--at-least` facts cuts it into parts that share no
fact. The positives are pairs of parts of one relation. `--kinds` says which fact distributions are fitted to the cut
KB; the baselines stand beside them. Each seed is another cut. `--out` receives result.json, table.md and split.png.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from _common import options_of, run
from _common import parser as parser_of
from _similarity import NEURAL, kept, knowledge_base, start, write_result

import relsim
from relsim import baselines
from relsim.agreement import Floats, above, auc, average_precision, bootstrap, interval, precision_recall
from relsim.jensen import jensen_shannon, smoothed_marginal
from relsim.kb import KB
from relsim.scale import centred
from relsim.splitting import split_relations

BASELINES = ("tail_cosine", "head_cosine", "pair_cosine", "tail_jaccard", "head_jaccard", "pair_jaccard")


def compared(kb: KB, kind: str, seed: int, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Fit a fact distribution to the cut KB; return the parts of its divergences, (R, R), and its vectors, (R, d)."""
    if kind == "counts":
        model, vectors = relsim.fit_counts(kb, seed), {}
    else:
        scratch = options.out / f"{kind}-{seed}.training"
        model = relsim.fit(
            kb,
            model=NEURAL[kind],
            dim=options.dim,
            hidden=options.hidden,
            training=relsim.Training(epochs=options.epochs, batch=options.batch, seed=seed),
            device=options.device,
            resume=scratch,
            progress=options.progress,
        )
        shutil.rmtree(scratch, ignore_errors=True)
        vectors = {"vectors": model.relation.detach().cpu().numpy()}
    div = relsim.RaoBlackwell(samples=options.heads, seed=seed).divergence(model, progress=options.progress)
    return {"kl": div.kl, "head": div.head, "tail": div.tail, "stderr": div.stderr, **vectors}


def cosine(vectors: np.ndarray) -> Floats:
    """Return the cosines of vectors (R, d), (R, R)."""
    return baselines.vector_cosine(torch.from_numpy(vectors))


def transe_vectors(kb: KB, seed: int, options: argparse.Namespace) -> np.ndarray:
    return baselines.transe_vectors(kb, epochs=options.transe_epochs, seed=seed).cpu().numpy()


def similarities(kb: KB, seed: int, options: argparse.Namespace) -> dict[str, Floats]:
    """Return every similarity of the cut KB by name, (R, R) each; what is expensive is kept in files."""
    scores = {f"baseline: {' '.join(reversed(name.split('_')))}": getattr(baselines, name)(kb) for name in BASELINES}
    for kind in options.kinds:
        parts = kept(options.out / f"{kind}-{seed}.npz", lambda kind=kind: compared(kb, kind, seed, options))
        if "vectors" in parts:
            scores[f"baseline: cosine of {kind} vectors"] = cosine(parts["vectors"])
        scores |= {
            f"{kind}: KL max": -np.maximum(parts["kl"], parts["kl"].T),
            f"{kind}: KL min": -np.minimum(parts["kl"], parts["kl"].T),
            f"{kind}: KL mean": -(parts["kl"] + parts["kl"].T) / 2,
            f"{kind}: head KL mean": -(parts["head"] + parts["head"].T) / 2,
            f"{kind}: tail KL mean": -(parts["tail"] + parts["tail"].T) / 2,
            f"{kind}: KL mean, centred": -centred((parts["kl"] + parts["kl"].T) / 2),
        }
    if options.transe_epochs:
        transe = kept(options.out / f"transe-{seed}.npz", lambda: {"vectors": transe_vectors(kb, seed, options)})
        scores["baseline: cosine of TransE vectors"] = cosine(transe["vectors"])
    heads, tails = (
        kept(options.out / f"js-{end}-{seed}.npz", lambda end=end: {"js": jensen_shannon(smoothed_marginal(kb, end))})
        for end in ("head", "tail")
    )
    both = (heads["js"] + tails["js"]) / 2
    named = {"JS of heads": heads["js"], "JS of tails": tails["js"], "JS of heads and tails": both}
    scores |= {f"counts: {name}": -value for name, value in named.items()}
    ends = (scores["baseline: cosine head"] + scores["baseline: cosine tail"]) / 2
    controls = {"mean of cosines": ends, "mean of cosines, centred": -centred(-ends)}  # the same recipe on a rival
    scores |= {f"control: {name}": value for name, value in controls.items()}
    return scores | {"counts: JS of heads and tails, centred": -centred(both)}


def measures(gold: np.ndarray, score: Floats) -> dict[str, float]:
    """Return AUC, average precision, and precision, recall and F1 at the threshold of the best F1."""
    positive, flat = above(gold), above(score)
    curve = precision_recall(positive, flat)
    best = int(curve.f1.argmax())
    found = {"auc": float(auc(positive, flat)), "ap": float(average_precision(positive, flat))}
    at_best = {"f1": curve.f1, "precision": curve.precision, "recall": curve.recall, "threshold": curve.threshold}
    return found | {key: float(values[best]) for key, values in at_best.items()}


def ap_intervals(gold: np.ndarray, scores: Mapping[str, Floats], options: argparse.Namespace) -> dict[str, Any]:
    """Return 95 % intervals of the average precision over resampled relations."""
    drawn = bootstrap(gold, scores, average_precision, draws=options.draws, seed=options.seed)
    return {name: interval(values) for name, values in drawn.items()}


def markdown(by_seed: list[dict[str, dict[str, Any]]]) -> str:
    """Return means over the cuts, with standard deviations between them, and the AP interval of the first cut."""
    lines = [
        "| similarity | AUC | AP | 95 % of resamples, first cut | best F1 | precision | recall |",
        "|---" * 7 + "|",
    ]
    for name in sorted(by_seed[0], key=lambda name: -np.mean([table[name]["ap"] for table in by_seed])):
        cells = []
        for key in ("auc", "ap", "f1", "precision", "recall"):
            values = [table[name][key] for table in by_seed]
            cells.append(f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""))
        low, high = by_seed[0][name]["ap_interval"]
        cells.insert(2, f"{low:.2f} to {high:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(gold: np.ndarray, scores: Mapping[str, Floats], options: argparse.Namespace) -> None:
    """Draw precision against recall, and F1 against the share of pairs that are taken, for the best few."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    positive = above(gold)
    ranked = sorted(scores, key=lambda name: -float(average_precision(positive, above(scores[name]))))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in [*ranked[:5], *(n for n in ranked[5:] if n.startswith(("baseline", "control")))][:8]:
        curve = precision_recall(positive, above(scores[name]))
        taken = np.searchsorted(np.sort(-above(scores[name])), -curve.threshold, side="right") / len(positive)
        left.plot(curve.recall, curve.precision, label=name)
        right.semilogx(taken, curve.f1)
    left.set(xlabel="recall", ylabel="precision")
    right.set(xlabel="share of pairs above the threshold", ylabel="F1")
    left.legend(fontsize="x-small")
    figure.savefig(options.out / "split.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__, "split_relations", dim=32, epochs=8, seeds=2)
    parser.add_argument("--at-least", type=int, default=60, help="facts of a relation that is cut")
    parser.add_argument("--part", type=int, default=8, help="facts of a part that is kept")
    parser.add_argument("--concentration", type=float, default=1.0, help="of the process: more, and smaller, parts")
    parser.add_argument("--kinds", nargs="*", choices=[*NEURAL, "counts"], default=["mlp", "counts"])
    parser.add_argument("--heads", type=int, default=600, help="heads that the estimator evaluates at most")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, help="groups of facts in a step")
    parser.add_argument("--transe-epochs", type=int, default=50, help="of the vectors of a baseline; 0: without")
    parser.add_argument("--draws", type=int, default=500, help="resamples")
    options, began = options_of(parser), time.process_time()
    start(options)
    kb = knowledge_base(options.data)
    by_seed: list[dict[str, dict[str, Any]]] = []
    sizes = []
    for seed in range(options.seed, options.seed + options.seeds):
        cut, origin = split_relations(
            kb, at_least=options.at_least, part=options.part, concentration=options.concentration, seed=seed
        )
        gold = origin[:, None] == origin[None]
        np.fill_diagonal(gold, False)
        sizes.append({"relations": len(origin), "pairs": int(above(gold).sum()), "facts": len(cut.train)})
        print(f"cut {seed}: {sizes[-1]['pairs']} pairs to find among {len(above(gold)):,}, {len(origin)} relations")
        scores = similarities(cut, seed, options)
        table: dict[str, dict[str, Any]] = {name: dict(measures(gold, score)) for name, score in scores.items()}
        if not by_seed:
            for name, ends in ap_intervals(gold, scores, options).items():
                table[name]["ap_interval"] = ends
            draw(gold, scores, options)
        by_seed.append(table)
    text = markdown(by_seed)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")
    write_result(options, {"cuts": sizes, "tables": by_seed}, began)


if __name__ == "__main__":
    run(main)
