r"""Which relation holds between h and t? Wrong relations to train against, drawn by similarity, evenly or by frequency.

    python examples/relation_prediction.py                                   the bundled Nations, in two minutes
    python examples/relation_prediction.py --data fb15k-237 --seeds 5 --dim 32 --epochs 10 --batch 2048 \
        --alphas 50:5 20:2 5:0.5 20:20 --heads 150 --out runs/prediction

A scorer s(h, r, t) is trained to tell r from `--negatives` wrong relations: softmax over r and those, of which known
training facts are left out. Similar relations are drawn with p proportional to S^(1 / alpha), alpha falling from START
to END (`relsim.sampling`); among `--alphas` validation chooses, for each scorer, at the first seed. Ranks are among all
relations, filtered by all splits, ties in the middle. `--out` receives a file for each training, which `--resume` does
not repeat, result.json, table.md and errors.png: at which rank of similarity to r do the wrong answers lie?
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import options_of, run
from _common import parser as parser_of
from _prediction import Hybo, Known, TransE
from _similarity import kept, knowledge_base, start, write_result
from scipy.stats import ttest_rel
from torch import Tensor, nn
from tqdm import tqdm

import relsim
from lorentz.evaluation import metrics
from lorentz.optim import RiemannianAdam, param_groups
from relsim.errors import RelsimError
from relsim.kb import KB
from relsim.sampling import SimilarityNegativeSampler, annealed
from relsim.similar import symmetric_kl
from relsim.storage import atomic_file, read_json, write_json

EVALUATED = 256  # pairs (h, t) whose scores under all relations are held at once
RANKS = (1, 2, 4, 11, 51)  # where the groups of similarity ranks begin


SCORERS: dict[str, Callable[[int, int, int], nn.Module]] = {"transe": TransE, "hybonet": Hybo}


@dataclass
class Task:
    """The facts (F, 3) of each split, what is known of them, and the divergences that negatives are drawn by."""

    kb: KB
    facts: dict[str, Tensor]
    train_known: Known
    all_known: Known
    distance: np.ndarray


def task_of(kb: KB, options: argparse.Namespace) -> Task:
    """Split the KB where it is not, and compare its relations by their smoothed counts in the training facts."""
    splits = dict(kb.splits)
    for name, seed in (("valid", 0), ("test", 1)):
        if not len(splits.get(name, ())):
            held = np.random.default_rng(seed).random(len(splits["train"])) < 0.1
            splits[name], splits["train"] = splits["train"].take(held), splits["train"].take(~held)
    kb = KB(kb.entities, kb.relations, splits, kb.source)

    def compare() -> dict[str, np.ndarray]:
        estimator = relsim.RaoBlackwell(samples=options.heads)
        return {"kl": symmetric_kl(estimator.divergence(relsim.fit_counts(kb), progress=options.progress))}

    sizes = len(kb.entities), len(kb.relations)
    facts = {
        name: torch.from_numpy(np.stack([part.head, part.relation, part.tail], axis=1)) for name, part in splits.items()
    }
    distance = kept(options.out / "kl.npz", compare)["kl"]
    return Task(kb, facts, Known(kb.train, *sizes), Known(kb.facts, *sizes), distance)


def draws(task: Task, strategy: str, options: argparse.Namespace) -> Callable[[Tensor, float], Tensor]:
    """Return what draws wrong relations (B, k) for right ones (B,), given how much of the training is done.

    Strategies: `uniform`, `frequency`, or `START:END` for similarity, alpha falling from one to the other.
    """
    relations, k = len(task.kb.relations), options.negatives
    frequency = task.facts["train"][:, 1].bincount(minlength=relations).double()
    if strategy in ("uniform", "frequency"):
        weight = torch.ones_like(frequency) if strategy == "uniform" else frequency
        return lambda r, done: torch.multinomial(weight, len(r) * k, replacement=True).reshape(-1, k)
    first, last = (float(part) for part in strategy.split(":"))
    sampler = SimilarityNegativeSampler(task.distance)

    def by_similarity(r: Tensor, done: float) -> Tensor:
        sampler.alpha = annealed(first, last, int(1000 * done), 1000)
        return sampler.sample(r, k)

    return by_similarity


def train(task: Task, scorer: str, strategy: str, seed: int, options: argparse.Namespace) -> nn.Module:
    """Return a scorer trained on softmax over the right relation and `negatives` wrong ones."""
    torch.manual_seed(seed)
    model = SCORERS[scorer](len(task.kb.entities), len(task.kb.relations), options.dim)
    draw, facts = draws(task, strategy, options), task.facts["train"]
    optimiser = RiemannianAdam(param_groups(model), lr=options.lr)
    batches = -(-len(facts) // options.batch)
    steps, step = options.epochs * batches, 0
    hidden = None if options.progress is None else not options.progress
    with tqdm(total=steps, desc=f"{scorer} {strategy} seed {seed}", disable=hidden, leave=False) as bar:
        for _ in range(options.epochs):
            for rows in torch.randperm(len(facts)).split(options.batch):
                h, r, t = facts[rows].T
                wrong = draw(r, step / steps)
                score = model(h, torch.cat([r[:, None], wrong], dim=1), t)
                holds = task.train_known.of(h, t).gather(1, wrong)
                score = torch.cat([score[:, :1], score[:, 1:].masked_fill(holds, -torch.inf)], dim=1)
                for group in optimiser.param_groups:
                    group["lr"] = options.lr * (1 - step / steps)
                optimiser.zero_grad()
                F.cross_entropy(score, torch.zeros(len(rows), dtype=torch.int64)).backward()
                optimiser.step()
                step += 1
                bar.update()
    return model


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, split: str) -> tuple[Tensor, Tensor]:
    """Return the filtered realistic rank of each fact's relation among all, (F,), and the relation that ranks first."""
    every = torch.arange(len(task.kb.relations))
    ranks, first = [], []
    for h, r, t in (part.T for part in task.facts[split].split(EVALUATED)):
        score = model(h, every.expand(len(h), -1), t)
        right = score.gather(1, r[:, None])
        others = task.all_known.of(h, t).scatter(1, r[:, None], False)
        score = score.masked_fill(others, -torch.inf)
        above, ties = (score > right).sum(1), (score == right).sum(1) - 1
        ranks.append(1 + above + ties / 2)
        first.append(score.argmax(1))
    return torch.cat(ranks), torch.cat(first)


