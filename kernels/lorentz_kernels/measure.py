"""Work to be timed beside its peers, and results to be checked, on whatever GPU is at hand.

An operation lists both in `benchmarks.py` in its folder: `benchmarks() -> list[Benchmark]`, `checks() -> list[Check]`,
and, where a peer's error is of interest, `accuracies() -> list[Accuracy]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], object]
Timer = Callable[[Call], float]
"""Returns the seconds that a call takes."""


@dataclass(frozen=True)
class Waiting:
    """A call in which the host waits for the GPU: no graph records it, and a try leaves torch broken behind."""

    call: Call

    def __call__(self) -> object:
        """Call it."""
        return self.call()


@dataclass(frozen=True)
class Work:
    """One piece of work, done by each of `calls`: "ours", then peers, and variants of ours that are in question."""

    calls: Mapping[str, Call]
    flops: float = 0.0  # floating-point operations and bytes that the work asks for, however it is done
    bytes: float = 0.0
    goals: Mapping[str, float] = field(default_factory=dict)  # how many times the speed of a peer ours should have
    share: float = 0.0  # of what the device can do, that ours should reach
    absent: tuple[str, ...] = ()  # peers that are not installed


@dataclass(frozen=True)
class Benchmark:
    """Work, whose tensors are made when its turn comes; `by_host` times the calls themselves, not what they start."""

    name: str
    make: Callable[[torch.device], Work]
    by_host: bool = False


@dataclass(frozen=True)
class Check:
    """Pairs of what is expected, in float64, and what came out, whose error ratio has a limit for each dtype."""

    name: str
    run: Callable[[torch.device, torch.dtype], Iterable[tuple[str, Tensor, Tensor]]]
    limits: Mapping[torch.dtype, float]


@dataclass(frozen=True)
class Accuracy:
    """Errors of "ours" and of peers on the same work, in units that its name says, and goals for some of them."""

    name: str
    run: Callable[[torch.device], Mapping[str, float]]
    goals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What the device was seen to do: floating-point operations in a product, and bytes in a copy, per second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Reading:
    """What was measured of one benchmark; none for a call that ran out of memory."""

    op: str
    name: str
    milliseconds: dict[str, float | None]
    megabytes: dict[str, float | None]
    tflops: float | None
    gbytes: float | None
    share: float | None  # of the limits, whichever is nearer
    faster: dict[str, float]
    missed: list[str]  # goals that were not reached
    absent: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the reading by name."""
        return asdict(self)


def kernels(device: torch.device) -> str | None:
    """Return the backend to ask for where kernels are to be checked, whatever their size; a CPU has none."""
    return "triton" if device.type == "cuda" else None


def installed(peers: Mapping[str, tuple[str, Call]]) -> tuple[dict[str, Call], tuple[str, ...]]:
    """Return the peers, given with the modules that they import, that are installed, and the names of the others."""
    there = {name: call for name, (module, call) in peers.items() if find_spec(module) is not None}
    return there, tuple(name for name in peers if name not in there)


def read(op: str, benchmark: Benchmark, device: torch.device, limits: Limits, timer: Timer) -> Reading:
    """Time every call of a benchmark."""
    work = benchmark.make(device)
    seconds: dict[str, float | None] = {}
    megabytes: dict[str, float | None] = {}
    for name, call in work.calls.items():
        try:
            megabytes[name] = _peak(call, device)
            seconds[name] = timer(call)
        except torch.OutOfMemoryError:
            megabytes[name] = seconds[name] = None
    ours = seconds["ours"]
    faster = {name: s / ours for name, s in seconds.items() if s and ours and name != "ours"}
    share = max(work.flops / limits.flops, work.bytes / limits.bytes) / ours if ours else None
    return Reading(
        op=op,
        name=benchmark.name,
        milliseconds={name: None if s is None else round(1e3 * s, 4) for name, s in seconds.items()},
        megabytes=megabytes,
        tflops=round(work.flops / ours / 1e12, 1) if ours and work.flops else None,
        gbytes=round(work.bytes / ours / 1e9, 1) if ours and work.bytes else None,
        share=round(share, 3) if share else None,
        faster={name: round(ratio, 2) for name, ratio in faster.items()},
        missed=_missed(work, faster, share),
        absent=list(work.absent),
    )


def _missed(work: Work, faster: Mapping[str, float], share: float | None) -> list[str]:
    missed = [f"{name} {goal:g}x" for name, goal in work.goals.items() if name in faster and faster[name] < goal]
    return missed + ([f"share {work.share:.0%}"] if share is not None and share < work.share else [])


def _peak(call: Call, device: torch.device) -> float | None:
    """Return the megabytes that a call holds at most beside what was there; none where nobody counts them."""
    if device.type != "cuda":
        call()
        return None
    call()  # compiles, and fills the caches of libraries
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)


def verdicts(op: str, check: Check, device: torch.device) -> list[dict[str, Any]]:
    """Return the error ratios of a check for each of its dtypes, beside their limits."""
    found = []
    for dtype, limit in check.limits.items():
        for name, expected, actual in check.run(device, dtype):
            ratio = error_ratio(expected, actual)
            label = f"{check.name}: {name}"
            number = str(dtype).removeprefix("torch.")
            passed = ratio <= limit  # false for NaN
            found.append({"op": op, "name": label, "dtype": number, "ratio": ratio, "limit": limit, "passed": passed})
    return found


def errors(op: str, accuracy: Accuracy, device: torch.device) -> dict[str, Any]:
    """Return the errors by name, and which goals they miss."""
    found = dict(accuracy.run(device))
    missed = [f"{name} {goal:.0e}" for name, goal in accuracy.goals.items() if not found[name] <= goal]
    return {"op": op, "name": accuracy.name, "errors": found, "missed": missed}


def error_ratio(expected: Tensor, actual: Tensor) -> float:
    """RMS of the difference over RMS of what is expected, both in float64; of nothing, and of equal zeros, 0."""
    wanted = expected.detach().double()
    error = (wanted - actual.detach().double()).square().sum().sqrt().item()
    return error / max(wanted.square().sum().sqrt().item(), torch.finfo(torch.float32).tiny) if error else 0.0
