"""Structural probes: does an encoder place the words of a sentence as its dependency tree does?

    python examples/tree_probe.py                                  sentences written by rules, with their trees
    python examples/translation.py --reverse --data multi30k --dim 64 --vocabulary 4000 --out runs/en-de
    python examples/tree_probe.py --data ud-english-ewt --encoders runs/en-de --out runs/probe

A probe is a linear map of the vectors of words, under which their distances are to be those in the tree, and one under
which the distance from the origin is to be the depth (Hewitt and Manning, NAACL 2019). The Euclidean probe has squared
Euclidean distances, the hyperbolic one squared geodesic distances after the exponential map at the origin (Chen et al.,
ICLR 2021, with one map in the place of two), and both have as many parameters. They read the encoder of
`translation.py`, hyperbolic and Euclidean, and as a baseline its table of subwords, which knows no context.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch
import translation
from _common import Results, curves, descend, fit, options_of, parameters, parser, report, run
from _parallel import END, Subwords, padded
from _translator import Translator, load
from _trees import Tree, measures, read, right_edges, spanning
from torch import Tensor, nn

import lorentz.functional as LF
from relsim.errors import RelsimError

Vectors = list[Tensor]
"""For each sentence the vectors of its words, (T, n)."""
KINDS = ("lorentz", "euclidean")
SPACES = ("hyperbolic", "euclidean")


class Probe(nn.Module):
    """Two linear maps to `rank` coordinates: one for distances in the tree, one for depths."""

    def __init__(self, space: str, width: int, rank: int) -> None:
        super().__init__()
        self.curved = space == "hyperbolic"
        self.distance, self.depth = (nn.Parameter(torch.empty(rank, width).uniform_(-0.05, 0.05)) for _ in range(2))

    def points(self, words: Tensor) -> Tensor:
        """Return where the map for distances puts words, (..., n) to (..., rank)."""
        return LF.expmap0(words @ self.distance.mT) if self.curved else words @ self.distance.mT

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted distances (N, T, T) and depths (N, T) of words (N, T, n)."""
        x, y = self.points(words), words @ self.depth.mT
        if self.curved:  # the map at the origin keeps the distance from it
            return LF.pairwise_dist(x, x).square(), y.square().sum(-1)
        return (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1), y.square().sum(-1)


def word_vectors(
    model: Translator, subwords: Subwords, trees: list[Tree], layer: str, device: str
) -> tuple[list[Tree], Vectors]:
    """Return the trees whose words all have subwords, and for each the means of its words' subwords."""
    kept, found = [], []
    for start in range(0, len(trees), 64):
        part, rows, shares = [], [], []
        for tree in trees[start : start + 64]:
            spans = subwords.spans(tree.text)
            share = torch.tensor([[float(a < end and b > begin) for _, a, b in spans] for begin, end in tree.places])
            if share.any(1).all():
                part.append(tree)
                rows.append([token for token, _, _ in spans] + [END])
                shares.append(share)
        if not part:
            continue
        source = padded(rows, device)
        with torch.no_grad():
            states = model.encode(source)[0] if layer == "encoder" else model.meaning(source)
        for state, share in zip(states, shares, strict=True):
            state, share = state[: share.shape[1]], share.to(device)
            found.append(share @ state / share.sum(1, keepdim=True))
        kept += part
    return kept, found


class Sentences:
    """Vectors of words with what a probe is to say of them, and batches of like length."""

    def __init__(self, trees: list[Tree], vectors: Vectors, device: str) -> None:
        self.trees, self.vectors = trees, vectors
        self.distances = [torch.tensor(tree.distances, dtype=torch.float32, device=device) for tree in trees]
        self.depths = [torch.tensor(tree.depths, dtype=torch.float32, device=device) for tree in trees]

    def batches(self, size: int, *, shuffled: bool) -> Iterator[list[int]]:
        """Yield the places of sentences of like length."""
        noise = 2 * torch.rand(len(self.trees)) if shuffled else torch.zeros(len(self.trees))
        order = (torch.tensor([len(tree.words) for tree in self.trees]) + noise).argsort(stable=True)
        parts = list(order.split(size))
        yield from (parts[k].tolist() for k in (torch.randperm(len(parts)) if shuffled else range(len(parts))))

    def loss(self, probe: Probe, rows: list[int]) -> Tensor:
        """Return the mean absolute errors of distances and of depths, averaged over sentences and added."""
        distances, depths = probe(nn.utils.rnn.pad_sequence([self.vectors[row] for row in rows], batch_first=True))
        longest = distances.shape[1]
        lengths = torch.tensor([len(self.vectors[row]) for row in rows], device=distances.device)
        here = torch.arange(longest, device=distances.device) < lengths[:, None]  # (N, T)
        gaps = [longest - len(self.vectors[row]) for row in rows]
        true_distances = torch.stack(
            [nn.functional.pad(self.distances[row], (0, gap, 0, gap)) for row, gap in zip(rows, gaps, strict=True)]
        )
        true_depths = nn.utils.rnn.pad_sequence([self.depths[row] for row in rows], batch_first=True)
        both = here[:, :, None] & here[:, None, :]
        of_distances = ((distances - true_distances).abs() * both).sum((1, 2)) / lengths**2
        of_depths = ((depths - true_depths).abs() * here).sum(1) / lengths
        return (of_distances + of_depths).mean()


