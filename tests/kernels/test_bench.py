"""`python -m lorentz_kernels.bench`, its logic on the CPU: readings, goals, the table, refusals, every list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels import bench, measure
from lorentz_kernels.command import modules
from lorentz_kernels.measure import Accuracy, Benchmark, Check, Limits, Waiting, Work, error_ratio, read, verdicts
from lorentz_kernels.riemannian_adam import in_place

CPU = torch.device("cpu")
LIMITS = Limits(flops=1e12, bytes=1e9)
SECONDS = {"ours": 0.5, "slow": 2.0, "fast": 0.25}


def work(device: torch.device, goals: dict[str, float] | None = None, share: float = 0.0, **more: Any) -> Work:
    calls: dict[str, Any] = {name: (lambda name=name: name) for name in SECONDS}
    return Work({**calls, **more}, flops=1e11, bytes=4e8, goals=goals or {}, share=share)


def by_name(call: Any) -> float:
    return SECONDS[call()]


def test_a_reading_is_in_units_of_the_peers_and_of_the_limits() -> None:
    reading = read("op", Benchmark("work", work), CPU, LIMITS, by_name)
    assert reading.milliseconds == {"ours": 500.0, "slow": 2000.0, "fast": 250.0}
    assert reading.faster == {"slow": 4.0, "fast": 0.5}
    assert (reading.tflops, reading.gbytes) == (0.2, 0.8)
    assert reading.share == 0.8  # 0.4 s at the speed of a copy is the longer of the two
    assert reading.missed == []


def test_goals_that_are_missed_are_named() -> None:
    benchmark = Benchmark("work", lambda device: work(device, {"slow": 5.0, "fast": 0.5}, share=0.9))
    assert read("op", benchmark, CPU, LIMITS, by_name).missed == ["slow 5x", "share 90%"]


def test_a_peer_that_runs_out_of_memory_is_no_peer() -> None:
    def exhausted() -> None:
        raise torch.OutOfMemoryError

    benchmark = Benchmark("work", lambda device: work(device, {"huge": 2.0}, huge=exhausted))
    reading = read("op", benchmark, CPU, LIMITS, by_name)
    assert reading.milliseconds["huge"] is None
    assert "huge" not in reading.faster
    assert reading.missed == []


def test_an_error_ratio_beyond_its_limit_and_nan_are_wrong() -> None:
    def pairs(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
        one = torch.ones(4, dtype=torch.float64)
        yield "near", one, (one + 1e-4).to(dtype)
        yield "far", one, (one + 1e-2).to(dtype)
        yield "nan", one, (one * torch.nan).to(dtype)

    found = verdicts("op", Check("check", pairs, {torch.float32: 1e-3}), CPU)
    assert [(each["name"], each["passed"]) for each in found] == [
        ("check: near", True),
        ("check: far", False),
        ("check: nan", False),
    ]


@pytest.mark.parametrize(("error", "expected"), [(0.0, 0.0), (1.0, 0.5)])
def test_the_error_ratio_is_relative_to_the_size_of_what_is_expected(error: float, expected: float) -> None:
    assert error_ratio(torch.full((3,), 2.0), torch.full((3,), 2.0 + error)) == pytest.approx(expected)
    assert error_ratio(torch.zeros(3), torch.zeros(3)) == error_ratio(torch.zeros(0), torch.zeros(0)) == 0


def refused(*_: object) -> Any:
    raise RuntimeError("out of resource: shared memory\nHint: smaller tiles")


def result(seconds: float = 60.0, **lists: Any) -> dict[str, Any]:
    def wrong(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
        yield "y", torch.ones(2), torch.full((2,), 2.0)

    made = {
        "benchmarks": lambda: [
            Benchmark("device", lambda d: work(d, {"slow": 5.0})),
            Benchmark("host", work, by_host=True),
        ],
        "checks": lambda: [Check("check", wrong, {torch.float16: 1e-3})],
        "accuracies": lambda: [Accuracy("far", lambda device: {"ours": 2e-4, "peer": 1e-2}, {"ours": 1e-4})],
    }
    module: Any = SimpleNamespace(**(made | lists))
    return bench.run({"op": module}, CPU, LIMITS, (by_name, lambda call: 2 * by_name(call)), seconds)


def test_the_table_has_a_line_for_each_reading_and_one_for_each_fault() -> None:
    lines = list(bench.table(result()))
    assert lines[2] == "| op | device | 500.000 | 0.2 | 0.8 | 80% |  | slow 4.00x, fast 0.50x |"
    assert lines[3].startswith("| op | host | 1000.000 |")
    assert lines[4:] == [
        "",
        "0 of 1 results are within their limits",
        "wrong: op, check: y in float16: 1.0e+00 > 1.0e-03",
        "error: op, far: ours 2.0e-04, peer 1.0e-02",
        "goal missed: op, far: ours 1e-04",
        "goal missed: op, device: slow 5x",
    ]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_what_breaks_is_named_and_hides_nothing_else() -> None:
    found = result(
        checks=lambda: [Check("check", refused, {torch.float16: 1e-3})],
        benchmarks=lambda: [Benchmark("broken", refused), Benchmark("host", work)],
        accuracies=lambda: [Accuracy("far", refused)],
    )
    assert (found["checks"], found["accuracies"]) == ([], [])
    assert [reading["name"] for reading in found["benchmarks"]] == ["host"]
    assert [line for line in bench.table(found) if line.startswith("broken")] == [
        f"broken: op, {name}: RuntimeError: out of resource: shared memory" for name in ("check", "far", "broken")
    ]


def test_what_waits_for_the_host_is_timed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "recorded", lambda call: lambda: ("replayed", call()))
    monkeypatch.setattr(bench, "directly", lambda call: call())
    assert bench.on_device(lambda: "work") == ("replayed", "work")  # type: ignore[comparison-overlap]
    assert bench.on_device(Waiting(lambda: "work")) == "work"  # type: ignore[comparison-overlap]


def test_no_benchmark_starts_when_the_time_is_over() -> None:
    found = result(seconds=0.0)
    assert found["benchmarks"] == []
    assert found["left_out"] == ["op: device", "op: host"]
    assert list(bench.table(found))[-1] == "left out, the time was over: op: host"
    assert len(found["checks"]) == 1


def test_what_cannot_run_is_refused_in_one_line_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(bench.main, [])
    assert done.exit_code == 2
    assert done.stderr == "Error: benchmarks of kernels need a CUDA device, and torch sees none\n"
    done = CliRunner().invoke(bench.main, ["linea"])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: no operation 'linea' with benchmarks: choose from ")
    assert done.stderr.count("\n") == 1


def test_the_result_is_written_under_the_name_of_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(bench, "seen", lambda device, timer: LIMITS)
    found = result()
    monkeypatch.setattr(bench, "run", lambda *arguments, **options: found)
    done = CliRunner().invoke(bench.main, ["--out", str(tmp_path)])
    assert done.exit_code == 1, "a wrong result is a failure"
    assert done.stdout.startswith("NVIDIA H100 80GB HBM3: product 1 TFLOP/s, copy 1 GB/s\n\n| operation |")
    written = json.loads((tmp_path / "kernels_nvidia_h100_80gb_hbm3.json").read_text())
    assert written["gpu"] == "NVIDIA H100 80GB HBM3"
    assert written["benchmarks"] == found["benchmarks"]


LISTS = modules("benchmarks")
BENCHMARKS = [(op, each) for op, module in LISTS.items() for each in module.benchmarks()]
CHECKS = [(op, each) for op, module in LISTS.items() for each in module.checks()]


@pytest.mark.parametrize(("op", "benchmark_"), BENCHMARKS, ids=[f"{op}-{each.name}" for op, each in BENCHMARKS])
def test_every_benchmark_can_be_called(op: str, benchmark_: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without numbers: shapes, dtypes and signatures. Compilers and other libraries refuse those."""
    monkeypatch.setattr(in_place, "BLOCK", 2**40)  # thousands of blocks would say no more than one
    with FakeTensorMode():
        made = benchmark_.make(CPU)
        for name, call in made.calls.items():
            if name not in ("compile", "geoopt") and "side rows" not in benchmark_.name:
                call()
    assert next(iter(made.calls)) == "ours"
    assert set(made.goals) <= set(made.calls)


