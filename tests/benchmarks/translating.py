"""A training step of `examples/translation.py` on one batch, for the benchmarks that time it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lorentz.optim import RiemannianAdam

SUBWORDS = 4000


def batch(sentences: int, length: int, device: str = "cpu", words: int = SUBWORDS) -> tuple[Tensor, Tensor]:
    source, target = torch.randint(4, words, (2, sentences, length))
    source[::2, -3:] = target[1::2, -3:] = 0
    return source.to(device), target.to(device)


def model_and_step(
    translation: Any,
    kind: str,
    pair: tuple[Tensor, Tensor],
    options: Any,
    reduced: bool = False,
    words: int = SUBWORDS,
) -> tuple[torch.nn.Module, Callable[[], None]]:
    """A model, and its step: loss with smoothed labels, gradients, clipping, optimiser; the script's defaults."""
    model = translation.Translator(kind, words, options).to(options.device)
    optimiser = RiemannianAdam(translation.groups_of(model, options))

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(options.device, torch.bfloat16, enabled=reduced, cache_enabled=False):
            loss = model.loss(*pair, 0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return model, step
