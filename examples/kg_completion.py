"""Complete a knowledge graph in hyperbolic space: HyboNet (Chen et al., ACL 2022), its relatives and Euclidean twins.

    python examples/kg_completion.py                                     the bundled Nations, in two minutes
    python examples/kg_completion.py --config examples/kg_completion/wn18rr-32.json --data wn18rr --out runs/wn18rr

`--data` is what `relsim ingest` reads: a folder of train, valid and test files or of OpenKE ids. `--out` receives
log.jsonl, a checkpoint after every epoch (run again with `--resume` after any interruption: the curve is the same),
result.json, entities.tsv and three pictures. Ranks are filtered, in both directions, ties in the middle, all entities
candidates; other protocols stand beside, named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from _common import options_of, run
from torch import Tensor
from tqdm import tqdm

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
from relsim.errors import RelsimError
from relsim.ingest import open_kb
from relsim.kb import KB
from relsim.terminal import table

MODELS = {
    "hybonet": HyboNet,
    "murp": LorentzMuRP,
    "roth": LorentzRotH,
    "euclidean-hybonet": EuclideanHyboNet,
    "mure": EuclideanMuRE,
    "rote": EuclideanRotE,
}
SETTINGS = (
    *("model", "dim", "margin", "std", "epochs", "batch", "candidates", "negatives", "softmax"),
    *("weight", "competition", "lr", "map_lr", "bias_lr", "every", "seed"),
)
RADII, BINS = (0.0, 12.0), 120  # of the histograms


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


def batches(known: KnownTails, options: argparse.Namespace, epoch: int) -> Iterator[Tensor]:
    """Yield the facts (N, 3) of each step; all that is random in an epoch follows from seed and epoch."""
    torch.manual_seed(options.seed * 1_000_003 + epoch)
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


def train_epoch(
    model: LinkScorer, optimiser: RiemannianAdam, known: KnownTails, epoch: int, options: argparse.Namespace
) -> float:
    """Take a step for each batch of facts; return the mean loss."""
    losses, steps = [], -(-len(known.facts) // options.batch)
    for k, facts in enumerate(batches(known, options, epoch)):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * schedule(epoch + (k + 1) / steps, options)
        optimiser.zero_grad()
        loss = loss_of(model, known, facts, options)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise RelsimError(f"epoch {epoch + 1}: the training diverged: lower --lr, which is {options.lr:g}")
    return mean


def train(model: LinkScorer, known: KnownTails, valid: Tensor, every: KnownTails, options: argparse.Namespace) -> None:
    """Fit the model; keep that of the best validation MRR in `best.pt`, and the state of the last epoch."""
    optimiser, state = optimiser_of(model, options), {"epoch": 0, "best": 0.0, "best_epoch": 0, "cpu_s": 0.0}
    checkpoint, log = options.out / "checkpoint.pt", options.out / "log.jsonl"
    lines: list[str] = []
    if options.resume and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
        if differing := [key for key, value in saved["settings"].items() if settings_of(options)[key] != value]:
            raise RelsimError(
                f"{checkpoint}: of a training with other {', '.join(differing)}: use the same, or remove it"
            )
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        state, lines = saved["state"], saved["log"]
        log.write_text("".join(lines))
    hidden = None if options.progress is None else not options.progress
    bar = tqdm(range(state["epoch"], options.epochs), initial=state["epoch"], total=options.epochs, disable=hidden)
    for epoch in bar:
        start = time.process_time()
        entry = {"epoch": epoch + 1, "loss": train_epoch(model, optimiser, known, epoch, options)}
        if (epoch + 1) % options.every == 0 or epoch + 1 == options.epochs:
            entry |= metrics(rank_tails(model, valid, every).realistic)
            entry["radii"] = radius_histogram(model.entity.weight, bins=BINS, range=RADII)[0].long().tolist()
            bar.set_description(f"loss {entry['loss']:.3f}, validation MRR {entry['mrr']:.3f}")
            if entry["mrr"] > state["best"]:
                state |= {"best": entry["mrr"], "best_epoch": epoch + 1}
                save(options.out / "best.pt", model.state_dict())
        state["epoch"], state["cpu_s"] = epoch + 1, state["cpu_s"] + time.process_time() - start
        lines.append(json.dumps(entry | {"cpu_s": round(state["cpu_s"], 2)}) + "\n")
        parts = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state, "log": lines}
        save(checkpoint, {**parts, "settings": settings_of(options)})
        log.write_text("".join(lines))
        if epoch + 1 - state["best_epoch"] >= options.patience:
            break
    model.load_state_dict(torch.load(options.out / "best.pt", map_location=options.device, weights_only=True))


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """Return the options that a curve depends on."""
    return {"data": str(options.data)} | {key: getattr(options, key) for key in SETTINGS}


def save(path: Path, value: object) -> None:
    """Write a file that appears whole or not at all."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def result(
    ranking: Ranking, kb: KB, degree: Tensor, model: LinkScorer, options: argparse.Namespace
) -> dict[str, object]:
    """Return what the table shows and more, as JSON values."""
    radius = LF.dist0(model.entity.weight.detach())
    return {
        "protocol": "filtered by all splits, both directions, all entities candidates, ties in the middle",
        "model": options.model,
        "dim": options.dim,
        "seed": options.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "norm_cap": None,
        "largest_radius": radius.max().item(),
        "beyond_max_radius": (radius > max_radius(radius.dtype)).float().mean().item(),
        "test": protocols(ranking),
        "by_relation": {
            k: {**metrics(p.realistic), "n": len(p.facts)} for k, p in ranking.by_relation(kb.relations).items()
        },
        "by_degree": {k: {**metrics(p.realistic), "n": len(p.facts)} for k, p in ranking.by_degree(degree).items()},
    }


