r"""Which relation does a sentence state? A softmax margin that grows with similarity, beside what else regularises.

    python examples/relation_extraction.py                               sentences made of a few facts, in two minutes
    python examples/relation_extraction.py --data semeval2010-8 --seeds 10 --epochs 12 --dim 64 --out runs/semeval

Models: the position-aware LSTM of Zhang et al. (EMNLP 2017), and a small Transformer, Euclidean and Lorentz. Losses:
cross-entropy, the same with smoothed labels, the similarity margin (`relsim.SimilarityMarginLoss`), and the margin with
the similarities exchanged at random between labels. The similarity comes from the fact distribution of the training
pairs: smoothed counts of (last word of e1, label, last word of e2), on the scale where the median pair has 0.5. The
strength of both margins is chosen on the development set, among `--strengths`, at the first seed. The score is the
official one (`_extraction.macro_f1`). `--out` receives a file for each training, which `--resume` does not repeat,
result.json, table.md and extraction.png; a file of a run with other settings is refused.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import options_of, run
from _common import parser as parser_of
from _extraction import FARTHEST, Batch, Sentence, Vocabulary, label_kb, macro_f1, splits
from _similarity import start, write_result
from scipy.stats import ttest_rel
from torch import Tensor, nn
from tqdm import tqdm

import lorentz
import relsim
from lorentz.optim import RiemannianAdam, param_groups
from relsim.errors import RelsimError
from relsim.scale import tempered
from relsim.storage import atomic_file, read_json, write_json

SMALL = Path(__file__).parent / "openie_redundancy" / "small.json"
PLACES = 2 * FARTHEST + 2
OTHER = {"Other", "no_relation"}


class PositionAwareLSTM(nn.Module):
    """An LSTM whose states are weighed by attention that sees where both entities are.

    u_i = v . tanh(W_h h_i + W_q q + W_s p^s_i + W_o p^o_i), a = softmax(u), z = sum_i a_i h_i, with q the last state
    and p the embeddings of the distances from the entities (Zhang et al., EMNLP 2017). One layer.
    """

    def __init__(self, words: int, labels: int, dim: int) -> None:
        super().__init__()
        self.word, self.drop = nn.Embedding(words, dim, padding_idx=0), nn.Dropout(0.4)
        self.first, self.second = (nn.Embedding(PLACES, dim // 2, padding_idx=0) for _ in range(2))
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.of_state, self.of_last = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.of_first, self.of_second = (nn.Linear(dim // 2, dim, bias=False) for _ in range(2))
        self.attend, self.classify = nn.Linear(dim, 1, bias=False), nn.Linear(dim, labels)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, labels)."""
        state, _ = self.lstm(self.drop(self.word(batch.words)))
        last = state[torch.arange(len(state)), (batch.words > 0).sum(1) - 1]
        place = self.of_first(self.first(batch.first)) + self.of_second(self.second(batch.second))
        score = self.attend(torch.tanh(self.of_state(state) + self.of_last(last)[:, None] + place)).squeeze(2)
        weight = score.masked_fill(batch.words == 0, -torch.inf).softmax(1)
        return self.classify(self.drop((weight[:, :, None] * state).sum(1)))


