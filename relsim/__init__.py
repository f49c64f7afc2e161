"""How similar are two relations of a knowledge base?

    import relsim

    kb = relsim.open_kb("data/codex-s")
    model = relsim.fit(kb)
    div = relsim.RaoBlackwell().divergence(model)
    relsim.neighbours(div, "P27", k=5)

After Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, arXiv:1907.08937.
Names load on first use, so that `relsim --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from relsim.comparing import compare, merge
    from relsim.counts import CountsDistribution
    from relsim.distribution import FactDistribution
    from relsim.divergence import Divergence
    from relsim.errors import RelsimError
    from relsim.estimators import Enumerate, MonteCarlo, RaoBlackwell
    from relsim.evolving import align, side_by_side, updated
    from relsim.exporting import export
    from relsim.factored import ClassFactoredDistribution
    from relsim.ingest import open_kb
    from relsim.inverse import inverses
    from relsim.kb import KB, Triples
    from relsim.kinds import hierarchy
    from relsim.lorentz import LorentzDistribution
    from relsim.margin import SimilarityMarginLoss
    from relsim.mlp import MLPDistribution
    from relsim.models import load_model, save_model
    from relsim.optimising import Training
    from relsim.report import write_report
    from relsim.sampling import EntityNegativeSampler, SimilarityNegativeSampler
    from relsim.search import covered_pairs, nearest, similar_pairs
    from relsim.similar import neighbours, similarity
    from relsim.training import fit, fit_counts

_HOMES = {
    "comparing": ["compare", "merge"],
    "counts": ["CountsDistribution"],
    "distribution": ["FactDistribution"],
    "divergence": ["Divergence"],
    "errors": ["RelsimError"],
    "estimators": ["Enumerate", "MonteCarlo", "RaoBlackwell"],
    "evolving": ["align", "side_by_side", "updated"],
    "exporting": ["export"],
    "factored": ["ClassFactoredDistribution"],
    "ingest": ["open_kb"],
    "inverse": ["inverses"],
    "kb": ["KB", "Triples"],
    "kinds": ["hierarchy"],
    "lorentz": ["LorentzDistribution"],
    "margin": ["SimilarityMarginLoss"],
    "mlp": ["MLPDistribution"],
    "models": ["load_model", "save_model"],
    "report": ["write_report"],
    "sampling": ["EntityNegativeSampler", "SimilarityNegativeSampler"],
    "search": ["covered_pairs", "nearest", "similar_pairs"],
    "similar": ["neighbours", "similarity"],
    "optimising": ["Training"],
    "training": ["fit", "fit_counts"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "KB",
    "ClassFactoredDistribution",
    "CountsDistribution",
    "Divergence",
    "EntityNegativeSampler",
    "Enumerate",
    "FactDistribution",
    "LorentzDistribution",
    "MLPDistribution",
    "MonteCarlo",
    "RaoBlackwell",
    "RelsimError",
    "SimilarityMarginLoss",
    "SimilarityNegativeSampler",
    "Training",
    "Triples",
    "__version__",
    "align",
    "compare",
    "covered_pairs",
    "export",
    "fit",
    "fit_counts",
    "hierarchy",
    "inverses",
    "load_model",
    "merge",
    "nearest",
    "neighbours",
    "open_kb",
    "save_model",
    "side_by_side",
    "similar_pairs",
    "similarity",
    "updated",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
