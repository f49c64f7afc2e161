"""Denormal weights, which decay leaves behind: matrix products crawl on them."""

from __future__ import annotations

import torch


def zero_denormals_(model: torch.nn.Module) -> None:
    """Set parameters below the smallest normal number to zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter.abs() < torch.finfo(parameter.dtype).tiny] = 0
