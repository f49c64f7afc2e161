"""`python -m lorentz_kernels.bench`: every kernel on this GPU, its results checked, its time beside its peers'."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click
import torch

from lorentz_kernels.command import Refused, modules, named
from lorentz_kernels.dispatch import INSTALLED
from lorentz_kernels.measure import Call, Check, Limits, Reading, Timer, Waiting, errors, read, verdicts

T = TypeVar("T")
Broken = list[dict[str, str]]
"""What did not run: the operation, the name of the work, the error."""
RESULTS = Path("tests/benchmarks/results")
CHECKED, ROW, CALL, COMPILED = 60.0, 3.5, 0.25, 20.0  # seconds of `forecast`


def on_device(call: Call) -> float:
    """Return the median seconds that the GPU is busy with a call, as a graph: the host cannot make it wait."""
    return directly(call if isinstance(call, Waiting) else recorded(call))


def directly(call: Call) -> float:
    """Return the median seconds between the GPU's start and end of a call, the host's included if it is slower."""
    from triton.testing import do_bench

    return 1e-3 * do_bench(call, warmup=20, rep=80, return_mode="median")


def recorded(call: Call) -> Call:
    """Return what replays a call."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        call()  # compiles, and sets libraries up for this stream
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def by_host(call: Call, calls: int = 300) -> float:
    """Return the seconds that a call takes to return, the GPU having caught up before and after."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    elapsed = time.perf_counter() - start
    torch.cuda.synchronize()
    return elapsed / calls


def seen(device: torch.device, timer: Timer) -> Limits:
    """Return what the device does in a product of 8192 x 8192 bfloat16 matrices, and in a copy of 1 GiB."""
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    flops, moved = 2 * 8192**3, 2 * source.numel() * source.element_size()
    return Limits(flops / timer(lambda: matrix @ matrix), moved / timer(lambda: target.copy_(source)))


def forecast(ops: dict[str, ModuleType], device: torch.device) -> float:
    """Return the seconds that a run should take: the model behind the limit of 8 minutes, to be checked by a run.

    Checks run side by side; a row compiles two kernels, is set up and times each call for a tenth of a second, twice;
    a peer of `torch.compile` is compiled by it.
    """
    works = [benchmark.make(device) for module in ops.values() for benchmark in module.benchmarks()]
    calls = [name for work in works for name in work.calls]
    compiled = sum(name == "compile" for name in calls)
    return CHECKED + ROW * len(works) + CALL * len(calls) + COMPILED * compiled


def attempt(op: str, name: str, call: Callable[[], T], broken: Broken) -> T | None:
    """Return what a call returns, or nothing and note its error: what one kernel breaks must not hide the others."""
    try:
        return call()
    except Exception as error:  # a compiler, a driver and a peer each have errors of their own
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        broken.append({"op": op, "name": name, "error": message})
        return None


def check_all(ops: dict[str, ModuleType], device: torch.device, workers: int, broken: Broken) -> list[dict[str, Any]]:
    """Return the verdicts of all checks; `workers` processes compile side by side, none means here."""
    named = [(op, index) for op, module in ops.items() for index in range(len(module.checks()))]
    if not workers:
        found = [_check(op, ops[op].checks()[index], device) for op, index in named]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(_listed_check, *zip(*named, strict=True), repeat(str(device))))
    broken += [each for _, more in found for each in more]
    return [each for verdict, _ in found for each in verdict]


def _check(op: str, check: Check, device: torch.device) -> tuple[list[dict[str, Any]], Broken]:
    broken: Broken = []
    return attempt(op, check.name, lambda: verdicts(op, check, device), broken) or [], broken


def _listed_check(op: str, index: int, device: str) -> tuple[list[dict[str, Any]], Broken]:
    """Run one check of an operation, in a process of its own."""
    return _check(op, modules("benchmarks")[op].checks()[index], torch.device(device))


def run(
    ops: dict[str, ModuleType],
    device: torch.device,
    limits: Limits,
    timers: tuple[Timer, Timer],
    seconds: float,
    workers: int = 0,
) -> dict[str, Any]:
    """Check and time the operations; start nothing after `seconds`, and say what was left out and what broke.

    `timers` are those of the device and of the host.
    """
    end = time.monotonic() + seconds
    broken: Broken = []
    left_out: list[str] = []
    checks = check_all(ops, device, workers, broken)
    accuracies = [(op, each) for op, module in ops.items() for each in getattr(module, "accuracies", list)()]
    compared = [attempt(op, each.name, partial(errors, op, each, device), broken) for op, each in accuracies]
    readings = []
    for op, each in [(op, each) for op, module in ops.items() for each in module.benchmarks()]:
        if time.monotonic() >= end:
            left_out.append(f"{op}: {each.name}")
            continue
        readings.append(attempt(op, each.name, partial(read, op, each, device, limits, timers[each.by_host]), broken))
    return {
        "checks": checks,
        "accuracies": [found for found in compared if found],
        "benchmarks": [reading.as_dict() for reading in readings if reading],
        "left_out": left_out,
        "broken": broken,
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the readings, then what failed, was missed or was left out."""
    yield "| operation | work | ms | TFLOP/s | GB/s | of the limit | MB | faster than |"
    yield "|---|---|---|---|---|---|---|---|"
    for each in (Reading(**reading) for reading in result["benchmarks"]):
        peers = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in each.faster.items())
        share = "" if each.share is None else f"{each.share:.0%}"
        figures = (each.milliseconds["ours"], each.tflops, each.gbytes, share, each.megabytes["ours"])
        cells = ["out of memory" if each.milliseconds["ours"] is None else "", *figures[1:]]
        cells[0] = cells[0] or f"{figures[0]:.3f}"
        yield f"| {each.op} | {each.name} | " + " | ".join("" if c is None else str(c) for c in cells) + f" | {peers} |"
    yield ""
    failed = [check for check in result["checks"] if not check["passed"]]
    yield f"{len(result['checks']) - len(failed)} of {len(result['checks'])} results are within their limits"
    for check in failed:
        yield f"wrong: {check['op']}, {check['name']} in {check['dtype']}: {check['ratio']:.1e} > {check['limit']:.1e}"
    for each in result["accuracies"]:
        found = ", ".join(f"{name} {error:.1e}" for name, error in each["errors"].items())
        yield f"error: {each['op']}, {each['name']}: {found}"
    for reading in [*result["accuracies"], *result["benchmarks"]]:
        if reading["missed"]:
            yield f"goal missed: {reading['op']}, {reading['name']}: {', '.join(reading['missed'])}"
    for name in sorted({name for reading in result["benchmarks"] for name in reading["absent"]}):
        yield f"not installed: {name}"
    for each in result["broken"]:
        yield f"broken: {each['op']}, {each['name']}: {each['error']}"
    for name in result["left_out"]:
        yield f"left out, the time was over: {name}"


