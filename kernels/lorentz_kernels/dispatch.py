"""Which implementation of an operation runs: the one rule that all of them share.

Triton runs on CUDA tensors of compute capability 8.0 or later, in float32, float16 or bfloat16, where it is installed.
Everything else, the CPU and float64 above all, takes the plain torch path of the operation. The argument `backend=` of
an operation overrides this, and the environment variable LORENTZ_KERNELS_BACKEND overrides it for a whole program; both
are "triton" or "torch". Asked for under TRITON_INTERPRET=1, Triton interprets its kernels on CPU tensors.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Backend = Literal["triton", "torch"]

VARIABLE = "LORENTZ_KERNELS_BACKEND"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
INSTALLED = importlib.util.find_spec("triton") is not None
"""Whether Triton can be imported, which happens only when a kernel is about to run."""
_INTERPRETS = os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on", "yes", "y")
_PLAIN = (Tensor, Parameter, type(None))  # looked at first: the question itself takes a microsecond for each


def choose(*tensors: Tensor | None, backend: str | None = None) -> Backend:
    """Return the implementation that runs on these tensors, all that an operation reads; none stands for an absent one.

    Raises:
        ValueError: the backend has an unknown name, or is "triton" where Triton cannot run.
    """
    wanted, source = _wanted(backend)
    if wanted == "torch":
        return "torch"
    interprets = interpreting()
    why_not = _obstacle if torch.compiler.is_compiling() else _known_obstacle
    for tensor in tensors:
        obstacle = None if tensor is None else why_not(tensor.device, tensor.dtype, interprets)
        if obstacle is not None:
            if wanted == "triton":
                raise ValueError(f"{source}=triton cannot run here: {obstacle}")
            return "torch"
    return "triton" if wanted == "triton" or not interprets else "torch"


def interpreting() -> bool:
    """Whether Triton interprets its kernels on the CPU, one program after another; settled when they are made."""
    return _INTERPRETS


def transforming() -> bool:
    """Whether a `torch.func` transform or forward mode is under way: torch's own operators know it, kernels do not."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def composes(*tensors: Tensor | None) -> bool:
    """Whether an operation must be a composition of torch's own: under transforms, and on tensors that wrap others."""
    return transforming() or any(type(t) not in _PLAIN and is_traceable_wrapper_subclass(t) for t in tensors)


def asked(backend: str | None) -> bool:
    """Whether somebody chose the implementation, by the argument or by the variable."""
    return bool(backend or os.environ.get(VARIABLE))


def _wanted(backend: str | None) -> tuple[str | None, str]:
    """Return the backend that was asked for, none where nobody asked, and who asked."""
    source = "backend" if backend else VARIABLE
    wanted = backend or os.environ.get(VARIABLE) or None
    if wanted not in ("triton", "torch", None):
        raise ValueError(f"expected {source}=triton or {source}=torch, got {wanted!r}")
    return wanted, source


def _obstacle(device: torch.device, dtype: torch.dtype, interprets: bool) -> str | None:
    """Return why Triton cannot run on such a tensor, none where it can."""
    if not INSTALLED:
        return "triton is not installed: pip install 'lorentz-relsim[gpu]'"
    if dtype.is_floating_point and dtype not in DTYPES:
        return f"its kernels take float32, float16 and bfloat16, got {dtype}: use backend=torch"
    if device.type == "cpu" and interprets:
        return None
    if device.type != "cuda":
        return f"the tensors are on {device}: move them to a CUDA device, or set TRITON_INTERPRET=1 to interpret"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return f"{device} has compute capability {capability}, and {CAPABILITY} is needed: use backend=torch"
    return None


_known_obstacle = cache(_obstacle)  # which a compiler would warn of
