"""What the documents show for PyKEEN, run against PyKEEN where it is installed; it is no dependency."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import relsim
from relsim.data import nations
from relsim.estimators import RaoBlackwell
from relsim.mlp import MLPDistribution

PAGE = Path(__file__).resolve().parents[2] / "docs" / "relsim-models.md"


@pytest.mark.filterwarnings("ignore")  # those of PyKEEN and of what it imports
def test_pykeen_trains_on_a_kb_with_relations_replaced_by_similar_ones(nations_model: MLPDistribution) -> None:
    pytest.importorskip("pykeen", reason="needs `pip install pykeen`, which nothing else here does")
    (block,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    div = RaoBlackwell().divergence(nations_model, progress=False)
    names: dict[str, object] = {"kb": nations(), "div": div, "relsim": relsim, "torch": torch, "__name__": "page"}
    exec(compile(block, PAGE, "exec"), names)
    kb, factory = names["kb"], names["factory"]
    for split in ("train", "valid"):
        held = {tuple(fact) for fact in factory(split).triples}  # type: ignore[operator]
        facts = kb.splits[split]  # type: ignore[attr-defined]
        expected = zip(facts.head, facts.relation, facts.tail, strict=True)
        assert held == {(kb.entities[h], kb.relations[r], kb.entities[t]) for h, r, t in expected}  # type: ignore[attr-defined]
    sampler = names["SimilarRelations"](mapped_triples=factory("train").mapped_triples, num_negs_per_pos=5)  # type: ignore[operator]
    batch = factory("train").mapped_triples[:64]  # type: ignore[operator]
    wrong = sampler.corrupt_batch(batch)
    assert wrong.shape == (64, 5, 3)
    assert torch.equal(wrong[..., [0, 2]], batch[:, None, [0, 2]].expand(-1, 5, -1))
    assert (wrong[..., 1] != batch[:, None, 1]).all()
    result = names["result"]
    assert 0 < result.get_metric("mrr") <= 1  # type: ignore[attr-defined]
    assert len(result.losses) == 2  # type: ignore[attr-defined]
