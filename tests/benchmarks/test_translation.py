"""A training step of the Lorentz Transformer beside its Euclidean twin's: `examples/translation.py` on one batch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorentz.optim import RiemannianAdam

pytestmark = pytest.mark.benchmark(timer=time.process_time)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOISE = 1.15
SENTENCES, LENGTH, SUBWORDS = 64, 16, 4000


@pytest.mark.parametrize("width", [64, 128, 256])
def test_translation_step(
    side_by_side: Callable[..., float], benchmark: Any, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """At most 1.4 of the twin's: loss with smoothed labels, gradients, clipping, optimiser; the script's defaults."""
    monkeypatch.syspath_prepend(EXAMPLES)
    translation = importlib.import_module("translation")
    options = translation.arguments().parse_args(["--dim", str(width)])
    source, target = torch.randint(4, SUBWORDS, (2, SENTENCES, LENGTH))
    source[::2, -3:] = target[1::2, -3:] = translation.PAD

    def step_of(kind: str) -> Callable[[], None]:
        model = translation.Translator(kind, SUBWORDS, options)
        optimiser = RiemannianAdam(translation.groups_of(model, options))

        def step() -> None:
            optimiser.zero_grad()
            model.loss(source, target, 0.1).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

        return step

    value = 1 / side_by_side(*map(step_of, ("lorentz", "euclidean")), rounds=15)
    benchmark.extra_info["share_of_peer"] = round(value, 3)
    assert value <= 1.4 * NOISE
