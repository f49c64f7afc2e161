"""Kernels as operators of torch: opaque to tracing, with the shapes that they would return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import interpreting

_LIBRARY = torch.library.Library("lorentz_kernels", "FRAGMENT")


def operator(
    schema: str, *, triton: Callable[..., Any], torch_path: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register `torch.ops.lorentz_kernels.NAME` and return it; it has no gradient of its own.

    Args:
        schema: "NAME(Tensor x, float c) -> Tensor", a tensor first; outputs are fresh, or none if it writes in place.
        triton: runs on CUDA tensors, and on CPU tensors where Triton interprets; it imports Triton when it is called.
        torch_path: runs on other CPU tensors; the same result from torch's own operators.
        fake: returns empty tensors of the shapes, dtypes and strides of the result.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

    def on_cuda(x: Tensor, *arguments: Any, **options: Any) -> Any:
        if x.device.index == torch.cuda.current_device():
            return triton(x, *arguments, **options)
        with torch.cuda.device_of(x):  # Triton launches on the current device
            return triton(x, *arguments, **options)

    def on_cpu(x: Tensor, *arguments: Any, **options: Any) -> Any:
        return (triton if interpreting() else torch_path)(x, *arguments, **options)

    _LIBRARY.impl(name, on_cuda, "CUDA")
    _LIBRARY.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"lorentz_kernels::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.lorentz_kernels, name).default
