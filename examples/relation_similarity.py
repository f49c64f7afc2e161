r"""Does a similarity of relations agree with people's? Judged pairs against KL in all its forms, and against baselines.

    python examples/relation_similarity.py                          the bundled Nations, in two minutes
    python examples/relation_similarity.py --data codex-s --test codex-m --hidden 1024 --out runs/agreement \
        --gold wikidata-properties/related_property.tsv wikidata-properties/subproperty_of.tsv

Judged pairs are the positives among all pairs of relations: AUC and average precision (AP), intervals by resampling
relations, p-values by renaming them (`relsim.agreement`). One similarity is chosen on `--data`: the simplest whose AUC
plus AP is within a standard error of the best. It is then tested on `--test`, where nothing is chosen.
`--out` receives the fitted models, result.json, table.md and agreement.png.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _common import options_of, run
from _common import parser as parser_of
from _similarity import NEURAL, kept, knowledge_base, start, write_result

import relsim
from relsim import baselines
from relsim.agreement import Floats, above, auc, average_precision, bootstrap, gold_matrix, interval, permutation_test
from relsim.combining import fit_logistic, rank_average
from relsim.errors import RelsimError
from relsim.jensen import jensen_shannon, jensen_shannon_of_facts, smoothed_marginal
from relsim.kb import KB
from relsim.models import load_model, save_model
from relsim.scale import centred

STATISTICS = {"auc": auc, "ap": average_precision}
NATIONS = Path(__file__).parent / "relation_similarity" / "nations.tsv"  # variables and their relative or scaled twins
LARGE = 100_000  # training facts; from here on fits are shorter
SHAPES: dict[bool, dict[str, Any]] = {False: {"dropout": 0.3}, True: {"hidden": 256, "dropout": 0.2}}
TRAININGS: dict[bool, dict[str, Any]] = {False: {}, True: {"batch": 1024, "table_decay": 1.0}}


def judged(kb: KB, paths: list[Path]) -> np.ndarray:
    """Return which pairs of relations the files name, (R, R): two names a line, and what else a line has is ignored."""
    pairs = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            first, *rest = line.split("\t")
            if not rest:
                raise RelsimError(f"{path}:{number}: expected two names with a TAB between them: correct the line")
            pairs.append((first, rest[0]))
    gold = gold_matrix(kb.relations, pairs)
    if not gold.any():
        raise RelsimError(f"{paths[0]}: judges no pair of the {len(kb.relations)} relations: choose another --gold")
    return gold


def model_of(kb: KB, name: str, kind: str, seed: int, options: argparse.Namespace) -> relsim.FactDistribution:
    """Return the fitted model, from its folder where it is there."""
    folder = options.out / f"{name}-{kind}-{seed}"
    if not folder.exists():
        large = len(kb.train) > LARGE
        if kind == "counts":
            save_model(relsim.fit_counts(kb, seed), folder)
        else:
            training = relsim.Training(epochs=options.large_epochs if large else options.epochs, seed=seed)
            training = relsim.Training(**{**vars(training), **TRAININGS[large]})
            scratch = folder.with_suffix(".training")
            model = relsim.fit(
                kb,
                model=NEURAL[kind],
                dim=options.dim,
                **{"hidden": options.hidden, **SHAPES[large]},
                training=training,
                device=options.device,
                resume=scratch,
                progress=options.progress,
            )
            save_model(model.cpu(), folder)
            shutil.rmtree(scratch, ignore_errors=True)
    return load_model(folder)


def divergences(model: relsim.FactDistribution, path: Path, seed: int, facts: int) -> dict[str, np.ndarray]:
    """Return KL with its parts, its standard error, and JS of facts, (R, R) each; the file keeps them."""

    def make() -> dict[str, np.ndarray]:
        div = relsim.RaoBlackwell(seed=seed).divergence(model)
        js, js_stderr = jensen_shannon_of_facts(model, facts, seed)
        return {
            "kl": div.kl,
            "stderr": div.stderr,
            "head": div.head,
            "tail": div.tail,
            "js": js,
            "js_stderr": js_stderr,
        }

    return kept(path, make)


def forms(parts: Mapping[str, np.ndarray]) -> dict[str, Floats]:
    """Return the similarities, (R, R) each, that KL matrices give: higher is more similar."""
    ways = {"max": np.maximum, "min": np.minimum, "mean": lambda a, b: (a + b) / 2}
    distances = {
        f"{part} {way}": combine(matrix, matrix.T)
        for part, matrix in (("KL", parts["kl"]), ("head KL", parts["head"]), ("tail KL", parts["tail"]))
        for way, combine in ways.items()
    }
    distances["JS"] = parts["js"]
    return {name: -d for name, d in distances.items()} | {
        f"{name}, centred": -centred(d) for name, d in distances.items()
    }


def of_models(
    kb: KB, name: str, count: int, redraws: int, options: argparse.Namespace
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Return all forms for every kind, means over the seeds, and the spread of AUC and AP by its cause."""
    gold, scores, spread = judged(kb, options.gold), {}, {}
    for kind in options.kinds:
        seeds = [0] if kind == "counts" else list(range(options.seed, options.seed + count))
        models = {seed: model_of(kb, name, kind, seed, options) for seed in seeds}
        stem = options.out / f"{name}-{kind}"
        parts = [divergences(m, Path(f"{stem}-{s}.kl.npz"), s, options.facts) for s, m in models.items()]
        redrawn = [
            divergences(models[seeds[0]], Path(f"{stem}-{seeds[0]}.redrawn{k}.npz"), 1000 + k, options.facts)
            for k in range(redraws)
        ]
        mean = {key: np.mean([part[key] for part in parts], axis=0) for key in parts[0]}
        scores |= {f"{kind}: {form}": score for form, score in forms(mean).items()}
        vectors = [m.relation for m in models.values() if hasattr(m, "relation")]
        if vectors:
            cosines = np.mean([baselines.vector_cosine(v) for v in vectors], axis=0)
            scores[f"baseline: cosine of {kind} vectors"] = cosines
        spread |= {f"{kind}: {form}": spreads(gold, parts, redrawn, form) for form in forms(mean)}
    return scores, spread


