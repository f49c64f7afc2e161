"""Complete a knowledge graph in hyperbolic space: HyboNet (Chen et al., ACL 2022), its relatives and Euclidean twins.

    python examples/kg_completion.py                                     the bundled Nations, in two minutes
    python examples/kg_completion.py --config examples/kg_completion/wn18rr-32.json --data wn18rr --out runs/wn18rr

`--data` is what `relsim ingest` reads: a folder of train, valid and test files or of OpenKE ids. `--out` receives
result.json, and for each model and seed a folder with log.jsonl, a checkpoint (run again with `--resume` after any
interruption: the curve is the same), result.json, entities.tsv and pictures. Ranks are filtered, in both directions,
ties in the middle, all entities candidates; other protocols stand beside, named.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Results, fit, options_of, parameters, parser, report, run, steps_taken
from _completion_pictures import BINS, RADII, draw_disk, draw_training
from torch import Tensor

import lorentz.functional as LF
from lorentz.diagnostics import max_radius, radius_histogram
from lorentz.evaluation import KnownTails, Pairs, Ranking, both_directions, metrics, protocols, rank_tails
from lorentz.models import (
    EuclideanHyboNet,
    EuclideanMuRE,
    EuclideanRotE,
    EuclideanScorer,
    HyboNet,
    LinkScorer,
    LorentzMuRP,
    LorentzRotH,
    contrastive_loss,
    draw_negatives,
    negative_sampling_loss,
    softmax_loss,
)
from lorentz.optim import RiemannianAdam, param_groups
from relsim.data import nations
from relsim.ingest import open_kb
from relsim.kb import KB

MODELS = {
    "hybonet": HyboNet,
    "murp": LorentzMuRP,
    "roth": LorentzRotH,
    "euclidean-hybonet": EuclideanHyboNet,
    "mure": EuclideanMuRE,
    "rote": EuclideanRotE,
}
PROTOCOL = "filtered by all splits, both directions, all entities candidates, ties in the middle"
SHOWN = {"mrr": "MRR", "hits@1": "H@1", "hits@3": "H@3", "hits@10": "H@10"}
SHOWN |= {name: f"MRR {name.replace('_', ' ')}" for name in ("optimistic", "pessimistic", "head_excluded")}
SHOWN |= {"valid": "MRR validation", "largest_radius": "largest radius", "parameters": "parameters", "cpu_s": "CPU s"}


def read(path: Path | None, seed: int) -> tuple[KB, dict[str, Tensor]]:
    """Return the knowledge base and the facts (F, 3) of each split; what lacks a split holds a tenth out for it."""
    kb = open_kb(path) if path else nations()
    splits = {
        name: torch.tensor(np.stack([part.head, part.relation, part.tail], 1)) for name, part in kb.splits.items()
    }
    for k, name in enumerate(("valid", "test")):
        if not len(splits.get(name, ())):
            order = torch.randperm(len(splits["train"]), generator=torch.Generator().manual_seed(seed + k))
            splits["train"], splits[name] = (splits["train"][part] for part in order.tensor_split([-len(order) // 10]))
    return kb, splits


def batches(known: KnownTails, options: argparse.Namespace) -> Iterator[Tensor]:
    """Yield the facts (N, 3) of each step of an epoch."""
    for index in torch.randperm(len(known.facts)).to(known.facts.device).split(options.batch):
        yield known.take(index)


def loss_of(model: LinkScorer, known: KnownTails, facts: Tensor, options: argparse.Namespace) -> Tensor:
    """Return the loss of some facts of training: contrastive, or with `--softmax` or `--negatives` as they say."""
    if options.softmax:
        head, relation, tail = facts.unbind(1)
        return softmax_loss(model, head, relation, Pairs(torch.arange(len(facts), device=facts.device), tail))
    candidates = torch.randperm(model.entities)[: options.candidates or None].to(facts.device)
    if options.negatives:
        return negative_sampling_loss(model, facts, draw_negatives(facts, options.negatives, known, pool=candidates))
    weights = {"weight": options.weight, "competition": options.competition}
    return contrastive_loss(model, facts, known, candidates, **weights)


def optimiser_of(model: LinkScorer, options: argparse.Namespace) -> RiemannianAdam:
    """Return Riemannian Adam with learning rates of their own for the points, the maps and the entities' biases.

    Few steps touch a row, and all steps count in the correction of its second moment: with a decay of 0.999 its first
    hundreds of steps would be several times too long.
    """
    rates = {model.entity.weight: options.lr, model.bias.weight: options.bias_lr}
    groups = []
    for group in param_groups(model):
        for p in group["params"]:
            rate = rates.get(p, options.map_lr)
            groups.append({**group, "params": [p], "lr": rate, "peak": rate})
    return RiemannianAdam(groups, betas=(0.9, 0.99))


def schedule(step: float, options: argparse.Namespace) -> float:
    """Return the share of the learning rate after so many epochs: linear warm-up over one, then a cosine down to 0."""
    return min(1.0, step) * (1 + math.cos(math.pi * step / options.epochs)) / 2


def train(
    name: str,
    facts: dict[str, Tensor],
    every: KnownTails,
    relations: int,
    seed: int,
    options: argparse.Namespace,
) -> tuple[LinkScorer, dict[str, float]]:
    """Fit a model; return it at its best validation, and the figures of that."""
    known = KnownTails(facts["train"], every.entities)
    torch.manual_seed(seed)
    model = MODELS[name](every.entities, relations, options.dim, margin=options.margin, std=options.std)
    model = model.to(options.device)
    model.count_loops_(facts["train"])
    optimiser, steps = optimiser_of(model, options), -(-len(known.facts) // options.batch)
    validation: dict[str, Any] = {}

    def epoch() -> Tensor:
        losses = []
        for batch in batches(known, options):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * schedule((steps_taken(optimiser) + 1) / steps, options)
            optimiser.zero_grad()
            loss = loss_of(model, known, batch, options)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def score() -> float:
        validation.update(metrics(rank_tails(model, facts["valid"], every).realistic))
        validation["radii"] = radius_histogram(model.entity.weight, bins=BINS, range=RADII)[0].long().tolist()
        return float(validation["mrr"])

    folder, stop = options.out / f"{name}-{seed}", options.patience
    figures = fit(
        folder, model, optimiser, epoch, score, options,
        seed=seed, every=options.every, patience=stop, also=lambda: validation,
    )  # fmt: skip
    return model, figures


def result(ranking: Ranking, kb: KB, degree: Tensor, model: LinkScorer) -> dict[str, Any]:
    """Return what is known of a model, as JSON values."""
    radius = LF.dist0(model.entity.weight.detach())
    return {
        "protocol": PROTOCOL,
        "parameters": parameters(model),
        "norm_cap": None,
        "largest_radius": radius.max().item(),
        "beyond_max_radius": (radius > max_radius(radius.dtype)).float().mean().item(),
        "test": protocols(ranking),
        "by_relation": {
            k: {**metrics(p.realistic), "n": len(p.facts)} for k, p in ranking.by_relation(kb.relations).items()
        },
        "by_degree": {k: {**metrics(p.realistic), "n": len(p.facts)} for k, p in ranking.by_degree(degree).items()},
    }


def row(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table: those of the realistic ranks, and the MRR of the other protocols."""
    others = {name: value["mrr"] for name, value in found["test"].items() if name != "realistic"}
    more = {key: found[key] for key in ("largest_radius", "beyond_max_radius", "parameters")}
    return {**found["test"]["realistic"], **others, **more}


