"""A Transformer that translates, of the layers of `lorentz.nn` or of `torch.nn`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _parallel import END, PAD, START
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.decoding import beam_search
from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp

LAYERS = {"lorentz": lnn, "layers": lnn, "table": nn, "euclidean": nn}
"""The layers of each kind of model; the table of subwords is one of points in the kinds lorentz and table."""
OPTIONS = {"dim": int, "heads": int, "layers": int, "dropout": float, "residual": str, "scale": str, "spread": float}
OPTIONS |= {"values": str, "curvature": float, "radius": str, "table_curvature": float}
"""What a model is built from."""


class Translator(nn.Module):
    """Encoder, decoder, and one table of subwords for both languages and the output.

    A Lorentz layer has w x0 where the other has b, so all kinds have as many parameters. The output is
    -|x - p|_L^2 + b in the place of p.x + b, p a point for each subword: what the last norm returns is read as the
    space part of a point, whatever came before.
    """

    def __init__(self, kind: str, words: int, options: argparse.Namespace) -> None:
        super().__init__()
        n, L = options.dim, LAYERS[kind]
        self.curved, self.of_points = L is lnn, kind in ("lorentz", "table")
        form: dict[str, Any] = {"batch_first": True, "norm_first": True, "bias": not self.curved}
        if self.curved:
            form |= {"manifold": Lorentz(c=options.curvature / n), "qk_norm": options.radius == "one"}
        if self.curved and options.residual == "centroid":
            form["residual"] = lnn.Residual
        encoder, decoder = (
            layer(n, options.heads, 4 * n, options.dropout, **form)
            for layer in (L.TransformerEncoderLayer, L.TransformerDecoderLayer)
        )
        norms = [L.LayerNorm(n, bias=False) for _ in range(2)]
        self.encoder = L.TransformerEncoder(encoder, options.layers, norms[0], enable_nested_tensor=False)
        self.decoder = L.TransformerDecoder(decoder, options.layers, norms[1])
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.c, self.place = options.table_curvature / n, lnn.PositionalEncoding(n, scale=1.0)
        if self.of_points:
            self.word: nn.Module = lnn.Embedding(words, n, manifold=Lorentz(c=self.c))
            self.head: nn.Module = lnn.CentroidClassifier(n, words, manifold=Lorentz(c=self.c))
        else:
            self.word, self.head = nn.Embedding(words, n), nn.Linear(n, words)
        spread = (options.spread if self.of_points else 1) * n**-0.5
        nn.init.normal_(self.word.weight, std=spread)
        self.gain = 1 / spread  # of what is read, so that its coordinates start with variance 1
        nn.init.zeros_(self.head.bias)
        self.head.weight = self.word.weight
        self.dropout = nn.Dropout(options.dropout)
        for module in self.modules():
            if isinstance(module, L.TransformerEncoderLayer | L.TransformerDecoderLayer):
                module.dropout.p = 0.0  # only what is added to the residual stream is dropped, as in Vaswani et al.
            elif isinstance(module, L.MultiheadAttention):
                module.dropout = 0.0
                if self.curved:
                    module.log_scale.requires_grad_(options.scale == "learned")
                if self.curved and options.values == "near":
                    bring_near(module)
            elif isinstance(module, nn.LayerNorm) and module.bias is not None:
                module.bias.requires_grad_(False)  # at zero: the bias of the map that follows does the same

    def meaning(self, tokens: Tensor) -> Tensor:
        """Return a point for each subword, whatever its place: (N, T) of integers to (N, T, n)."""
        return self.gain * self.word(tokens)

    def read(self, tokens: Tensor, offset: int = 0) -> Tensor:
        """Return a point for each subword at its place, (N, T) of integers to (N, T, n)."""
        return self.dropout(self.place(self.meaning(tokens), offset))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return points of the source (N, S, n), and which of them are padding (N, S)."""
        padding = source == PAD
        return self.encoder(self.read(source), src_key_padding_mask=padding), padding

    def decode(self, target: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """Return what is known after each subword of the target, (N, T) of integers to (N, T, n)."""
        future = torch.ones(2 * target.shape[1:], dtype=torch.bool, device=target.device).triu(1)
        return self.decoder(
            self.read(target), memory, tgt_mask=future, tgt_is_causal=True, memory_key_padding_mask=padding
        )

    def states(self, source: Tensor, target: Tensor) -> Tensor:
        """Return what is known after each subword of the target, given the source: what a GPU records."""
        return self.decode(target, *self.encode(source))

    def loss(self, source: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of the next subwords in nats, with label smoothing.

        The logits are never held: the log-partition comes in tiles, and the mean logit, to which smoothing pulls, is
        linear in the mean of the table in ambient coordinates.
        """
        states = self.states(source, target[:, :-1])
        kept = target[:, 1:] != PAD
        x, right, table, bias = states[kept].float(), target[:, 1:][kept], self.head.weight, self.head.bias
        mean = bias.mean() + (2 if self.of_points else 1) * (x * table.mean(0)).sum(-1)
        if self.of_points:
            total, score = lorentz_logsumexp(x, table, bias, beta=2.0, c=self.c, target=right)
            mean = mean - 2 * LF.time(x, self.c) * LF.time(table, self.c).mean()
        else:
            total, score = linear_logsumexp(x, table, bias, target=right)
        return (total - (1 - smoothing) * score - smoothing * mean).mean()

    @torch.no_grad()
    def translate(self, source: Tensor, width: int, *, cached: bool = True) -> Tensor:
        """Return translations (N, T), filled with END, of sources (N, S) by a beam search.

        With a cache a step computes the new place only; torch's layers have none and read the prefix again.
        """
        memory, padding = (part.repeat_interleave(width, 0) for part in self.encode(source))
        cache = self.decoder.make_cache() if self.curved and cached else []

        def step(prefixes: Tensor) -> Tensor:
            if cache:
                last = self.read(prefixes[:, -1:], prefixes.shape[1] - 1)
                states = self.decoder(last, memory, memory_key_padding_mask=padding, cache=cache)
            else:
                states = self.decode(prefixes, memory, padding)
            return self.head(states[:, -1]).float().log_softmax(-1)

        def reorder(rows: Tensor) -> None:
            for layer in cache:
                layer.target.reorder(rows)  # the memory is the same for all prefixes of a sentence

        length = source.shape[1] + 20
        return beam_search(
            step,
            len(source),
            start=START,
            end=END,
            length=length,
            width=width,
            reorder=reorder,
            device=str(source.device),
        )[0]


@torch.no_grad()
def bring_near(attention: lnn.MultiheadAttention) -> None:
    """Divide the map to the values by sqrt(head_dim), and multiply the map that follows by it.

    As torch draws them, values lie far out: their centroid lies much nearer to the origin than their mean, and what
    attention adds to the residual stream is small. Within a radius of curvature the two means are nearly the same.
    """
    root = attention.head_dim**0.5
    attention.in_proj_weight[2 * attention.embed_dim :] /= root
    attention.out_proj.weight *= root


def load(folder: Path, device: str) -> Translator:
    """Return the model of a training of `translation.py` at its best validation: its folder is that of the checkpoint.

    The kind is the name of the folder up to the seed.
    """
    saved = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
    options = argparse.Namespace(**{name: convert(saved["settings"][name]) for name, convert in OPTIONS.items()})
    model = Translator(folder.name.rpartition("-")[0], len(saved["best"]["word.weight"]), options)
    model.load_state_dict(saved["best"])
    return model.to(device).eval()
