"""Models that the benchmarks share (fitted once, kept in `.benchmarks/`), and ratios measured side by side."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.divergence import Divergence
from relsim.estimators import Enumerate
from relsim.ingest import open_kb
from relsim.kb import KB
from relsim.models import load_model, save_model
from relsim.optimising import Training
from relsim.training import fit

RESULTS = Path(__file__).parent / "results"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CACHE = Path(__file__).resolve().parents[2] / ".benchmarks"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # CPU seconds compare cleanly where nothing waits for another thread


@pytest.fixture(scope="session")
def fb15k(shared_data: Path) -> KB:
    return open_kb(shared_data / "fb15k-237")


@pytest.fixture(scope="session")
def fb15k_model(fb15k: KB) -> FactDistribution:
    """FB15k-237 fitted as the README says; 9 CPU minutes the first time."""
    folder = CACHE / "fb15k-237"
    if not folder.exists():
        training = Training(epochs=12, batch=1024, table_decay=1.0)
        resume = CACHE / "fb15k-237.training"
        save_model(fit(fb15k, dropout=0.2, training=training, resume=resume), folder)
        shutil.rmtree(resume)
    return load_model(folder)


@pytest.fixture(scope="session")
def fb15k_exact(fb15k_model: FactDistribution) -> Divergence:
    """The exact divergences of that model; 6 CPU minutes the first time."""
    folder = CACHE / "fb15k-237.exact"
    if not folder.exists():
        Enumerate().divergence(fb15k_model).save(folder)
    return Divergence.load(folder)


@pytest.fixture(autouse=True)
def _recorded(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[None]:
    """Keep what a benchmark put into `extra_info`, with date, machine and versions, in `results/`."""
    yield
    if benchmark.extra_info and benchmark.enabled:
        where = {
            "date": datetime.now(tz=timezone.utc).date().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        figures = {key: round(v, 5) if isinstance(v, float) else v for key, v in benchmark.extra_info.items()}
        name = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")
        (RESULTS / f"{name}.json").write_text(json.dumps({**where, **figures}, indent=1) + "\n")


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    return names[0].strip() if names else platform.processor()


@pytest.fixture
def side_by_side(benchmark: Any) -> Callable[..., float]:
    """Return a function that times two callables in turn, A B A B, and returns the median ratio of CPU seconds B / A.

    A is what the benchmark reports; the ratio, and the medians of both, go into its `extra_info`. `scale` says how many
    times its work the peer would have to do to do all of A's.
    """

    def run(ours: Callable[[], Any], peer: Callable[[], Any], *, rounds: int = 3, scale: float = 1.0) -> float:
        times: list[tuple[float, float]] = []
        ours(), peer()  # warm caches and allocators
        for _ in range(rounds):
            times.append((cpu_seconds(ours), scale * cpu_seconds(peer)))
        ratio = median(b / a for a, b in times)
        benchmark.extra_info |= {
            "ratio": round(ratio, 2),
            "ours_cpu_s": round(median(a for a, _ in times), 5),
            "peer_cpu_s": round(median(b for _, b in times), 5),
        }
        benchmark.pedantic(ours, rounds=1)
        return ratio

    return run


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.fixture
def translation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, whose own imports are of its folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("translation")
    assert module.PAD == 0
    return module