class Transformer(nn.Module):
    """Two encoder layers on words and distances from the entities; the mean of the states at the entities decides."""

    def __init__(self, words: int, labels: int, dim: int) -> None:
        super().__init__()
        self.word, self.drop = nn.Embedding(words, dim, padding_idx=0), nn.Dropout(0.3)
        self.first, self.second = (nn.Embedding(PLACES, dim, padding_idx=0) for _ in range(2))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.2, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(3 * dim, labels)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, labels)."""
        padding = batch.words == 0
        x = self.word(batch.words) + self.first(batch.first) + self.second(batch.second)
        state = self.encoder(self.drop(x), src_key_padding_mask=padding)
        inside = [(place == FARTHEST + 1) for place in (batch.first, batch.second)]
        pooled = [_mean(state, chosen) for chosen in (*inside, ~padding)]
        return self.classify(self.drop(torch.cat(pooled, dim=1)))


def _mean(state: Tensor, chosen: Tensor) -> Tensor:
    weight = chosen.to(state.dtype)[:, :, None]
    return (weight * state).sum(1) / weight.sum(1).clamp(min=1)


def lorentz_transformer(words: int, labels: int, dim: int) -> nn.Module:
    """The Transformer with the encoder of Lorentz layers that start from the same weights."""
    model = Transformer(words, labels, dim)
    model.encoder = lorentz.convert(model.encoder)
    return model


MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "lstm": PositionAwareLSTM,
    "transformer": Transformer,
    "lorentz-transformer": lorentz_transformer,
}


@dataclass
class Task:
    """The sentences of each split, the labels, the words, and the similarity of labels, (C, C)."""

    sentences: dict[str, list[Sentence]]
    labels: list[str]
    vocabulary: Vocabulary
    similarity: Tensor

    @property
    def other(self) -> str:
        return next((label for label in self.labels if label in OTHER), "")


def task_of(options: argparse.Namespace) -> Task:
    sentences = splits(options.data, SMALL, options.seed)
    labels = sorted({s.label for s in sentences["train"]})
    if strange := {s.label for part in sentences.values() for s in part} - set(labels):
        raise RelsimError(f"{min(strange)!r}: a label that no training sentence has: correct the files")
    kb = label_kb(sentences["train"], labels)
    div = relsim.RaoBlackwell(samples=options.heads).divergence(relsim.fit_counts(kb), progress=False)
    return Task(sentences, labels, Vocabulary(sentences["train"]), torch.from_numpy(tempered(div)).float())


def exchanged(similarity: Tensor, seed: int) -> Tensor:
    """Return the similarities of all pairs of labels exchanged at random, symmetric, the diagonal kept."""
    a, b = torch.triu_indices(*similarity.shape, offset=1)
    values = similarity[a, b][torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))]
    result = torch.eye(len(similarity))
    result[a, b] = result[b, a] = values
    return result


def loss_of(task: Task, name: str, seed: int) -> nn.Module:
    """Return `softmax`, `smoothing`, `margin:STRENGTH` or `random:STRENGTH`."""
    kind, _, strength = name.partition(":")
    if kind == "softmax":
        return nn.CrossEntropyLoss()
    if kind == "smoothing":
        return nn.CrossEntropyLoss(label_smoothing=0.1)
    similarity = task.similarity if kind == "margin" else exchanged(task.similarity, seed)
    return relsim.SimilarityMarginLoss(similarity, float(strength))


def answers(model: nn.Module, task: Task, split: str) -> list[str]:
    """Return the label that the model gives to each sentence."""
    model.eval()
    sentences = task.sentences[split]
    found = [""] * len(sentences)
    order = sorted(range(len(sentences)), key=lambda k: len(sentences[k].words))  # similar lengths: little padding
    with torch.no_grad():
        for rows in (order[k : k + 256] for k in range(0, len(order), 256)):
            batch = task.vocabulary.batch([sentences[k] for k in rows], task.labels)
            for row, answer in zip(rows, model(batch).argmax(1).tolist(), strict=True):
                found[row] = task.labels[answer]
    return found


def score(model: nn.Module, task: Task, split: str) -> float:
    return macro_f1([s.label for s in task.sentences[split]], answers(model, task, split), task.other)


def train(task: Task, model_name: str, loss_name: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return the official score on dev and on test, at the epoch that is best on dev."""
    torch.manual_seed(seed)
    model = MODELS[model_name](len(task.vocabulary), len(task.labels), options.dim)
    loss, optimiser = loss_of(task, loss_name, seed), RiemannianAdam(param_groups(model), lr=options.lr)
    sentences, best, kept = task.sentences["train"], -1.0, model.state_dict()
    hidden = None if options.progress is None else not options.progress
    for epoch in tqdm(range(options.epochs), f"{model_name} {loss_name} seed {seed}", disable=hidden, leave=False):
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = options.lr * (1 - epoch / options.epochs)
        for rows in _batches(sentences, options.batch):
            batch = task.vocabulary.batch([sentences[k] for k in rows], task.labels)
            optimiser.zero_grad()
            loss(model(batch), batch.label).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
        dev = score(model, task, "dev")
        if dev > best:
            best, kept = dev, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return best, score(model, task, "test")


