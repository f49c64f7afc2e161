"""Batches and passes of `examples/translation.py` that are recorded as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from relsim.errors import RelsimError
from tests.examples.translating import END, SMALL, WORDS, model_of, sentences

Make = Callable[[str], Any]


@pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
def test_a_batch_to_be_recorded_has_another_shape_and_the_same_loss(example: Make, kind: str) -> None:
    module, model = example("translation").module, model_of(example, kind)
    options = module.arguments().parse_args([*SMALL, "--tokens", "80", "--device", "cpu"])
    pairs = [(rows[0], rows[1]) for rows in torch.randint(4, WORDS, (4, 2, 11)).tolist()]
    losses, shapes = [], []
    for options.graphs in (False, True):
        source, target = next(module.read_batches(pairs, options))
        shapes.append((*source.shape, *target.shape))
        loss = model.loss(source, target, 0.1)
        losses.append([loss, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])])
    assert shapes == [(4, 12, 4, 13), (5, 16, 5, 16)]
    torch.testing.assert_close(*losses)


def test_recorded_batches_hold_every_pair_in_few_shapes(example: Make) -> None:
    module = example("translation").module
    options = module.arguments().parse_args([*SMALL, "--tokens", "200", "--device", "cpu"])
    options.graphs = True
    pairs = [([k] * (k % 13 + 1), [k] * (k % 11 + 1)) for k in range(4, 404)]
    batches = list(module.read_batches(pairs, options, shuffled=True))
    found = [row[0] for source, _ in batches for row in source.tolist() if row[0] != END]
    assert sorted(found) == list(range(4, 404))
    assert {side.shape[1] % 8 for batch in batches for side in batch} == {0}
    assert all(source.numel() <= 200 and len(source) == len(target) for source, target in batches)
    assert len({(source.shape, target.shape) for source, target in batches}) <= 6


def test_each_shape_is_recorded_once_and_only_in_training(example: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module, model = example("translation").module, model_of(example, "lorentz")
    pair = sentences(5, 3), sentences(4, 6)
    expected, made = model.states(*pair), []

    def recorded(graph: torch.nn.Module, sample: tuple[torch.Tensor, ...], **_: Any) -> torch.nn.Module:
        made.append([tuple(x.shape) for x in sample])
        assert {id(p) for p in graph.parameters()} == {id(p) for p in model.parameters()}
        return graph

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    names = list(model.state_dict())
    model.states = module.Recorded(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.states(*pair), expected)
    assert made == []
    model.train()
    for lengths in ((5, 3), (3, 5), (7, 2), (5, 4)):
        model.states(sentences(*lengths), sentences(4, 6))
    with torch.no_grad():
        model.states(sentences(1, 1), sentences(4, 6))
    assert made == [[(2, 6), (2, 7)], [(2, 8), (2, 7)]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["lorentz", "euclidean"])
def test_recorded_passes_give_what_the_layers_give(example: Make, kind: str, reduced: bool) -> None:
    module, model = example("translation").module, model_of(example, kind, dropout=0.0).cuda().train()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def derived(batch: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=reduced, cache_enabled=False):
            loss = model.loss(*batch, 0.1)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in parameters)]

    batches = [(sentences(*s).cuda(), sentences(*t).cuda()) for s, t in (((5, 3), (4, 6)), ((9, 1), (2, 8)))]
    batches = [*batches, (batches[0][0].flip(0), batches[0][1].flip(0)), batches[1]]
    eager = [derived(batch) for batch in batches]
    model.states = module.Recorded(model)
    for expected, batch in zip(eager, batches, strict=True):
        for one, other in zip(expected, derived(batch), strict=True):
            assert (one - other).norm() <= (3e-2 if reduced else 2e-4) * one.norm() + 1e-7
    assert len(model.states.passes) == 2


def test_graphs_without_a_gpu_are_refused(example: Make) -> None:
    with pytest.raises(RelsimError, match=r"^--graphs needs a GPU, got --device cpu: leave it out$"):
        example("translation").run("--graphs", "--device", "cpu")
