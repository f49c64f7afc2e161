"""A plan is right about what it read, near about what it did not, and its costs are those that were measured."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from relsim import costs, plan
from relsim.cli import main
from relsim.costs import Sizes
from relsim.errors import RelsimError
from relsim.ingest import ingest
from relsim.kb import KB

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
FB15K = Sizes(facts=272_115, entities=14_541, relations=237, groups=93_372)
CODEX = Sizes(facts=32_888, entities=2_034, relations=42, groups=10_465)
FB15K_SIZE = Sizes(facts=540_000, entities=14_951, relations=1_345, groups=110_988)


def facts(count: int) -> str:
    rng = np.random.default_rng(0)
    heads, tails = rng.zipf(1.5, count) % 50_000, rng.integers(0, 4_000, count)
    return "".join(f"h{h}\tr{i % 9}\tt{t}\n" for i, (h, t) in enumerate(zip(heads, tails, strict=True)))


def test_a_small_dump_is_read_whole_and_counted(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(facts(500))
    (tmp_path / "test.tsv").write_text(facts(50))
    told = plan.plan(tmp_path)
    kb = ingest(tmp_path)
    groups = len(set(zip(kb.facts.head.tolist(), kb.facts.relation.tolist(), strict=True)))
    expected = {"facts": 550, "entities": len(kb.entities), "relations": 9, "groups": groups}
    assert told["expected"] == expected
    assert [entry["share"] for entry in told["files"]] == [1, 1]
    assert [entry["statements"] for entry in told["files"]] == [500, 50]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_large_dump_is_extrapolated_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    text = facts(200_000).encode()
    path = tmp_path / f"facts.tsv{suffix}"
    path.write_bytes(gzip.compress(text) if suffix else text)
    monkeypatch.setattr(plan, "SAMPLE", len(text) // 4)
    monkeypatch.setattr(plan, "_STEP", 1000)
    told = plan.plan(path)
    kb = ingest(path)
    assert 40_000 < told["sample"]["facts"] < 60_000
    assert 0.2 < told["files"][0]["share"] < 0.4
    assert told["expected"]["facts"] == pytest.approx(200_000, rel=0.2)
    assert told["expected"]["entities"] == pytest.approx(len(kb.entities), rel=0.3)
    assert told["expected"]["relations"] == 9


def test_heaps_law_is_followed() -> None:
    growth = [(n, round(30 * n**0.6)) for n in range(1000, 10_001, 1000)]
    assert plan.extrapolated(growth, 1e6) == pytest.approx(30 * 1e6**0.6, rel=0.02)
    assert plan.extrapolated([(10, 10), (20, 20)], 200) == 200
    assert plan.extrapolated([(10, 7)], 10) == 7


@pytest.mark.parametrize(
    ("result", "field", "cost"),
    [
        ("full_matrix_of_fb15k_size", "cpu_s", costs.comparing(FB15K_SIZE, heads=1200)),
        ("fb15k_epoch_against_ungrouped_softmax", "epoch_cpu_s", costs.fitting(FB15K, epochs=1)),
        ("codex_s_from_the_folder_to_the_report", "matrix_cpu_s", costs.comparing(CODEX, heads=2034)),
        ("codex_s_from_the_folder_to_the_report", "total_cpu_s", costs.fitting(CODEX, epochs=20)),
    ],
)
def test_costs_are_those_that_were_measured(result: str, field: str, cost: costs.Cost) -> None:
    measured = json.loads((RESULTS / f"{result}.json").read_text())[field]
    assert cost.seconds == pytest.approx(measured, rel=0.35)


def test_the_cost_of_ingestion_is_what_was_measured() -> None:
    measured = json.loads((RESULTS / "ingest_alone_in_a_process.json").read_text())
    seconds = costs.ingestion("nt", measured["triples"], measured["megabytes"] * 10**6, ".nt").seconds
    assert seconds == pytest.approx(measured["cpu_s"], rel=0.35)
    memory = costs.ingestion_bytes(Sizes(measured["triples"], measured["triples"] // 5, 1000, 0))
    assert memory / 2**30 == pytest.approx(measured["peak_gib"], rel=0.35)


def test_the_command_says_it_for_people_and_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "facts.nt").write_text('<x:a> <x:r> <x:b> .\n<x:a> <x:r> "text" .\n')
    assert main(["plan", str(tmp_path / "facts.nt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [str(tmp_path / "facts.nt"), "nt", "0.0", "100.0%", "2"]
    assert "in the sample: 1 facts, 0 bad lines" in lines
    assert "  skipped 1 statements: literal" in lines
    assert "expected in all: 1 facts, 2 entities, 1 relations" in lines
    assert [line.split()[0] for line in lines[-3:]] == ["ingest", "fit", "compare"]
    assert main(["plan", str(tmp_path / "facts.nt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expected"] == {"facts": 1, "entities": 2, "relations": 1, "groups": 1}


def test_openke_and_parquet_are_planned_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"head": ["a"], "relation": ["r"], "tail": ["b"]}), tmp_path / "facts.parquet")
    assert plan.plan(tmp_path / "facts.parquet")["expected"]["facts"] == 1


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match="-: standard input can be read once only"):
        plan.plan(Path("-"))
    (tmp_path / "x.nt").write_text('<x:a> <x:r> "text" .\n')
    with pytest.raises(RelsimError, match="no fact in the sample"):
        plan.plan(tmp_path / "x.nt")
    (tmp_path / "x.nt").write_text("garbage\n")
    with pytest.raises(RelsimError, match="no fact in the sample"):
        plan.plan(tmp_path / "x.nt")
    KB.from_names([("a", "r", "b")]).save(tmp_path / "kb")
    with pytest.raises(RelsimError, match="a saved KB needs no ingestion"):
        plan.plan(tmp_path / "kb")
    with pytest.raises(RelsimError, match="unknown format 'foo'"):
        plan.plan(tmp_path / "x.nt", format="foo")