def _batches(sentences: Sequence[Sentence], size: int) -> list[list[int]]:
    """Return random batches of sentences of similar length, in random order."""
    noisy = np.array([len(s.words) for s in sentences]) + 4 * torch.rand(len(sentences)).numpy()
    parts = [part.tolist() for part in np.array_split(np.argsort(noisy), -(-len(sentences) // size))]
    return [parts[k] for k in torch.randperm(len(parts)).tolist()]


def trained(task: Task, model: str, loss: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of one training, from its file where it is there.

    Raises:
        RelsimError: the file is of a run with other settings.
    """
    path = options.out / f"{model}-{loss.replace(':', '-')}-{seed}.json"
    settings = {name: getattr(options, name) for name in ("dim", "epochs", "batch", "lr", "heads")}
    settings["first_seed"] = options.seed  # which sentences are held out for dev
    settings["sentences"] = {split: len(part) for split, part in task.sentences.items()}
    if path.exists():
        known = read_json(path, "result")
        if known.get("settings") != settings:
            raise RelsimError(f"{path}: of a run with other settings, {known.get('settings')}: choose another --out")
        return known
    began = time.process_time()
    dev, test = train(task, model, loss, seed, options)
    result = {"model": model, "loss": loss, "seed": seed, "dev": dev, "test": test, "settings": settings}
    with atomic_file(path) as scratch:
        write_json(scratch, result | {"cpu_s": round(time.process_time() - began, 1)})
    return read_json(path, "result")


def losses_of(task: Task, model: str, options: argparse.Namespace) -> tuple[list[str], dict[str, float]]:
    """Return the losses to compare, both margins at the strength that is best on dev, and the dev scores of all."""
    tried, losses = {}, ["softmax", "smoothing"]
    for kind in ("margin", "random"):
        names = [f"{kind}:{strength:g}" for strength in options.strengths]
        tried |= {name: trained(task, model, name, options.seed, options)["dev"] for name in names}
        losses.append(max(names, key=lambda name: tried[name]))
    return losses, tried


def compared(task: Task, model: str, losses: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return the test scores of each loss over the seeds, and the paired differences of the margin from the others."""
    seeds = range(options.seed, options.seed + options.seeds)
    values = {loss: np.array([trained(task, model, loss, s, options)["test"] for s in seeds]) for loss in losses}
    many, margin = options.seeds > 1, values[losses[2]]
    rows: dict[str, Any] = {}
    for loss, v in values.items():
        rows[loss] = {"mean": float(v.mean()), "values": v.tolist()}
        rows[loss]["stderr"] = float(v.std(ddof=1) / len(v) ** 0.5) if many else None
        if loss != losses[2]:
            rows[loss]["margin_ahead_by"] = float((margin - v).mean())
            differ = np.ptp(margin - v) > 1e-9  # else there is nothing to test
            test = ttest_rel(margin, v) if differ else None
            rows[loss]["p"] = None if test is None else float(test.pvalue)
            rows[loss]["interval"] = None if test is None else [float(x) for x in test.confidence_interval(0.95)]
    return rows


def markdown(tables: dict[str, dict[str, Any]]) -> str:
    lines = ["| model | loss | test macro-F1 | margin ahead by (95 %) | paired p |", "|---|---|---|---|---|"]
    for model, rows in tables.items():
        for loss, row in rows.items():
            error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
            ahead = f"{row['margin_ahead_by']:+.4f}" if "margin_ahead_by" in row else ""
            if row.get("interval"):
                ahead += " ({:+.4f} to {:+.4f})".format(*row["interval"])
            p = f"{row['p']:.3f}" if row.get("p") is not None else ""
            lines.append(f"| {model} | {loss} | {row['mean']:.4f}{error} | {ahead} | {p} |")
    return "\n".join(lines) + "\n"


def draw(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the scores of all trainings by model and loss."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`")
        return
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    names = [(model, loss) for model, rows in tables.items() for loss in rows]
    for k, (model, loss) in enumerate(names):
        values = tables[model][loss]["values"]
        axes.plot(values, [k] * len(values), "o", alpha=0.5)
        axes.plot(np.mean(values), k, "k|", ms=14)
    axes.set_yticks(range(len(names)), [" ".join(name) for name in names])
    axes.set(xlabel="test macro-F1; the bar is the mean")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__, "relation_extraction", dim=32, epochs=6, seeds=2)
    parser.set_defaults(device="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0, 4.0], help="of the margins, in logits")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--heads", type=int, default=1000, help="heads that the estimator of KL evaluates at most")
    options, began = options_of(parser), time.process_time()
    if options.device != "cpu":
        raise RelsimError(f"--device {options.device}: this experiment runs on cpu: leave --device out")
    start(options)
    task = task_of(options)
    sizes = {split: len(part) for split, part in task.sentences.items()}
    print(f"{len(task.labels)} labels, {len(task.vocabulary):,} words, sentences: {sizes}")
    tables, tried = {}, {}
    for model in options.models:
        losses, tried[model] = losses_of(task, model, options)
        tables[model] = compared(task, model, losses, options)
    text = markdown(tables)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text + "dev macro-F1 by strength: " + json.dumps(tried))
    draw(tables, options.out / "extraction.png")
    source = "smoothed counts of the training pairs, last words of both entities; tempered scale"
    result = {"score": "official macro-F1", "similarity": source, "sizes": sizes, "tables": tables, "dev": tried}
    write_result(options, result, began)


if __name__ == "__main__":
    run(main)
