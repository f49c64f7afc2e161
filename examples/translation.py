"""Translation from German to English by a Transformer, hyperbolic and Euclidean.

    python examples/translation.py                                   numbers and times, written by rules in the script
    python examples/translation.py --data multi30k --dim 64 --vocabulary 4000 --tokens 1024 --out runs/multi30k
    python examples/translation.py --data deu-eng.tsv.gz --reverse   lines English<TAB>German, from English to German

Encoder and decoder are `lorentz.nn.TransformerEncoder` and `TransformerDecoder`; the twin has torch's, and as many
parameters. Translations come from a beam search, the Lorentz decoder's with its cache of keys and values, and are
measured by sacreBLEU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from _common import Results, curves, fit, options_of, parameters, parser, report, run, steps_taken
from _parallel import END, PAD, START, Numbered, Pairs, Subwords, batches, padded, read, rounded
from _recorded import MULTIPLE, Recorded
from _translator import LAYERS, Translator
from torch import Tensor, nn

from lorentz.optim import RiemannianAdam, param_groups
from relsim.errors import RelsimError

KINDS = "table: points for the subwords and the output, torch's layers between; layers: the other way round"
Batch = tuple[Tensor, Tensor]
"""Sources (N, S) with END, and targets (N, T) between START and END."""


def number(pairs: Pairs, subwords: Subwords, longest: int) -> Numbered:
    """Return the pairs as subwords, cut to the longest length."""
    sides = [subwords.encode([pair[side] for pair in pairs]) for side in (0, 1)]
    return [(source[:longest], target[:longest]) for source, target in zip(*sides, strict=True)]


def read_batches(pairs: Numbered, options: argparse.Namespace, *, shuffled: bool = False) -> Iterator[Batch]:
    """Yield batches of pairs, those of like length together; where they are recorded, in few shapes."""
    multiple = MULTIPLE if options.graphs else 1
    for rows in batches(pairs, options.tokens, shuffled=shuffled, multiple=multiple):
        sources = [[*pairs[row][0], END] for row in rows]
        targets = [[START, *pairs[row][1], END] for row in rows]
        if options.graphs:  # as many rows as fit: those too many have nothing to predict
            longest = rounded(max(1 + len(side) for row in rows for side in pairs[row]), multiple)
            missing = max(0, options.tokens // longest - len(rows))
            sources, targets = [*sources, *[[END]] * missing], [*targets, *[[START]] * missing]
        yield padded(sources, options.device, multiple), padded(targets, options.device, multiple)


def groups_of(model: Translator, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the parameters by learning rate.

    Adam moves each coordinate by the rate, Riemannian Adam the point: at `--table-rate` sqrt(n) points move as far. The
    weight of a time w is multiplied by x0 >= 1 / sqrt(c), a bias by 1: at `--time-rate` 1 both have the same effect.
    """
    groups = param_groups(model, lr=options.lr, weight_decay=options.weight_decay)
    times = {parameter for name, parameter in model.named_parameters() if name.endswith("time_weight")}
    for group in groups:
        if "manifold" in group:
            group["lr"] = options.table_rate * options.lr
            if options.table == "chart":
                del group["manifold"]
    vectors = groups[-1]
    if times:
        rate = options.time_rate * options.lr * (options.curvature / options.dim) ** 0.5
        groups.append({**vectors, "params": [p for p in vectors["params"] if p in times], "lr": rate})
        vectors["params"] = [p for p in vectors["params"] if p not in times]
    return groups


