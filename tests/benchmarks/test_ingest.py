"""N-Triples to integer ids: relsim beside pyoxigraph and rdflib with a dictionary; CPU seconds on one thread.

`make bench K=ingest` takes 2 million triples; `RELSIM_TRIPLES=20000000 make bench K=ingest_alone` takes the 20 million
of which the documents speak, and 4 GB of disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyoxigraph
import pytest
import rdflib

import relsim
from relsim.ingest import ingest_into
from relsim.kb import KB
from tests.benchmarks.dumps import write_ntriples

pytestmark = pytest.mark.benchmark(timer=time.process_time)
NOISE = 1.15
TRIPLES = int(os.environ.get("RELSIM_TRIPLES", "2000000"))
RDFLIB_SHARE = 100  # rdflib parses one triple in so many; its time for all of them is the product


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "dump.nt"
    write_ntriples(path, TRIPLES, TRIPLES // 5)
    return path


def by_pyoxigraph(path: Path) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    """What a script does that streams a dump through pyoxigraph."""
    names: dict[str, int] = {}
    facts = []
    for quad in pyoxigraph.parse(path=str(path), format=pyoxigraph.RdfFormat.N_TRIPLES):
        terms = (quad.subject.value, quad.predicate.value, quad.object.value)
        head, relation, tail = (names.setdefault(term, len(names)) for term in terms)
        facts.append((head, relation, tail))
    return names, facts


def by_rdflib(path: Path) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    """What a script does that loads a dump with rdflib."""
    names: dict[str, int] = {}
    graph = rdflib.Graph().parse(path, format="nt")
    return names, [tuple(names.setdefault(str(term), len(names)) for term in triple) for triple in graph]  # type: ignore[misc]


def test_ingest_against_pyoxigraph(dump: Path, tmp_path: Path, side_by_side: Callable[..., float]) -> None:
    """At least 1.5 times as many triples per second as a script around pyoxigraph, which neither sorts nor saves."""
    ratio = side_by_side(lambda: ingest_into(tmp_path / "kb", dump), lambda: by_pyoxigraph(dump))
    names, facts = by_pyoxigraph(dump)
    kb = KB.load(tmp_path / "kb")
    assert (len(kb.train), kb.train.total) == (len(set(facts)), len(facts))
    assert len(kb.entities) + len(kb.relations) == len(names)
    assert ratio >= 1.5 / NOISE


def test_ingest_against_rdflib(dump: Path, tmp_path: Path, side_by_side: Callable[..., float]) -> None:
    """At least 10 times as many as a script around rdflib, of whose work one hundredth is timed."""
    part = tmp_path / "part.nt"
    with dump.open("rb") as lines:
        part.write_bytes(b"".join(next(lines) for _ in range(TRIPLES // RDFLIB_SHARE)))
    ratio = side_by_side(
        lambda: ingest_into(tmp_path / "kb", dump), lambda: by_rdflib(part), rounds=3, scale=RDFLIB_SHARE
    )
    assert ratio >= 10 / NOISE


def test_ingest_alone_in_a_process(dump: Path, tmp_path: Path, benchmark: Any) -> None:
    """At least 600,000 triples per CPU second, start of Python included, in less than 2 GiB."""
    script = (
        "import re, sys, time; from relsim.ingest import ingest_into; ingest_into(sys.argv[1], sys.argv[2])\n"
        # not ru_maxrss, which starts from what the parent held when it forked
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(time.process_time(), peak / 2**20)"
    )
    root = Path(relsim.__file__).parents[1]
    line = [sys.executable, "-c", script, tmp_path / "kb", dump]

    def run() -> tuple[float, float]:
        done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True)
        seconds, gibibytes = map(float, done.stdout.split())
        return seconds, gibibytes

    seconds, gibibytes = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {
        "triples": TRIPLES,
        "megabytes": dump.stat().st_size // 10**6,
        "cpu_s": seconds,
        "triples_per_cpu_s": round(TRIPLES / seconds),
        "peak_gib": gibibytes,
    }
    assert TRIPLES / seconds >= 600_000 / NOISE
    assert gibibytes < 2