def spreads(gold: np.ndarray, parts: list[Any], redrawn: list[Any], form: str) -> dict[str, Any]:
    """Return standard deviations of AUC and AP over training seeds, and over samples of the estimator of one model."""

    def deviation(of: list[Any]) -> dict[str, float | None]:
        values = {key: [f(above(gold), above(forms(part)[form])) for part in of] for key, f in STATISTICS.items()}
        return {key: float(np.std(v, ddof=1)) if len(v) > 1 else None for key, v in values.items()}

    return {"training": deviation(parts), "monte_carlo": deviation(redrawn), "seeds": len(parts), "draws": len(redrawn)}


def of_counts(kb: KB, options: argparse.Namespace) -> dict[str, Floats]:
    """Return the baselines, and the similarities that need no model."""
    names = ("tail_cosine", "head_cosine", "pair_cosine", "tail_jaccard", "head_jaccard", "pair_jaccard")
    scores = {f"baseline: {' '.join(reversed(name.split('_')))}": getattr(baselines, name)(kb) for name in names}
    vectors = baselines.transe_vectors(kb, epochs=options.transe_epochs, seed=options.seed)
    scores["baseline: cosine of TransE vectors"] = baselines.vector_cosine(vectors)
    tails = jensen_shannon(smoothed_marginal(kb, "tail", 0.03))
    return scores | {"counts: JS of tails": -tails, "counts: JS of tails, centred": -centred(tails)}