def similarity_ranks(task: Task, right: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return the rank of each wrong answer by nearness to the right relation, 1 for the nearest, (W,)."""
    distance = task.distance + np.diag(np.full(len(task.distance), np.inf))
    rank = np.argsort(np.argsort(distance, axis=1, kind="stable"), axis=1) + 1
    wrong = right != answer
    return np.asarray(rank[right[wrong], answer[wrong]])


def shares(ranks: np.ndarray) -> list[float]:
    """Return which share of the ranks lies in each of the groups that begin at RANKS."""
    return (np.bincount(np.searchsorted(RANKS, ranks, side="right") - 1, minlength=len(RANKS)) / len(ranks)).tolist()


def trained(task: Task, scorer: str, strategy: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of one training, from its file where it is there."""
    path = options.out / f"{scorer}-{strategy.replace(':', '-')}-{seed}.json"
    if path.exists():
        return read_json(path, "result")
    began = time.process_time()
    model = train(task, scorer, strategy, seed, options)
    result: dict[str, Any] = {"scorer": scorer, "strategy": strategy, "seed": seed}
    result["valid"] = metrics(evaluate(model, task, "valid")[0])
    ranks, answer = evaluate(model, task, "test")
    right = task.facts["test"][:, 1].numpy()
    result |= {"test": metrics(ranks), "cpu_s": time.process_time() - began}
    result["similarity_rank_shares"] = shares(similarity_ranks(task, right, answer.numpy()))
    with atomic_file(path) as scratch:
        write_json(scratch, result)
    return result


def strategies_of(task: Task, scorer: str, options: argparse.Namespace) -> tuple[list[str], dict[str, float]]:
    """Return uniform, frequency and the alphas with the best validation Hits@1, and that of all alphas."""
    found = {a: trained(task, scorer, a, options.seed, options)["valid"]["hits@1"] for a in options.alphas}
    return ["uniform", "frequency", max(found, key=lambda a: found[a])], found


def compared(results: list[dict[str, Any]], strategies: list[str]) -> dict[str, Any]:
    """Return the mean and standard error of each strategy, and the paired differences of similarity from the others."""
    summary: dict[str, Any] = {}
    for key in ("hits@1", "mrr"):
        values = {s: np.array([r["test"][key] for r in results if r["strategy"] == s]) for s in strategies}
        many = len(values["uniform"]) > 1
        for name, v in values.items():
            error = float(v.std(ddof=1) / len(v) ** 0.5) if many else None
            summary.setdefault(name, {})[key] = {"mean": float(v.mean()), "stderr": error}
        for rival in strategies[:2]:
            gap = values[strategies[2]] - values[rival]
            entry: dict[str, Any] = {"mean": float(gap.mean())}
            if many:
                entry["stderr"] = float(gap.std(ddof=1) / len(gap) ** 0.5)
            if np.ptp(gap) > 1e-9:  # else there is nothing to test
                entry["p"] = float(ttest_rel(values[strategies[2]], values[rival]).pvalue)
            summary.setdefault(f"{strategies[2]} less {rival}", {})[key] = entry
    return summary


def markdown(summaries: dict[str, dict[str, Any]]) -> str:
    lines = ["| scorer | negatives | filtered Hits@1 | MRR |", "|---|---|---|---|"]

    def cell(entry: dict[str, Any]) -> str:
        tail = f" ± {entry['stderr']:.4f}" if entry.get("stderr") is not None else ""
        return f"{entry['mean']:.4f}{tail}" + (f" (p {entry['p']:.3f})" if "p" in entry else "")

    for scorer, summary in summaries.items():
        for name, row in summary.items():
            lines.append(f"| {scorer} | {name} | {cell(row['hits@1'])} | {cell(row['mrr'])} |")
    return "\n".join(lines) + "\n"


def by_chance(task: Task) -> list[float]:
    """Return the shares that wrong answers would have if they were drawn by their frequency in training."""
    frequency = task.facts["train"][:, 1].bincount(minlength=len(task.kb.relations)).double().numpy()
    right = task.facts["test"][:, 1].numpy()
    answer = np.random.default_rng(0).choice(len(frequency), len(right), p=frequency / frequency.sum())
    return shares(similarity_ranks(task, right, answer))


def draw(errors: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Draw where wrong answers lie in the order of similarity to the right relation."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    width = 0.8 / len(errors)
    for k, (name, values) in enumerate(errors.items()):
        axes.bar(np.arange(len(RANKS)) + k * width, values, width, label=name)
    names = [*(f"{a} to {b - 1}" if b - a > 1 else str(a) for a, b in pairwise(RANKS)), "51 on"]
    axes.set_xticks(np.arange(len(RANKS)) + 0.4 - width / 2, names)
    axes.set(xlabel="rank of the wrong answer by similarity to the right relation", ylabel="share of wrong answers")
    axes.legend(fontsize="small")
    figure.savefig(options.out / "errors.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__, "relation_prediction", dim=16, epochs=10, seeds=2)
    parser.set_defaults(device="cpu")
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, default=[*SCORERS])
    parser.add_argument("--alphas", nargs="+", default=["5:0.5", "1:1"], help="START:END of alpha, in nats")
    parser.add_argument("--negatives", type=int, default=10, help="wrong relations for a fact")
    parser.add_argument("--batch", type=int, default=256, help="facts of a step")
    parser.add_argument("--lr", type=float, default=0.02, help="at the start; it falls to 0")
    parser.add_argument("--heads", type=int, default=300, help="heads that the estimator of KL evaluates at most")
    options, began = options_of(parser), time.process_time()
    for alpha in options.alphas:
        if not all(part.replace(".", "", 1).isdigit() and float(part) > 0 for part in alpha.split(":")):
            raise RelsimError(f"--alphas {alpha}: expected START:END, both positive, such as 20:2")
    if options.device != "cpu":
        raise RelsimError(f"--device {options.device}: this experiment runs on cpu: leave --device out")
    start(options)
    task = task_of(knowledge_base(options.data), options)
    summaries, searched, results = {}, {}, []
    errors = {"drawn by frequency": by_chance(task)}
    for scorer in options.scorers:
        strategies, searched[scorer] = strategies_of(task, scorer, options)
        mine = [
            trained(task, scorer, strategy, seed, options)
            for seed in range(options.seed, options.seed + options.seeds)
            for strategy in strategies
        ]
        summaries[scorer] = compared(mine, strategies)
        for strategy in (strategies[0], strategies[2]):
            rows = [r["similarity_rank_shares"] for r in mine if r["strategy"] == strategy]
            errors[f"{scorer}, {strategy}"] = np.mean(rows, axis=0).tolist()
        results += mine
    text = markdown(summaries)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text + "validation Hits@1 by alpha: " + json.dumps(searched))
    draw(errors, options)
    found = {"summary": summaries, "validation_hits1_by_alpha": searched, "trainings": results}
    protocol = "filtered by all splits, all relations candidates, ties in the middle"
    write_result(options, {"protocol": protocol, "error_ranks": errors, "rank_groups": RANKS, **found}, began)


if __name__ == "__main__":
    run(main)
