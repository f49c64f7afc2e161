"""A small model of `examples/translation.py`, and sentences, for its tests."""

from __future__ import annotations

import argparse
from typing import Any

import torch

SMALL = ["--dim", "8", "--heads", "2", "--dropout", "0.3", "--scale", "fixed", "--values", "near"]
SMALL += ["--table-curvature", "2"]  # another than that of the layers
WORDS, PAD, START, END = 20, 0, 1, 2


def model_of(example: Any, kind: str, **changed: Any) -> Any:
    """Return a model with weights as large as those of a trained one."""
    module = example("translation").module
    options = module.arguments().parse_args(SMALL)
    model = module.Translator(kind, WORDS, argparse.Namespace(**{**vars(options), **changed})).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def sentences(*lengths: int) -> torch.Tensor:
    rows = [[*torch.randint(4, WORDS, (length,)).tolist(), END] for length in lengths]
    return torch.tensor([row + [PAD] * (max(lengths) + 1 - len(row)) for row in rows])