@click.command()
@click.argument("ops", nargs=-1, metavar="[OPERATION]...")
@click.option("--seconds", default=420.0, show_default=True, help="Start no benchmark after this time.")
@click.option(
    "--out", default=RESULTS, type=click.Path(path_type=Path), show_default=True, help="Folder of the result."
)
def main(ops: tuple[str, ...], seconds: float, out: Path) -> None:
    """Check every kernel on this GPU and time it beside its peers; print a table and write it as JSON.

    Times are medians; shares are of what the same GPU did in a large product and a large copy in the same run. Exits
    with 1 if a result is wrong or a call broke.

    Example: python -m lorentz_kernels.bench linear
    """
    listed = named(ops, modules("benchmarks"), "benchmarks")
    if not torch.cuda.is_available():
        raise Refused("benchmarks of kernels need a CUDA device, and torch sees none")
    if not INSTALLED:
        raise Refused("benchmarks of kernels need triton: pip install 'lorentz-relsim[gpu]'")
    if not out.is_dir():
        raise Refused(f"no folder {out}: run this from the root of the checkout, or give --out")
    device = torch.device("cuda", torch.cuda.current_device())
    limits = seen(device, directly)  # the copy of a graph was seen at two thirds of the speed
    result = run(listed, device, limits, (on_device, by_host), seconds, workers=min(8, os.cpu_count() or 1))
    gpu = torch.cuda.get_device_name(device)
    where = {**_where(gpu), "product_tflops": round(limits.flops / 1e12), "copy_gbytes": round(limits.bytes / 1e9)}
    name = re.sub("[^a-z0-9]+", "_", gpu.lower()).strip("_")
    (out / f"kernels_{name}.json").write_text(json.dumps({**where, **result}, indent=1) + "\n")
    click.echo("\n".join([f"{gpu}: product {where['product_tflops']} TFLOP/s, copy {where['copy_gbytes']} GB/s", ""]))
    click.echo("\n".join(table(result)))
    if result["broken"] or not all(check["passed"] for check in result["checks"]):
        raise SystemExit(1)


def _where(gpu: str) -> dict[str, str]:
    import triton

    today = datetime.now(tz=timezone.utc).date().isoformat()
    return {"date": today, "gpu": gpu, "torch": torch.__version__, "triton": triton.__version__}


if __name__ == "__main__":
    main()