def write_entities(model: LinkScorer, kb: KB, path: Path) -> None:
    """Write one line per entity: its name and its coordinates."""
    with path.open("w", encoding="utf-8") as file:
        for name, row in zip(kb.entities, model.entity.weight.detach().cpu().tolist(), strict=True):
            file.write("\t".join([name, *(f"{x:.7g}" for x in row)]) + "\n")


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the options, whose defaults suit Nations."""
    options = parser(__doc__, "kg_completion", dim=16, epochs=40, seeds=1)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["hybonet", "euclidean-hybonet"])
    options.add_argument("--batch", type=int, default=64, help="facts of a step")
    options.add_argument("--candidates", type=int, default=0, help="tails that a batch draws from; 0: all")
    options.add_argument("--negatives", type=int, default=0, help="train as the paper, with so many for each fact")
    options.add_argument("--softmax", action="store_true", help="train with a softmax over all entities")
    options.add_argument("--weight", type=float, default=50.0, help="of a fact's negatives beside it")
    options.add_argument("--competition", type=float, default=0.3, help="weight of the softmax beside the contrast")
    options.add_argument("--lr", type=float, default=0.02, help="peak learning rate of the entities")
    options.add_argument("--map-lr", type=float, default=0.005, help="of the relations' maps and scales")
    options.add_argument("--bias-lr", type=float, default=0.001, help="of the entities' biases")
    options.add_argument("--std", type=float, default=1e-3, help="of the entities' coordinates at the start")
    options.add_argument("--margin", type=float, default=0.0)
    options.add_argument("--every", type=int, default=5, help="epochs between validations")
    options.add_argument("--patience", type=int, default=1000, help="stop after so many epochs without a better one")
    return options


def main() -> None:
    options = options_of(arguments())
    kb, splits = read(options.data, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    entities, relations = len(kb.entities), len(kb.relations)
    facts = {name: both_directions(part, relations).to(options.device) for name, part in splits.items()}
    every, degree = (
        KnownTails(torch.cat(list(facts.values())), entities),
        facts["train"][:, 2].bincount(minlength=entities),
    )
    print(f"{kb.source}: {entities:,} entities, {relations:,} relations, {len(splits['train']):,} training facts")
    results = Results()
    for name in options.models:
        for seed in range(options.seed, options.seed + options.seeds):
            model, figures = train(name, facts, every, relations, seed, options)
            found, folder = (
                result(rank_tails(model, facts["test"], every), kb, degree, model),
                options.out / f"{name}-{seed}",
            )
            (folder / "result.json").write_text(
                json.dumps({"model": name, "seed": seed, **figures, **found}, indent=1) + "\n"
            )
            results.setdefault(name, []).append({**figures, **row(found)})
            write_entities(model, kb, folder / "entities.tsv")
            draw_training(folder)
            if not isinstance(model, EuclideanScorer):
                draw_disk(model.entity.weight.detach(), degree.cpu(), kb.entities, folder)
    report(options.out, results, SHOWN, PROTOCOL)
    beyond = max(figures["beyond_max_radius"] for runs in results.values() for figures in runs)
    print(f"no norm cap; at most {beyond:.0%} of the entities lie beyond what float32 resolves")


if __name__ == "__main__":
    run(main)
