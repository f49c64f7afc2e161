"""Small fact distributions for the tests of relsim."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from relsim.data import nations
from relsim.kb import KB
from relsim.mlp import MLPDistribution
from relsim.optimising import Training
from relsim.training import fit


def random_model(
    entities: int, relations: int, seed: int = 0, dim: int = 6, hidden: int = 16, scale: float = 0.9
) -> MLPDistribution:
    """An untrained model in float64, with weights large enough that its relations differ by a few nats."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = [f"e{i}" for i in range(entities)], [f"r{i}" for i in range(relations)]
        model = MLPDistribution(*names, torch.arange(relations), dim=dim, hidden=hidden).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * (scale if parameter.ndim > 1 else 0.5))
                if parameter.shape[-1] == hidden:
                    parameter.mul_(hidden**-0.5)
    return model


@pytest.fixture(scope="session")
def nations_model() -> MLPDistribution:
    return fit(nations(), hidden=64, dim=16, training=Training(epochs=8), progress=False)


@pytest.fixture(scope="session")
def umls_model(shared_data: Path) -> MLPDistribution:
    from relsim.ingest import open_kb

    return fit(open_kb(shared_data / "umls"), hidden=128, dim=32, training=Training(epochs=6), progress=False)


@pytest.fixture(scope="session")
def codex(shared_data: Path) -> KB:
    from relsim.ingest import open_kb

    return open_kb(shared_data / "codex-s")


@pytest.fixture(scope="session")
def codex_model(codex: KB) -> MLPDistribution:
    return fit(codex, hidden=128, dim=32, training=Training(epochs=3, batch=512), progress=False)
