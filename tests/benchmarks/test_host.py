"""What Python costs a training step on a GPU, in units of the Euclidean twin's: few numbers, launches of nothing.

Beside an H200 in float32 the figure was 2.1 where the GPU's was 2.2 and 2.1, 1.86 where it was 1.86 and 1.81, and 1.43
where it was 1.48 to 1.52.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks.translating import batch, model_and_step

pytest.importorskip("triton")
from tests.benchmarks.hollow import launch_nothing

NOISE, WORDS = 1.15, 200  # what the CPU has to multiply is then next to nothing
pytestmark = pytest.mark.benchmark(timer=time.process_time)


def test_host_of_a_translation_step(
    side_by_side: Callable[..., float], benchmark: Any, translation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 1.5 of the twin's."""
    launch_nothing(monkeypatch)
    options = translation.arguments().parse_args(["--dim", "64", "--device", "cpu"])
    pair = batch(4, 5, words=WORDS)
    steps = [model_and_step(translation, kind, pair, options, words=WORDS)[1] for kind in ("lorentz", "euclidean")]
    value = 1 / side_by_side(*steps, rounds=25)
    benchmark.extra_info["share_of_peer"] = round(value, 3)
    assert value <= 1.5 * NOISE
