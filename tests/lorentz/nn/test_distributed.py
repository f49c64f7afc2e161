"""Every module trains on two gloo processes as on one: replicated by DDP, sharded by FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict

import pytest

from tests.lorentz.nn import distributed_worker as worker

pytestmark = pytest.mark.xdist_group("distributed")

NAMES = [name for name, _ in worker.checks()]
TIMEOUT = 240.0  # seconds for all checks, which take about 30


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each rank says of each check, and what a rank that said nothing wrote to its standard error."""
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    errors = [folder / f"{rank}.err" for rank in range(worker.RANKS)]
    processes = []
    for rank, path in enumerate(errors):
        with path.open("w") as file:
            command = [sys.executable, "-m", worker.__name__, str(rank), str(folder)]
            processes.append(subprocess.Popen(command, stderr=file, env=env))
    deadline = time.monotonic() + TIMEOUT
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # the checks that are missing say so
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said: dict[str, list[str]] = defaultdict(list)
    for rank, path in enumerate(errors):
        answers = dict(json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines())
        silence = f"rank {rank} ended or hung before this check:\n{path.read_text()[-2000:]}"
        for name in NAMES:
            said[name].append(answers.get(name, silence))
    return said


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_compute_what_one_does(results: dict[str, list[str]], name: str) -> None:
    failures = [answer for answer in results[name] if answer != "ok"]
    assert not failures, "\n".join(failures)
