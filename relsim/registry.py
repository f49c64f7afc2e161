"""The kinds of fact distributions by the names that folders and commands give them; a class is imported on demand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relsim.distribution import FactDistribution
    from relsim.neural import NeuralDistribution

NEURAL = {
    "mlp": "relsim.mlp.MLPDistribution",
    "lorentz": "relsim.lorentz.LorentzDistribution",
    "classes": "relsim.factored.ClassFactoredDistribution",
}
KINDS = {**NEURAL, "counts": "relsim.counts.CountsDistribution"}


def class_of(kind: str) -> type[FactDistribution]:
    """Return the class of a kind, one of `KINDS`: reading a model does not wait for the libraries of the others."""
    module, _, name = KINDS[kind].rpartition(".")
    return getattr(import_module(module), name)


def neural_class_of(kind: str) -> type[NeuralDistribution]:
    """Return the class of a kind that is trained, one of `NEURAL`."""
    module, _, name = NEURAL[kind].rpartition(".")
    return getattr(import_module(module), name)