def write_entities(model: LinkScorer, kb: KB, path: Path) -> None:
    """Write one line per entity: its name and its coordinates."""
    with path.open("w", encoding="utf-8") as file:
        for name, row in zip(kb.entities, model.entity.weight.detach().cpu().tolist(), strict=True):
            file.write("\t".join([name, *(f"{x:.7g}" for x in row)]) + "\n")


def draw(model: LinkScorer, kb: KB, degree: Tensor, options: argparse.Namespace) -> None:
    """Draw loss and validation MRR, the radii over training, and the entities of most facts in the disk."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no pictures: run `pip install 'lorentz-relsim[plot]'`", file=sys.stderr)
        return
    from lorentz.plot import poincare_disk, principal_plane

    entries = [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]
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
    figure.savefig(options.out / "training.png", dpi=120)
    pyplot.close(figure)
    if isinstance(model, EuclideanScorer):
        return
    plane = principal_plane(model.entity.weight.detach())
    place = plane / (1 + LF.time(plane, keepdim=True))
    extent = 1.05 * place.abs().max().item()
    named = apart(place / extent, degree.argsort(descending=True, stable=True).tolist())
    axes = poincare_disk(
        plane, labels={i: kb.entities[i] for i in named}, size=max(3, 30 - 0.01 * len(plane)), color=(degree + 1).log()
    )
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
    axes.figure.savefig(options.out / "disk.png", dpi=120, bbox_inches="tight")
    pyplot.close(axes.figure)


def apart(place: Tensor, order: list[int], count: int = 60) -> list[int]:
    """Return the first `count` of `order` whose places (N, 2) leave room for names: 0.15 across or 0.04 up and down."""
    chosen: list[int] = []
    for i in order:
        gap = (place[chosen] - place[i]).abs()
        if len(chosen) < count and bool(((gap[:, 0] > 0.15) | (gap[:, 1] > 0.04)).all()):
            chosen.append(i)
    return chosen


def arguments() -> argparse.Namespace:
    """Return the options: those of the command line, then of `--config`, then the defaults, which suit Nations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a JSON file with some of these options")
    parser.add_argument("--data", type=Path, help="a knowledge base; the bundled Nations by default")
    parser.add_argument("--model", choices=MODELS, default="hybonet")
    parser.add_argument("--dim", type=int, default=16, help="space coordinates of an entity")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64, help="facts of a step")
    parser.add_argument("--candidates", type=int, default=0, help="tails that a batch draws from; 0: all")
    parser.add_argument("--negatives", type=int, default=0, help="train as the paper, with so many for each fact")
    parser.add_argument("--softmax", action="store_true", help="train with a softmax over all entities")
    parser.add_argument("--weight", type=float, default=50.0, help="of a fact's negatives beside it")
    parser.add_argument("--competition", type=float, default=0.3, help="weight of the softmax beside the contrast")
    parser.add_argument("--lr", type=float, default=0.02, help="peak learning rate of the entities")
    parser.add_argument("--map-lr", type=float, default=0.005, help="of the relations' maps and scales")
    parser.add_argument("--bias-lr", type=float, default=0.001, help="of the entities' biases")
    parser.add_argument("--std", type=float, default=1e-3, help="of the entities' coordinates at the start")
    parser.add_argument("--margin", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=5, help="epochs between validations")
    parser.add_argument("--patience", type=int, default=1000, help="stop after so many epochs without a better one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("kg_completion"), help="folder for all that is written")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="by default on a terminal only")
    return options_of(parser)


def main() -> None:
    options = arguments()
    kb, splits = read(options.data, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    entities, relations = len(kb.entities), len(kb.relations)
    facts = {name: both_directions(part, relations).to(options.device) for name, part in splits.items()}
    known, every = KnownTails(facts["train"], entities), KnownTails(torch.cat(list(facts.values())), entities)
    torch.manual_seed(options.seed)
    model = MODELS[options.model](entities, relations, options.dim, margin=options.margin, std=options.std)
    model = model.to(options.device)
    model.count_loops_(facts["train"])
    print(f"{kb.source}: {entities:,} entities, {relations:,} relations, {len(splits['train']):,} training facts")
    train(model, known, facts["valid"], every, options)
    degree = facts["train"][:, 2].bincount(minlength=entities)
    ranking = rank_tails(model, facts["test"], every)
    outcome = result(ranking, kb, degree, model, options)
    (options.out / "result.json").write_text(json.dumps(outcome, indent=1) + "\n")
    rows = [[name, *(f"{v:.3f}" for v in value.values())] for name, value in protocols(ranking).items()]
    print(table(["test, filtered", "MRR", "H@1", "H@3", "H@10"], rows))
    beyond, largest = outcome["beyond_max_radius"], outcome["largest_radius"]
    print(f"no norm cap: the largest radius is {largest:.2f}, and {beyond:.0%} lie beyond what float32 resolves")
    write_entities(model, kb, options.out / "entities.tsv")
    draw(model, kb, degree.cpu(), options)


if __name__ == "__main__":
    run(main)
