"""A training step of the Lorentz Transformer beside its Euclidean twin's: `examples/translation.py` on one batch."""

from __future__ import annotations

import argparse
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
    """At most 1.4 of the twin's from width 128 on: loss with smoothed labels, gradients, clipping, optimiser.

    Two layers and two. At width 64, where what is done between the products weighs more, the bar of 1.4 is missed: the
    share is recorded and held to what it was.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    translation = importlib.import_module("translation")
    options = argparse.Namespace(
        dim=width,
        heads=4,
        layers=2,
        dropout=0.1,
        residual="sum",
        scale="fixed",
        spread=0.5,
        values="near",
        curvature=1.0,
        radius="one",
        lr=0.001,
        table_rate=2.0,
        weight_decay=0.0,
    )
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
    assert value <= (1.65 if width == 64 else 1.4) * NOISE
