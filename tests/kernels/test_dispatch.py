"""The rule that picks an implementation, and that Triton is never needed to import or to run on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels import dispatch
from lorentz_kernels.dispatch import choose, transforming

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORENTZ_KERNELS_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def change(monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object) -> None:
    """Change what an answer depends on that is otherwise remembered."""
    monkeypatch.setattr(where, name, value)
    dispatch._known_obstacle.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """CUDA tensors can be made, without numbers, on a GPU of capability 9.0 with Triton installed."""
    change(monkeypatch, dispatch, "INSTALLED", True)
    change(monkeypatch, torch.cuda, "get_device_capability", lambda device: (9, 0))
    with FakeTensorMode():
        yield monkeypatch
    dispatch._known_obstacle.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_cpu_takes_torch(dtype: torch.dtype) -> None:
    assert choose(torch.ones(2, dtype=dtype), None) == "torch"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_takes_triton(dtype: torch.dtype, cuda: pytest.MonkeyPatch) -> None:
    x = torch.empty(2, device="cuda", dtype=dtype)
    mask = torch.empty(2, device="cuda", dtype=torch.bool)
    assert choose(x, mask, None) == "triton"
    assert choose(x, backend="torch") == "torch"
    cuda.setenv("LORENTZ_KERNELS_BACKEND", "torch")
    assert choose(x) == "torch"
    assert choose(x, backend="triton") == "triton", "the argument counts for more than the variable"


def test_cuda_takes_torch_in_float64_on_old_gpus_and_without_triton(cuda: pytest.MonkeyPatch) -> None:
    x = torch.empty(2, device="cuda")
    assert choose(x, x.double()) == "torch"
    change(cuda, torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose(x) == "torch"
    with pytest.raises(ValueError, match=r"compute capability \(7, 5\), and \(8, 0\) is needed: use backend=torch"):
        choose(x, backend="triton")
    change(cuda, dispatch, "INSTALLED", False)
    assert choose(x) == "torch"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backend": "triton"},
            r"^backend=triton cannot run here: .* on cpu: move them to a CUDA device, or set TRITON_",
        ),
        ({"backend": "cuda"}, r"^expected backend=triton or backend=torch, got 'cuda'$"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        choose(torch.ones(2), **arguments)
    assert "\n" not in str(caught.value)


def test_a_variable_with_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORENTZ_KERNELS_BACKEND", "gpu")
    with pytest.raises(ValueError, match=r"expected LORENTZ_KERNELS_BACKEND=triton or .*=torch, got 'gpu'"):
        choose(torch.ones(2))


def test_the_rule_can_be_traced() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if choose(x) == "torch" else x

    compiled = torch.compile(double, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 2.0))


def test_transforms_are_noticed() -> None:
    seen: list[bool] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(transforming())
        return x.sum()

    x = torch.ones(3)
    note(x)
    torch.vmap(note)(torch.ones(2, 3))
    torch.func.grad(note)(x)
    torch.func.jvp(note, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        note(torch.autograd.forward_ad.make_dual(x, x))
    assert seen == [False, True, True, True, True]


def test_every_package_works_without_triton() -> None:
    """Where importing triton fails, everything else imports, and whoever asks for Triton is told what to install."""
    script = """
import sys
sys.modules["triton"] = None
import pkgutil, importlib
import torch, lorentz, lorentz.nn, lorentz.optim, relsim, lorentz_kernels
for module in pkgutil.walk_packages(lorentz_kernels.__path__, "lorentz_kernels."):
    if module.name.rpartition(".")[2] not in ("triton", "launches"):
        importlib.import_module(module.name)
from lorentz_kernels.dispatch import choose
assert choose(torch.ones(2)) == "torch"
try:
    choose(torch.ones(2), backend="triton")
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "backend=triton cannot run here: triton is not installed: pip install 'lorentz-relsim[gpu]'\n"