def train(
    name: str, space: str, data: dict[str, Sentences], seed: int, options: argparse.Namespace
) -> tuple[Probe, dict[str, float]]:
    """Fit a probe to the training trees; return its epoch of the least dev loss, and its measures on the test trees."""
    torch.manual_seed(seed)
    probe = Probe(space, data["train"].vectors[0].shape[1], options.dim).to(options.device)
    optimiser = torch.optim.Adam(probe.parameters(), lr=options.lr)

    def epoch() -> Tensor:
        part = data["train"]
        return descend(optimiser, (part.loss(probe, rows) for rows in part.batches(options.batch, shuffled=True)))

    def score() -> float:
        part = data["dev"]
        total = sum(len(rows) * part.loss(probe, rows).item() for rows in part.batches(64, shuffled=False))
        return -total / len(part.trees)

    figures = fit(options.out / f"{name}-{seed}", probe, optimiser, epoch, score, options, seed=seed)
    test = data["test"]
    with torch.no_grad():
        found = [[each[0].double().cpu().numpy() for each in probe(words[None])] for words in test.vectors]
    distances, depths = zip(*found, strict=True)
    return probe, {**figures, **measures(test.trees, distances, depths), "parameters": parameters(probe)}


def chain(trees: list[Tree]) -> dict[str, float]:
    """Return the measures of a guess that knows no words: each hangs on the one before it."""
    places = [torch.arange(len(tree.words)).double() for tree in trees]
    distances = [(place[:, None] - place).abs().numpy() for place in places]
    return measures(trees, distances, [place.numpy() for place in places])


def encoders(options: argparse.Namespace, seed: int) -> tuple[dict[str, Translator], Subwords]:
    """Return an encoder of each kind, and its subwords: those of `--encoders`, or small ones, trained for it."""
    if options.encoders:
        folders = {kind: options.encoders / f"{kind}-{seed}" for kind in KINDS}
        models = {kind: load(folder, options.device) for kind, folder in folders.items()}
        return models, Subwords((options.encoders / "subwords.model").read_bytes())
    settings = ["--reverse", "--epochs", "4", "--device", options.device, "--out", str(options.out / "encoders")]
    chosen = translation.arguments().parse_args(settings)
    chosen.resume, chosen.progress = options.resume, options.progress
    _, data, subwords = translation.prepare(chosen)
    return {kind: translation.train(kind, data, len(subwords), seed, chosen)[0] for kind in KINDS}, subwords


def draw(probe: Probe, data: Sentences, out: Path) -> None:
    """Draw a test sentence where a hyperbolic probe puts its words, in the plane that holds most of them.

    Edges are those of the minimum spanning tree of the predicted distances; red ones are not in the dependency tree.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    from lorentz.plot import poincare_disk, principal_plane

    fitting = [k for k, tree in enumerate(data.trees) if 8 <= sum(tree.counted) <= 14]
    with torch.no_grad():
        found = {k: probe(data.vectors[k][None])[0][0].double().cpu().numpy() for k in fitting}
        right = {k: right_edges(data.trees[k], distances) for k, distances in found.items()}
        # Of a sentence that the probe understands as well as the middle one does.
        row = sorted(fitting, key=lambda k: right[k][0] / right[k][1])[len(fitting) // 2]
        tree, kept = data.trees[row], torch.tensor(data.trees[row].counted).nonzero().flatten()
        plane = principal_plane(probe.points(data.vectors[row])[kept].cpu())
    edges = spanning(found[row][kept][:, kept])
    gold = {frozenset(edge) for edge in tree.edges()}
    colors = ["0.6" if frozenset(kept[list(edge)].tolist()) in gold else "C3" for edge in edges]
    words = [tree.words[k] for k in kept.tolist()]
    axes = poincare_disk(plane, edges=edges, labels=words, edge_color=colors, size=24, font_size=8)
    axes.set_title(textwrap.fill(tree.text, 100), fontsize=8)
    axes.figure.savefig(out / "sentence.png", dpi=120, bbox_inches="tight")
    pyplot.close(axes.figure)


def main() -> None:
    options = parser(__doc__, "tree_probe", dim=32, epochs=8, seeds=1)
    options.add_argument("--encoders", type=Path, help="the --out of translation.py --reverse; by default trained here")
    options.add_argument("--batch", type=int, default=32, help="sentences of a step")
    options.add_argument("--lr", type=float, default=0.01)
    options = options_of(options)
    trees = read(options.data)
    print("; ".join(f"{split} {len(part):,}" for split, part in trees.items()), "sentences")
    results, pictures = Results(), []
    for seed in range(options.seed, options.seed + options.seeds):
        models, subwords = encoders(options, seed)
        for kind, model in models.items():
            for layer in ("table", "encoder"):
                data = {
                    split: Sentences(*word_vectors(model, subwords, part, layer, options.device), options.device)
                    for split, part in trees.items()
                }
                if not all(part.trees for part in data.values()):
                    raise RelsimError(f"{options.encoders}: its subwords cover no sentence of a split: train others")
                for space in SPACES:
                    probe, figures = train(f"{kind}-{layer}-{space}", space, data, seed, options)
                    results.setdefault(f"{kind} {layer}, {space} probe", []).append(figures)
                    if (kind, layer, space) == ("lorentz", "encoder", "hyperbolic"):
                        pictures.append((probe, data["test"]))
    shown = {"uuas": "UUAS", "distance": "distance rho", "root": "root", "depth": "depth rho"}
    shown |= {"parameters": "parameters", "cpu_s": "CPU s"}
    linear = chain(pictures[0][1].trees)
    protocol = (
        "test, percent; probes of the least dev loss; UUAS and root without punctuation, rho over lengths 5 to 50"
    )
    report(options.out, results, shown, protocol, linear_chain=linear)
    print("linear chain: " + ", ".join(f"{heading} {linear[name]:.1f}" for name, heading in list(shown.items())[:4]))
    draw(*pictures[0], options.out)
    curves(options.out, "dev loss", sign=-1)


if __name__ == "__main__":
    run(main)
