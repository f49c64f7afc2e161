"""A small GPT in hyperbolic space, beside the same GPT in Euclidean space.

    python examples/language_model.py                          Python's own manual of the language, letter by letter
    python examples/language_model.py --data shakespeare.txt --dim 128 --layers 4 --epochs 60 --out runs/shakespeare

The model reads a stretch of text and says, for each letter, which comes next. Its inner vectors are points of the
hyperboloid: a module holds their n space coordinates, so shapes are those of an ordinary GPT, and the time coordinate
x0 = sqrt(1 + |x|^2) is derived where a formula asks for it. What changes is only

    linear maps    W x + w x0               in the place of   W x + b          as many parameters
    attention      softmax(-s |q - k|_L^2)  in the place of   softmax(q.k)     the nearer, the more attention
    averages       centroids of points      in the place of   sums
    the output     -|x - p|_L^2 + b         in the place of   p.x + b          p is a point for each letter
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from _common import Results, curves, descend, fit, options_of, parameters, parser, report, run
from torch import Tensor, nn

import lorentz.nn as lnn
from lorentz.optim import RiemannianAdam, param_groups
from relsim.errors import RelsimError

LAYERS = {"lorentz": lnn, "euclidean": nn}  # the two have the same names, which is the point of lorentz.nn


class Block(nn.Module):
    """Look at the letters so far, then think about what was seen. Both steps add to the residual stream."""

    def __init__(self, kind: str, dim: int, heads: int) -> None:
        super().__init__()
        L, bias = LAYERS[kind], kind == "euclidean"  # a Lorentz layer has w x0 where the other has b
        self.norm1, self.norm2 = L.LayerNorm(dim), L.LayerNorm(dim)
        self.attention = L.MultiheadAttention(dim, heads, bias=bias, batch_first=True)
        self.widen, self.narrow = L.Linear(dim, 4 * dim, bias), L.Linear(4 * dim, dim, bias)
        self.activation = L.GELU()
        if kind == "lorentz":  # the factor s of the distances stays at its start, as torch's 1 / sqrt(n) does
            self.attention.log_scale.requires_grad_(False)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, attn_mask=future, is_causal=True, need_weights=False)[0]  # (B, T, n)
        return x + self.narrow(self.activation(self.widen(self.norm2(x))))  # (B, T, n) -> (B, T, 4n) -> (B, T, n)


class GPT(nn.Module):
    """Letters to points, some blocks, points to scores of the next letter."""

    def __init__(self, kind: str, letters: int, options: argparse.Namespace) -> None:
        super().__init__()
        L, dim = LAYERS[kind], options.dim
        self.letter = L.Embedding(letters, dim)
        self.place = nn.Parameter(0.02 * torch.randn(options.context, dim))  # added to the space coordinates
        self.blocks = nn.ModuleList(Block(kind, dim, options.heads) for _ in range(options.layers))
        self.norm = L.LayerNorm(dim)
        self.head = lnn.CentroidClassifier(dim, letters) if kind == "lorentz" else nn.Linear(dim, letters)
        nn.init.normal_(self.head.weight, std=0.02)  # near the origin, where no letter is likelier than another

    def forward(self, text: Tensor) -> Tensor:
        """Return scores of the letter after each, (B, T) of integers to (B, T, letters)."""
        length = text.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=text.device).triu(1)  # True: may not be seen
        x = self.letter(text) + self.place[:length]
        for block in self.blocks:
            x = block(x, future)
        return self.head(self.norm(x))

    @torch.no_grad()
    def write(self, text: Tensor, count: int) -> Tensor:
        """Draw `count` letters, one after the other, and append them to the text (1, T)."""
        for _ in range(count):
            scores = self(text[:, -len(self.place) :])[:, -1]
            text = torch.cat([text, torch.multinomial(scores.softmax(-1), 1)], dim=1)
        return text


def stretches(text: Tensor, options: argparse.Namespace) -> Iterator[Tensor]:
    """Yield a batch of stretches of the text for each step, one letter longer than what the model sees."""
    for _ in range(options.steps):
        start = torch.randint(len(text) - options.context, (options.batch, 1)).to(text.device)
        yield text[start + torch.arange(options.context + 1, device=text.device)]


def loss_of(model: GPT, stretch: Tensor) -> Tensor:
    """Return the mean surprise at the next letter, in nats."""
    return F.cross_entropy(model(stretch[:, :-1]).flatten(0, 1), stretch[:, 1:].flatten())


def train(kind: str, parts: Sequence[Tensor], seed: int, options: argparse.Namespace) -> tuple[GPT, dict[str, float]]:
    """Fit a model to the first text; return its epoch that is best on the second, and its loss on the third."""
    text, valid, test = parts
    torch.manual_seed(seed)
    model = GPT(kind, int(torch.cat([text, valid, test]).max()) + 1, options).to(options.device)
    optimiser = RiemannianAdam(param_groups(model, weight_decay=0.1), lr=options.lr)

    def epoch() -> Tensor:
        return descend(optimiser, (loss_of(model, stretch) for stretch in stretches(text, options)))

    def whole(held: Tensor) -> float:
        rows = held[: len(held) // (options.context + 1) * (options.context + 1)].view(-1, options.context + 1)
        return torch.stack([loss_of(model, part) * len(part) for part in rows.split(64)]).sum().item() / len(rows)

    figures = fit(options.out / f"{kind}-{seed}", model, optimiser, epoch, lambda: -whole(valid), options, seed=seed)
    with torch.no_grad():
        figures |= {"valid": -figures["valid"], "loss": whole(test), "parameters": parameters(model)}
    return model, {**figures, "bits": figures["loss"] / math.log(2)}


def main() -> None:
    options = parser(__doc__, "language_model", dim=64, epochs=8, seeds=1)
    options.add_argument("--layers", type=int, default=2)
    options.add_argument("--heads", type=int, default=4)
    options.add_argument("--context", type=int, default=64, help="letters that the model sees")
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--steps", type=int, default=50, help="of an epoch")
    options.add_argument("--lr", type=float, default=0.01)
    options = options_of(options)
    words = options.data.read_text(encoding="utf-8") if options.data else "\n".join(map(topics.get, sorted(topics)))
    letters = sorted(set(words))
    text = torch.tensor([letters.index(letter) for letter in words]).to(options.device)
    if len(text) < 20 * (options.context + 1):
        raise RelsimError(f"{options.data}: {len(text)} letters are too few: give a longer text or a smaller --context")
    parts = text.tensor_split([int(0.8 * len(text)), int(0.9 * len(text))])
    print(f"{len(words):,} letters, {len(letters)} different; tested on the last tenth, validated on that before it")
    results, samples = Results(), {}
    for kind in LAYERS:
        for seed in range(options.seed, options.seed + options.seeds):
            model, figures = train(kind, parts, seed, options)
            results.setdefault(kind, []).append(figures)
        samples[kind] = "".join(letters[i] for i in model.write(parts[2][None, :8], 200)[0].tolist())
    shown = {"loss": "test loss, nats", "bits": "bits a letter", "parameters": "parameters", "cpu_s": "CPU s"}
    protocol = "next letter of the last tenth of the text, at the epoch that is best on the tenth before it"
    report(options.out, results, shown, protocol, samples=samples)
    print(f"\nThe last hyperbolic model writes:\n{samples['lorentz']}")
    curves(options.out, "validation loss, nats", sign=-1)


if __name__ == "__main__":
    run(main)
