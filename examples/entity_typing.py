"""Say what a name means in its sentence, from person and place down to composer and river: fine-grained entity typing.

    python examples/entity_typing.py                                             a small set written from facts
    python examples/entity_typing.py --data open-entity --dim 64 --epochs 20 --out runs/open-entity

`--data` is a folder with train.json, dev.json and test.json in the format of Choi et al. (ACL 2018): one mention a line
with `mention_span`, `left_context_token`, `right_context_token` and its types `y_str`. A word is the centroid of the
points of its form, its ends and its shape; the mention is the centroid of its words and attends to the words around it;
a type is a point, likely where the mention is near. Types that training has not seen are never predicted and count as
missed. Precision, recall and F1 are those of the standard script. `--out` receives result.json, pictures, and for each
model and seed a log and a checkpoint, from which `--resume` goes on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _common import Results, curves, descend, fit, options_of, parameters, parser, report, run
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz.optim import RiemannianAdam, param_groups
from relsim.errors import RelsimError

FEATURES = 5  # of a word: the form, the first and the last three letters, the shape, and whether it is in the mention
WINDOW = 8  # words on either side of the mention


class Mention(NamedTuple):
    """A name, the words before and after it, and its types."""

    span: list[str]
    left: list[str]
    right: list[str]
    types: list[str]


class Batch(NamedTuple):
    """Mentions as numbers; zero pads."""

    span: Tensor  # (N, S, FEATURES)
    context: Tensor  # (N, 2 WINDOW, FEATURES)
    types: Tensor  # (N, types), 0 or 1


def read(path: Path | None) -> dict[str, list[Mention]]:
    """Return the mentions of train, dev and test."""
    if path is None:
        return written_from_facts(Path(__file__).with_suffix(".txt"))
    return {split: list(json_lines(path / f"{split}.json")) for split in ("train", "dev", "test")}


def json_lines(path: Path) -> Iterator[Mention]:
    """Yield the mentions of a file of Choi et al."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = json.loads(line)
            span, left, right = one["mention_span"].split(), one["left_context_token"], one["right_context_token"]
            yield Mention(span, left, right, one["y_str"])
        except (ValueError, KeyError) as error:
            raise RelsimError(f"{path}:{number}: expected a mention as JSON, see --help: {error!r}") from None


def written_from_facts(path: Path) -> dict[str, list[Mention]]:
    """Return mentions of names in sentences of their kind: neither names nor sentences are in two splits."""
    splits: dict[str, list[Mention]] = {"train": [], "dev": [], "test": []}
    types: list[str] = []
    names: list[list[str]] = []
    order = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("="):
            names = [name.split() for name in line[1:].split(";")]
        elif line.startswith("-"):
            left, right = (part.split() for part in line[1:].split("{}"))
            split = ("train", "train", "train", "train", "dev", "test")[order]
            part = {"train": names[:8], "dev": names[8:10], "test": names[10:]}[split]
            splits[split] += [Mention(name, left, right, types) for name in part]
            order += 1
        elif not line.startswith("#"):
            types, order = line.split(), 0
    return splits


def features(word: str, inside: bool) -> list[str]:
    """Return what is known of a word: form, ends, shape, and whether it belongs to the mention."""
    shape = "A" if word.isupper() else "Aa" if word[:1].isupper() else "1" if word[:1].isdigit() else "a"
    low = word.lower()
    return [f"form {low}", f"start {low[:3]}", f"end {low[-3:]}", f"shape {shape}", "inside" if inside else "outside"]


def vocabulary(mentions: list[Mention]) -> dict[str, int]:
    """Number the features of training words, from 1: forms that occur once are left to their ends and shape."""
    found = Counter(
        feature
        for mention in mentions
        for words, inside in ((mention.span, True), (mention.left + mention.right, False))
        for word in words
        for feature in features(word, inside)
    )
    return {feature: number for number, feature in enumerate(sorted(f for f, n in found.items() if n > 1), 1)}


