"""A training step of the Lorentz Transformer beside its Euclidean twin's: `examples/translation.py` on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.benchmarks.translating import batch, model_and_step

pytestmark = pytest.mark.benchmark(timer=time.process_time)
NOISE = 1.15


@pytest.mark.parametrize("width", [64, 128, 256])
def test_translation_step(side_by_side: Callable[..., float], benchmark: Any, translation: Any, width: int) -> None:
    """At most 1.4 of the twin's."""
    options = translation.arguments().parse_args(["--dim", str(width), "--device", "cpu"])
    pair = batch(64, 16)
    steps = [model_and_step(translation, kind, pair, options)[1] for kind in ("lorentz", "euclidean")]
    value = 1 / side_by_side(*steps, rounds=15)
    benchmark.extra_info["share_of_peer"] = round(value, 3)
    assert value <= 1.4 * NOISE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("width", "sentences", "length", "reduced"),
    [
        (64, 64, 16, False),
        (128, 64, 16, False),
        (256, 64, 16, False),
        (256, 2048, 32, False),
        (256, 2048, 32, True),
    ],
)
def test_translation_step_on_a_gpu(
    benchmark: Any, translation: Any, width: int, sentences: int, length: int, reduced: bool
) -> None:
    """At most 1.4 of the twin's where the GPU has work, compiled, or as a graph; else it is Python that is timed."""
    options = translation.arguments().parse_args(["--dim", str(width), "--device", "cuda"])
    pair = batch(sentences, length, "cuda")
    made = {kind: model_and_step(translation, kind, pair, options, reduced) for kind in ("lorentz", "euclidean")}
    eager = alternated({kind: step for kind, (_, step) in made.items()})
    graphs = alternated({kind: layers_as_graph(model, pair, reduced) for kind, (model, _) in made.items()})
    for model, _ in made.values():
        model.states = torch.compile(model.states, dynamic=True)
    compiled = alternated({kind: step for kind, (_, step) in made.items()})
    benchmark.extra_info |= {
        "gpu": torch.cuda.get_device_name(),
        "step_ms": eager,
        "step_with_compiled_layers_ms": compiled,
        "layers_as_graph_ms": graphs,
        "share_of_peer": eager["lorentz"] / eager["euclidean"],
        "share_of_peer_compiled": compiled["lorentz"] / compiled["euclidean"],
        "share_of_peer_as_graph": graphs["lorentz"] / graphs["euclidean"],
    }
    benchmark.pedantic(made["lorentz"][1], rounds=1)
    assert max(benchmark.extra_info[f"share_of_peer_{how}"] for how in ("compiled", "as_graph")) <= 1.4
    assert sentences * length < 2**16 or benchmark.extra_info["share_of_peer"] <= 1.4


def alternated(calls: dict[str, Callable[[], object]], rounds: int = 5, together: int = 6) -> dict[str, float]:
    """Return the median milliseconds of each call, several of them between two waits for the GPU."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(together):
                call()
            torch.cuda.synchronize()
            if turn:  # the first one compiles
                times[name].append(1e3 * (time.perf_counter() - start) / together)
    return {name: round(median(found), 3) for name, found in times.items()}


def layers_as_graph(model: Any, pair: tuple[Tensor, Tensor], reduced: bool) -> Callable[[], None]:
    """Return what replays encoder and decoder with their gradients; the loss asks the host how many subwords count."""

    def layers() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=reduced):
            states = model.decode(pair[1], *model.encode(pair[0]))
        states.float().square().mean().backward()

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            model.zero_grad(set_to_none=True)
            layers()
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        layers()
    return graph.replay