def train(
    kind: str, data: dict[str, Numbered], words: int, seed: int, options: argparse.Namespace
) -> tuple[Translator, dict[str, float]]:
    """Fit a model; return its epoch of the best validation, and the cross-entropy there."""
    torch.manual_seed(seed)
    model = Translator(kind, words, options).to(options.device)
    if options.graphs:
        model.states = Recorded(model)
    optimiser = RiemannianAdam(groups_of(model, options), betas=(0.9, 0.98))
    reduced = torch.autocast(
        torch.device(options.device).type, torch.bfloat16, enabled=options.bfloat16, cache_enabled=not options.graphs
    )

    def step(batch: Batch, rates: list[float]) -> Tensor:
        warm = min(1, (steps_taken(optimiser) + 1) / options.warmup)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * warm
        optimiser.zero_grad()
        with reduced:
            loss = model.loss(*batch, options.smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimiser.step()
        return loss.detach()

    def epoch() -> Tensor:
        rates = [group["lr"] for group in optimiser.param_groups]
        return torch.stack([step(batch, rates) for batch in read_batches(data["train"], options, shuffled=True)]).mean()

    def surprise() -> float:
        """Return the mean cross-entropy of the validation set, in nats a subword."""
        total = count = 0.0
        for source, target in read_batches(data["valid"], options):
            size = int((target[:, 1:] != PAD).sum())
            total, count = total + size * model.loss(source, target).item(), count + size
        return total / count

    figures = fit(options.out / f"{kind}-{seed}", model, optimiser, epoch, lambda: -surprise(), options, seed=seed)
    return model, {**figures, "valid": -figures["valid"], "parameters": parameters(model)}


def translations(model: Translator, pairs: Numbered, subwords: Subwords, options: argparse.Namespace) -> list[str]:
    """Return the translations of the sources in their order."""
    found = [""] * len(pairs)
    for rows in batches(pairs, options.tokens, shuffled=False):
        source = padded([[*pairs[row][0], END] for row in rows], options.device)
        for row, sentence in zip(rows, subwords.decode(model.translate(source, options.beam)), strict=True):
            found[row] = sentence
    return found


def bleu(found: list[str], pairs: Pairs) -> tuple[float, str]:
    """Return the corpus BLEU of translations in percent, and the signature of its computation."""
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(found, [[target for _, target in pairs]]).score
    return score, str(metric.get_signature())


@torch.no_grad()
def norms_by_depth(model: Translator, batch: Batch) -> dict[str, list[float]]:
    """Return the mean norm of the residual stream, of its space part, after each layer of encoder and decoder."""
    found: dict[str, list[float]] = {"encoder": [], "decoder": []}
    hooks = [
        layer.register_forward_hook(lambda _, __, x, norms=norms: norms.append(x.norm(dim=-1).mean().item()))
        for name, norms in found.items()
        for layer in getattr(model, name).layers
    ]
    model.loss(*batch)
    for hook in hooks:
        hook.remove()
    return found


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    options = parser(__doc__, "translation", dim=32, epochs=6, seeds=1)
    options.add_argument("--reverse", action="store_true", help="from English to German")
    options.add_argument("--kinds", nargs="+", choices=LAYERS, default=["lorentz", "euclidean"], help=KINDS)
    options.add_argument("--vocabulary", type=int, default=400, help="subwords of both languages")
    options.add_argument("--longest", type=int, default=100, help="subwords to which sentences are cut")
    options.add_argument("--layers", type=int, default=2, help="of the encoder, and of the decoder")
    options.add_argument("--heads", type=int, default=4)
    options.add_argument("--dropout", type=float, default=0.1)
    options.add_argument("--tokens", type=int, default=2048, help="subwords of a batch, padding counted")
    options.add_argument("--lr", type=float, default=0.003)
    options.add_argument("--warmup", type=int, default=100, help="steps in which the learning rate rises")
    options.add_argument("--weight-decay", type=float, default=0.0)
    options.add_argument("--smoothing", type=float, default=0.1, help="of labels")
    options.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient")
    options.add_argument("--beam", type=int, default=4)
    options.add_argument("--bfloat16", action="store_true", help="products in 16 bits")
    options.add_argument("--graphs", action=argparse.BooleanOptionalAction, help="record the layers; default on a GPU")
    lorentz = options.add_argument_group("the Lorentz model alone")
    lorentz.add_argument("--curvature", type=float, default=1.0, help="c of the layers, in units of 1 / n")
    lorentz.add_argument("--table-curvature", type=float, default=1.0, help="c of the table, in units of 1 / n")
    lorentz.add_argument("--spread", type=float, default=0.5, help="of the table at the start, in units of 1 / sqrt(n)")
    lorentz.add_argument("--table-rate", type=float, default=0.5, help="its learning rate, in units of --lr")
    lorentz.add_argument("--table", choices=["chart", "riemannian"], default="chart", help="its optimiser")
    lorentz.add_argument("--time-rate", type=float, default=1.0, help="of the weights of times")
    lorentz.add_argument("--values", choices=["near", "torch"], default="torch", help="where those of attention start")
    lorentz.add_argument("--radius", choices=["one", "any"], default="one", help="of queries and keys of attention")
    lorentz.add_argument("--scale", choices=["fixed", "learned"], default="learned", help="of distances in attention")
    lorentz.add_argument("--residual", choices=["sum", "centroid"], default="sum")
    return options


def prepare(options: argparse.Namespace) -> tuple[dict[str, Pairs], dict[str, Numbered], Subwords]:
    """Return the text, the text as subwords, and the subwords, which are left in `--out` as well."""
    texts = read(options.data)
    if options.reverse:
        texts = {split: [(target, source) for source, target in pairs] for split, pairs in texts.items()}
    subwords = Subwords.learn([side for pair in texts["train"] for side in pair], options.vocabulary)
    data = {split: number(pairs, subwords, options.longest) for split, pairs in texts.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "subwords.model").write_bytes(subwords.model)
    return texts, data, subwords


def main() -> None:
    options = options_of(arguments())
    on_gpu = torch.device(options.device).type == "cuda"
    options.graphs = on_gpu if options.graphs is None else options.graphs
    if options.graphs and not on_gpu:
        raise RelsimError(f"--graphs needs a GPU, got --device {options.device}: leave it out")
    if find_spec("sacrebleu") is None:
        raise RelsimError("needs sacrebleu: run `pip install 'lorentz-relsim[examples]'`")
    texts, data, subwords = prepare(options)
    print("; ".join(f"{split} {len(pairs):,}" for split, pairs in data.items()), f"pairs; {len(subwords):,} subwords")
    results, examples, depths = Results(), {}, {}
    for kind in options.kinds:
        for seed in range(options.seed, options.seed + options.seeds):
            model, figures = train(kind, data, len(subwords), seed, options)
            found = translations(model, data["test"], subwords, options)
            score, signature = bleu(found, texts["test"])
            results.setdefault(kind, []).append({**figures, "bleu": score})
            examples[f"{kind}-{seed}"] = found[:5]
            depths[f"{kind}-{seed}"] = norms_by_depth(model, next(read_batches(data["valid"], options)))
            (options.out / f"{kind}-{seed}" / "test.txt").write_text("".join(f"{line}\n" for line in found))
    shown = {"bleu": "BLEU, test", "valid": "validation, nats a subword", "parameters": "parameters", "cpu_s": "CPU s"}
    protocol = f"sacreBLEU {signature}; beam {options.beam}; the epoch of the best cross-entropy in validation"
    report(options.out, results, shown, protocol, translations=examples, norms_by_depth=depths)
    for (source, target), *found in zip(texts["test"][:3], *examples.values(), strict=False):
        print(f"\n{source}\n  reference    {target}")
        print("\n".join(f"  {name:11}  {sentence}" for name, sentence in zip(examples, found, strict=True)))
    curves(options.out, "validation, nats a subword", sign=-1)


if __name__ == "__main__":
    run(main)