def similarities(
    kb: KB, name: str, count: int, redraws: int, options: argparse.Namespace
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Return every similarity by name, (R, R) each, and the spreads; models are trained with `count` seeds."""
    models, spread = of_models(kb, name, count, redraws, options)
    scores = of_counts(kb, options) | models
    tails = scores["counts: JS of tails, centred"]
    pairs = {f"JS of tails + {key}": rank_average([tails, s]) for key, s in models.items() if "centred" in key}
    cosine = scores["baseline: cosine tail"]
    control = {"control: cosine tail, centred": -centred(-cosine)}  # what the correction does to the best baseline
    return scores | control | pairs, spread


def table_of(gold: np.ndarray, scores: Mapping[str, Floats], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return AUC and AP of every similarity, each with its interval and p-value."""
    table: dict[str, dict[str, Any]] = {name: {} for name in scores}
    for key, statistic in STATISTICS.items():
        drawn = bootstrap(gold, scores, statistic, draws=options.draws, seed=options.seed)
        p = permutation_test(gold, scores, statistic, draws=options.draws, seed=options.seed)
        for name, score in scores.items():
            value = float(statistic(above(gold), above(score)))
            table[name][key] = {"value": value, "interval": interval(drawn[name]), "p": p[name]}
    return table


def best_baseline(table: Mapping[str, Any], key: str) -> str:
    return max((name for name in table if name.startswith("baseline")), key=lambda name: table[name][key]["value"])


def leads(table: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return by how much a similarity exceeds the best baseline in AUC and in AP."""
    return {key: table[name][key]["value"] - table[best_baseline(table, key)][key]["value"] for key in STATISTICS}


def complexity(name: str) -> int:
    """Return 0 for what counts alone give, 1 for what a fitted distribution gives, 2 for a combination."""
    return 2 if "+" in name else 0 if name.startswith("counts: JS of tails") else 1


def chosen(gold: np.ndarray, scores: Mapping[str, Floats], table: Mapping[str, Any], draws: int) -> str:
    """Return the simplest similarity of ours whose AUC + AP is within a standard error of the best one's.

    The one-standard-error rule (Breiman et al., Classification and regression trees, 1984, section 3.4.3); of equally
    simple ones the best. The standard error is that over resampled relations.
    """
    ours = [name for name in table if not name.startswith(("baseline", "control", "logistic"))]
    total = {name: sum(table[name][key]["value"] for key in STATISTICS) for name in ours}
    best = max(ours, key=lambda name: total[name])
    drawn = [bootstrap(gold, {best: scores[best]}, f, draws=draws)[best] for f in STATISTICS.values()]
    limit = total[best] - float(np.std(sum(drawn), ddof=1))
    near = [name for name in ours if total[name] >= limit]
    return min(near, key=lambda name: (complexity(name), -total[name]))


def lead_intervals(gold: np.ndarray, scores: Mapping[str, Floats], table: Any, name: str, draws: int) -> dict[str, Any]:
    """Return the leads of one similarity over the best baseline, with intervals from common resamples."""
    result = {}
    for key, statistic in STATISTICS.items():
        rival = best_baseline(table, key)
        drawn = bootstrap(gold, {k: scores[k] for k in (name, rival)}, statistic, draws=draws)
        lead = drawn[name] - drawn[rival]
        result[key] = {"baseline": rival, "lead": leads(table, name)[key], "interval": interval(lead)}
        result[key]["share_of_resamples_ahead"] = float((lead > 0).mean())
    return result


def say(name: str, table: Mapping[str, Any], leading: Mapping[str, Any]) -> None:
    for key, lead in leading.items():
        low, high = lead["interval"]
        print(f"  {name}: {key.upper()} {table[name][key]['value']:.3f}, {lead['lead']:+.3f} on {lead['baseline']}")
        print(f"    95 % of resamples {low:+.3f} to {high:+.3f}; ahead in {lead['share_of_resamples_ahead']:.0%}")


def markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables of all KBs side by side, in Markdown."""
    heading = "| similarity |" + "".join(f" AUC on {kb} | AP on {kb} |" for kb in tables)
    lines = [heading, "|---" * (1 + 2 * len(tables)) + "|"]

    def cell(entry: Any) -> str:
        low, high = entry["interval"]
        return f" {entry['value']:.3f} ({low:.2f} to {high:.2f}), p {entry['p']:.4f} |"

    for name in next(iter(tables.values())):
        cells = "".join(cell(table[name][key]) for table in tables.values() if name in table for key in STATISTICS)
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines) + "\n"


def draw(tables: Mapping[str, Mapping[str, Any]], rows: list[str], path: Path) -> None:
    """Draw AUC and AP of some similarities with their intervals."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 1 + 0.3 * len(rows)), sharey=True, layout="constrained")
    for axis, key in zip(axes, STATISTICS, strict=True):
        for k, (kb, table) in enumerate(tables.items()):
            place = np.arange(len(rows)) + 0.3 * (k - (len(tables) - 1) / 2)
            value = np.array([table[name][key]["value"] for name in rows])
            ends = np.array([table[name][key]["interval"] for name in rows])
            error = np.maximum([value - ends[:, 0], ends[:, 1] - value], 0)
            axis.errorbar(value, place, xerr=error, fmt="o", ms=4, capsize=2, label=kb)
        axis.set(xlabel={"auc": "AUC", "ap": "average precision"}[key])
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__, "relation_similarity", dim=64, epochs=20, seeds=2)
    parser.add_argument("--test", type=Path, help="another KB, for the similarity that was chosen on --data")
    parser.add_argument("--test-seeds", type=int, help="how many seeds on --test; as many by default")
    parser.add_argument("--gold", type=Path, nargs="+", default=[NATIONS], help="judged pairs, two names a line")
    parser.add_argument("--kinds", nargs="+", choices=[*NEURAL, "counts"], default=[*NEURAL, "counts"])
    parser.add_argument("--large-epochs", type=int, default=6, help=f"for KBs of more than {LARGE:,} training facts")
    parser.add_argument("--transe-epochs", type=int, default=50)
    parser.add_argument("--hidden", type=int, default=128, help="width of the hidden layers, of KBs that are not large")
    parser.add_argument("--facts", type=int, default=50, help="facts drawn of each relation, for the JS divergence")
    parser.add_argument("--redraws", type=int, default=2, help="samples of the estimator on --data, for its variance")
    parser.add_argument("--draws", type=int, default=2000, help="resamples, and renamings of the relations")
    options, began = options_of(parser), time.process_time()
    start(options)
    tables, spread, leading, fitted, name = {}, {}, {}, None, ""
    for path in [options.data] + ([options.test] if options.test else []):
        kb = knowledge_base(path)
        label = path.name if path else "nations"
        gold = judged(kb, options.gold)
        print(
            f"{label}: {int(above(gold).sum())} judged pairs among {len(above(gold)):,}, {len(kb.relations)} relations"
        )
        first = not tables
        count = options.seeds if first or not options.test_seeds else options.test_seeds
        scores, spread[label] = similarities(kb, label, count, options.redraws if first else 0, options)
        features = [s for key, s in scores.items() if "centred" in key and "JS of tails +" not in key]
        if options.test:
            fitted = fitted or fit_logistic(features, gold, ridge=10.0)
            scores["logistic, fitted on " + next(iter([*tables, label]))] = fitted(features)
        tables[label] = table_of(gold, scores, options)
        name = name or chosen(gold, scores, tables[label], options.draws)
        leading[label] = lead_intervals(gold, scores, tables[label], name, options.draws)
        say(name, tables[label], leading[label])
    (options.out / "table.md").write_text(markdown(tables), encoding="utf-8")
    write_result(options, {"chosen": name, "lead": leading, "tables": tables, "spread": spread}, began)
    shown = [row for row in next(iter(tables.values())) if row.startswith(("baseline", "control", "counts: JS of t"))]
    rows = dict.fromkeys([*shown, *(f"{kind}: KL max" for kind in options.kinds), name])
    draw(tables, list(rows), options.out / "agreement.png")


if __name__ == "__main__":
    run(main)
