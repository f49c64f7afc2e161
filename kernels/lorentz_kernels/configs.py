"""Tile sizes and warps of each kernel: a table shipped with its operation, searched on request only.

An operation's folder holds `configs.json`: for each kernel a list of rules, of which the first that fits counts.

    {"forward": [
        {"gpu": "H100", "dtype": "bfloat16", "width": 128, "config": {"BLOCK": 64, "num_warps": 8}},
        {"config": {"BLOCK": 32, "num_warps": 4}}
    ]}

A rule fits where each of its conditions holds: "gpu" is part of the device's name, "capability" ("9.0") and "dtype"
are equal, and a size is at most the number given. The last rule of a kernel has no condition: it is the default.

With LORENTZ_KERNELS_TUNE=1 a kernel of attention, log-partitions, ranks or distances that meets new sizes times its
configurations for the dtype and keeps the fastest, for sizes with the same next powers of two, in
~/.cache/lorentz_kernels; later runs look there first, whatever the variable says.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import interpreting
from lorentz_kernels.launch import KEPT

Config = dict[str, Any]
Facts = Mapping[str, str | int]

VARIABLE = "LORENTZ_KERNELS_TUNE"
_CHANGES: dict[tuple[str, str], Config] = {}
_PICKED: dict[tuple[Any, ...], Config] = {}
"""What was picked in this process: a launch every few microseconds has no time to ask for the GPU's name again."""


def pick(op: str, kernel: str, like: Tensor, run: Callable[[Config], object] | None = None, **sizes: int) -> Config:
    """Return the configuration of a kernel for tensors like `like` and these sizes.

    Args:
        op: name of the operation's folder.
        kernel: key in its `configs.json`.
        like: a tensor with the device and dtype that count.
        run: launches the kernel with a configuration; what tuning times. It must leave its inputs as they are.
        sizes: what the rules' sizes are compared with.
    """
    about = op, kernel, like.device, like.dtype, os.environ.get(VARIABLE), *sizes.items()
    found = _PICKED.get(about)
    if found is None:
        if len(_PICKED) >= KEPT:
            _PICKED.clear()
        found = _PICKED[about] = _pick(op, kernel, like, run, sizes)
    return {**found, **_CHANGES.get((op, kernel), {})}


def _pick(
    op: str, kernel: str, like: Tensor, run: Callable[[Config], object] | None, sizes: Mapping[str, int]
) -> Config:
    facts: Facts = {**_gpu(like.device), "dtype": str(like.dtype).removeprefix("torch."), **sizes}
    found = _tuned(op).get(kernel, {}).get(bucket(facts)) if "gpu" in facts else None
    if found is None and run is not None and "gpu" in facts and os.environ.get(VARIABLE) == "1":
        found = _tune(op, kernel, facts, run)
    found = found or first(shipped(op)[kernel], facts)
    if found is None:
        raise LookupError(f"no rule of {op}/{kernel} fits {facts}: the last must have no condition")
    return found


def forget() -> None:
    """Forget what was picked and what was read from the cache of tuning, as a new process would."""
    _PICKED.clear()
    _tuned.cache_clear()


@contextmanager
def changed(op: str, kernel: str, **values: Any) -> Iterator[None]:
    """Put these values in the place of those in whatever configuration of a kernel is picked inside."""
    before = _CHANGES.get((op, kernel))
    _CHANGES[op, kernel] = values
    try:
        yield
    finally:
        if before is None:
            del _CHANGES[op, kernel]
        else:
            _CHANGES[op, kernel] = before


@cache
def shipped(op: str) -> dict[str, list[dict[str, Any]]]:
    """Return the table of an operation as it is shipped."""
    return json.loads((resources.files("lorentz_kernels") / op / "configs.json").read_text())


def first(rules: list[dict[str, Any]], facts: Facts) -> Config | None:
    """Return the configuration of the first rule that fits the facts, none where none does."""
    return next((rule["config"] for rule in rules if _fits(rule, facts)), None)


def generation() -> int:
    """Return the compute capability that kernels are compiled for, 90 for 9.0; tensor cores changed there."""
    if interpreting():
        return 90
    from triton.runtime import driver

    return int(driver.active.get_current_target().arch)


def for_dtype(rules: list[dict[str, Any]], dtype: object) -> Iterator[Config]:
    """Yield the configurations that some sizes on some GPU get in this dtype: none behind a rule that always fits."""
    for rule in rules:
        if rule.get("dtype", dtype) == dtype:
            yield rule["config"]
            if rule.keys() <= {"dtype", "config"}:
                return


def bucket(facts: Facts) -> str:
    """Return the facts as one line, sizes rounded up to powers of two."""
    rounded = {name: 1 << (fact - 1).bit_length() if isinstance(fact, int) else fact for name, fact in facts.items()}
    return " ".join(f"{name}={fact}" for name, fact in rounded.items())


def _fits(rule: Mapping[str, Any], facts: Facts) -> bool:
    return all(_holds(name, wanted, facts.get(name)) for name, wanted in rule.items() if name != "config")


def _holds(name: str, wanted: str | int, fact: str | int | None) -> bool:
    if fact is None:
        return False
    if isinstance(wanted, int):
        return int(fact) <= wanted
    return wanted in str(fact) if name == "gpu" else wanted == fact


def _gpu(device: torch.device) -> dict[str, str]:
    """Return name and capability of a GPU; nothing where kernels are interpreted or only compiled."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return {}
    major, minor = torch.cuda.get_device_capability(device)
    return {"gpu": torch.cuda.get_device_name(device), "capability": f"{major}.{minor}"}


def _file(op: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lorentz_kernels" / f"{op}.json"


@cache
def _tuned(op: str) -> dict[str, dict[str, Config]]:
    """Return what tuning found on this machine: for each kernel, the configuration of each bucket."""
    path = _file(op)
    return json.loads(path.read_text()) if path.is_file() else {}


def _tune(op: str, kernel: str, facts: Facts, run: Callable[[Config], object]) -> Config:
    """Time the configurations of the kernel that are for this dtype, keep the fastest under the bucket, return it."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    times: list[tuple[float, int]] = []
    candidates = list(for_dtype(shipped(op)[kernel], facts["dtype"]))
    for index, config in enumerate(candidates):
        try:
            times.append((do_bench(lambda config=config: run(config), return_mode="median"), index))
        except OutOfResources:
            continue  # meant for a larger GPU
    best: Config = candidates[min(times)[1]]
    _tuned(op).setdefault(kernel, {})[bucket(facts)] = best
    _replace(_file(op), json.dumps(_tuned(op), indent=1))
    return best


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