def encode(mentions: list[Mention], vocab: dict[str, int], types: dict[str, int]) -> Batch:
    """Return mentions as numbers."""

    def numbers(words: list[str], inside: bool, length: int) -> Tensor:
        rows = [[vocab.get(feature, 0) for feature in features(word, inside)] for word in words[:length]]
        return torch.tensor(rows + [[0] * FEATURES] * (length - len(rows)))

    longest = max(len(mention.span) for mention in mentions)
    target = torch.zeros(len(mentions), len(types))
    for row, mention in zip(target, mentions, strict=True):
        row[[types[name] for name in mention.types if name in types]] = 1
    around = [mention.left[-WINDOW:][::-1] + mention.right[:WINDOW] for mention in mentions]
    return Batch(
        torch.stack([numbers(mention.span, True, longest) for mention in mentions]),
        torch.stack([numbers(words, False, 2 * WINDOW) for words in around]),
        target,
    )


class Typer(nn.Module):
    """Points of words, attention from the mention to its context, two maps, and a point for each type."""

    def __init__(self, kind: str, features: int, types: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.curved, n = kind == "lorentz", options.dim
        L, bias = (lnn, False) if self.curved else (nn, True)  # a Lorentz layer has w x0 where the other has b
        self.feature = L.Embedding(features + 1, n, padding_idx=0)
        self.attention = L.MultiheadAttention(n, options.heads, bias=bias, batch_first=True)
        self.join, self.last = L.Linear(2 * n, n, bias), L.Linear(n, n, bias)
        self.activation, self.dropout = L.GELU(), L.Dropout(options.dropout)
        self.types = lnn.CentroidClassifier(n, types) if self.curved else nn.Linear(n, types)
        if self.curved:
            self.attention.log_scale.requires_grad_(False)  # fixed, as torch's factor 1 / sqrt(n) is
        else:
            nn.init.normal_(self.feature.weight, std=n**-0.5)  # as in the Lorentz model
            self.feature.weight.data[0] = 0

    def centre(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return the centroid of points (..., m, n) under weights (..., m); in the twin the mean."""
        if self.curved:
            return LF.centroid(points, weights)
        share = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
        return (share.unsqueeze(-1) * points).sum(-2)

    def words(self, numbers: Tensor) -> Tensor:
        """Return a point for each word: (..., FEATURES) of integers to (..., n)."""
        return self.centre(self.feature(numbers), (numbers > 0).float())

    def forward(self, span: Tensor, context: Tensor) -> Tensor:
        """Return the logits of the types, (N, types)."""
        inside = (span > 0).any(-1).float()
        mention = self.centre(self.dropout(self.words(span)), inside)  # (N, n)
        hidden = (context == 0).all(-1)
        hidden[:, 0] &= ~hidden.all(-1)  # a mention without words around it sees one word at the origin
        around = self.dropout(self.words(context))
        seen, _ = self.attention(mention[:, None], around, around, key_padding_mask=hidden, need_weights=False)
        x = self.activation(self.join(torch.cat([mention, seen[:, 0]], dim=-1)))  # joining space parts joins points
        return self.types(self.last(self.dropout(x)))


def predict(logits: Tensor, threshold: float) -> Tensor:
    """Return which types are above the threshold, and the likeliest in any case, (N, types) of bool."""
    chosen = logits.sigmoid() > threshold
    return chosen.scatter(1, logits.argmax(1, keepdim=True), True)


def scores(predicted: Tensor, mentions: list[Mention], types: dict[str, int]) -> dict[str, float]:
    """Return macro and micro precision, recall and F1 in percent, by the definitions of Choi et al., ACL 2018.

    Macro: the mean precision over mentions with predictions, and the mean recall over mentions with types. Micro: of
    all pairs of a mention and a type.
    """
    names = list(types)
    guesses = [{names[k] for k in row.nonzero().flatten().tolist()} for row in predicted]
    truths = [set(mention.types) for mention in mentions]
    hits = [len(guess & truth) for guess, truth in zip(guesses, truths, strict=True)]
    shares = {
        "macro_p": [hit / len(guess) for hit, guess in zip(hits, guesses, strict=True) if guess],
        "macro_r": [hit / len(truth) for hit, truth in zip(hits, truths, strict=True) if truth],
    }
    result = {name: 100 * sum(values) / max(len(values), 1) for name, values in shares.items()}
    result |= {"micro_p": 100 * sum(hits) / max(sum(map(len, guesses)), 1)}
    result |= {"micro_r": 100 * sum(hits) / max(sum(map(len, truths)), 1)}
    for kind in ("macro", "micro"):
        p, r = result[f"{kind}_p"], result[f"{kind}_r"]
        result[f"{kind}_f1"] = 2 * p * r / (p + r) if p + r else 0.0
    return result


def train(
    kind: str,
    data: dict[str, list[Mention]],
    batches: dict[str, Batch],
    vocab: dict[str, int],
    types: dict[str, int],
    seed: int,
    options: argparse.Namespace,
) -> tuple[Typer, dict[str, float]]:
    """Fit a model; return it and its test figures at the threshold that is best on the dev set."""
    torch.manual_seed(seed)
    model = Typer(kind, len(vocab), len(types), options).to(options.device)
    optimiser = RiemannianAdam(param_groups(model, weight_decay=options.weight_decay), lr=options.lr)
    part = batches["train"]
    with torch.no_grad():
        model.types.bias.copy_(part.types.mean(0).logit(1e-4))  # how frequent a type is need not be learned

    def losses() -> Iterator[Tensor]:
        for rows in torch.randperm(len(part.types)).to(options.device).split(options.batch):
            out = model(part.span[rows], part.context[rows])
            # The sum over types, the mean over mentions.
            yield len(types) * F.binary_cross_entropy_with_logits(out, part.types[rows])

    def logits(split: str) -> Tensor:
        return model(batches[split].span, batches[split].context).cpu()

    def best_threshold() -> tuple[float, float]:
        out = logits("dev")
        return max((scores(predict(out, t / 20), data["dev"], types)["macro_f1"], t / 20) for t in range(2, 15))

    name = f"{kind}-{seed}"
    figures = fit(
        options.out / name,
        model,
        optimiser,
        lambda: descend(optimiser, losses()),
        lambda: best_threshold()[0],
        options,
        seed=seed,
    )
    with torch.no_grad():
        threshold = best_threshold()[1]
        test = scores(predict(logits("test"), threshold), data["test"], types)
    return model, {**figures, **test, "threshold": threshold, "parameters": parameters(model)}


def draw(model: Typer, types: dict[str, int], data: list[Mention], out: Path) -> None:
    """Draw the points of the most frequent types; a line leads to the broader type that a type mostly comes with."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    from lorentz.plot import poincare_disk, principal_plane

    count = Counter(name for mention in data for name in mention.types if name in types)
    shown = [name for name, _ in count.most_common(60)]
    together = Counter((a, b) for mention in data for a in mention.types for b in mention.types if a != b)
    edges = []
    for k, name in enumerate(shown):
        above = [other for other in shown[:k] if together[name, other] > count[name] / 2]
        if above:
            edges.append((k, shown.index(min(above, key=lambda other: count[other]))))
    plane = principal_plane(model.types.weight.detach()[[types[name] for name in shown]])
    frequency = torch.tensor([count[name] for name in shown]).log()
    axes = poincare_disk(plane, edges=edges, labels=shown, color=frequency, edge_color="0.85", size=24)
    axes.figure.savefig(out / "types.png", dpi=120, bbox_inches="tight")
    pyplot.close(axes.figure)


def main() -> None:
    options = parser(__doc__, "entity_typing", dim=32, epochs=40, seeds=2)
    options.add_argument("--heads", type=int, default=4)
    options.add_argument("--dropout", type=float, default=0.3)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--lr", type=float, default=0.03)
    options.add_argument("--weight-decay", type=float, default=0.01)
    options = options_of(options)
    data = read(options.data)
    types = {name: k for k, name in enumerate(sorted({name for mention in data["train"] for name in mention.types}))}
    vocab = vocabulary(data["train"])
    batches = {
        split: Batch(*(part.to(options.device) for part in encode(mentions, vocab, types)))
        for split, mentions in data.items()
    }
    print("; ".join(f"{split} {len(part):,}" for split, part in data.items()), f"mentions; {len(types):,} types")
    results, models = Results(), []
    for kind in ("lorentz", "euclidean"):
        for seed in range(options.seed, options.seed + options.seeds):
            model, figures = train(kind, data, batches, vocab, types, seed, options)
            results.setdefault(kind, []).append(figures)
            models.append(model)
    shown = {"macro_p": "macro P", "macro_r": "R", "macro_f1": "F1, test"}
    shown |= {"micro_p": "micro P", "micro_r": "R", "micro_f1": "F1", "parameters": "parameters", "cpu_s": "CPU s"}
    protocol = "macro and micro F1 of Choi et al.; epoch and threshold of the best macro F1 on dev"
    report(options.out, results, shown, protocol)
    draw(models[0], types, data["train"], options.out)
    curves(options.out, "macro F1 on dev, %")


if __name__ == "__main__":
    run(main)
