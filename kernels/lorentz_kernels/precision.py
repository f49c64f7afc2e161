"""Sums and products whose terms cancel, kept from being rounded to 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep autocast from rounding products inside."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