@pytest.mark.parametrize(("op", "check"), CHECKS, ids=[f"{op}-{each.name}" for op, each in CHECKS])
def test_every_check_holds_on_the_cpu(op: str, check: Check) -> None:
    found = measure.verdicts(op, check, CPU)
    assert [each for each in found if not each["passed"]] == []


def test_a_far_cluster_is_nearer_than_by_torchs_attention_on_ambient_points() -> None:
    for accuracy in LISTS["attention"].accuracies():
        found = measure.errors("attention", accuracy, CPU)
        assert found["missed"] == []
        assert found["errors"]["ours"] < found["errors"]["SDPA ambient"], found


def test_a_whole_run_is_forecast_to_take_less_than_8_minutes() -> None:
    with FakeTensorMode():
        assert 60 < bench.forecast(LISTS, CPU) < 8 * 60


def test_checks_in_processes_of_their_own_say_the_same() -> None:
    one = {"scaled_direction": LISTS["scaled_direction"]}
    broken: bench.Broken = []
    assert bench.check_all(one, CPU, 1, broken) == bench.check_all(one, CPU, 0, broken)
    assert broken == []


def test_peers_that_are_not_installed_are_named() -> None:
    there, absent = measure.installed({"here": ("torch", list), "gone": ("no_such_module", list)})
    assert (list(there), absent) == (["here"], ("gone",))
    reading = read(
        "op", Benchmark("work", lambda device: Work({"ours": lambda: "ours"}, absent=absent)), CPU, LIMITS, by_name
    )
    lines = list(
        bench.table({"checks": [], "accuracies": [], "benchmarks": [reading.as_dict()], "left_out": [], "broken": []})
    )
    assert lines[-1] == "not installed: gone"


def test_names_are_unique() -> None:
    names = [(op, each.name) for op, each in BENCHMARKS]
    assert len(names) == len(set(names))
