"""What only a GPU can show: results in real dtypes, the same bits twice, graphs, long offsets, the second device.

Run with `pytest -m gpu tests/kernels/test_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention
from lorentz_kernels.command import modules
from lorentz_kernels.linear import linear, linear_with_time, naive
from lorentz_kernels.linear_logsumexp import linear_logsumexp, linear_logsumexp_mean, lorentz_logsumexp
from lorentz_kernels.measure import Benchmark, Check, verdicts
from lorentz_kernels.multihead.naive import multihead as specification
from lorentz_kernels.pairwise_dist import pairwise_dist
from lorentz_kernels.rank import linear_rank, lorentz_rank
from lorentz_kernels.riemannian_adam import adam_step, adam_step_
from tests.kernels.compare import assert_close
from tests.kernels.multihead_cases import CASES, Case, Problem, gradients, problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
CHECKS = [(op, check) for op, module in modules("benchmarks").items() for check in module.checks()]
BENCHMARKS = [(op, each) for op, module in modules("benchmarks").items() for each in module.benchmarks()]

every_check = pytest.mark.parametrize(("op", "check"), CHECKS, ids=[f"{op}-{check.name}" for op, check in CHECKS])


def large(gigabytes: int) -> pytest.MarkDecorator:
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return pytest.mark.skipif(memory < gigabytes * 2**30, reason=f"needs {gigabytes} GiB of GPU memory")


@every_check
def test_results_are_within_their_limits_in_every_dtype(op: str, check: Check) -> None:
    assert [each for each in verdicts(op, check, CUDA) if not each["passed"]] == []


@every_check
def test_results_are_the_same_bits_twice(op: str, check: Check) -> None:
    for dtype in check.limits:
        first, second = ([actual for _, _, actual in check.run(CUDA, dtype)] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), dtype


@pytest.mark.parametrize(("op", "work"), BENCHMARKS, ids=[f"{op}-{each.name}" for op, each in BENCHMARKS])
def test_kernels_can_be_captured_in_a_graph(op: str, work: Benchmark) -> None:
    """Nothing waits for a value on the host, and what a kernel needs is chosen by shapes alone."""
    call = work.make(CUDA).calls["ours"]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_launch_again_sees_other_addresses_strides_and_numbers(dtype: torch.dtype) -> None:
    """The second launch goes past Triton's own look at its arguments."""
    weight, time_weight = (torch.randn(*shape, device="cuda", dtype=dtype) for shape in ((48, 64), (48,)))
    for _ in range(2):
        for width, first, c in ((64, 0, 1.0), (80, 0, 0.5), (80, 1, 0.5), (65, 1, 2.0), (64, 0, 0.1)):
            x = torch.randn(40, width, device="cuda", dtype=dtype).narrow(1, first, 64)
            expected = naive.linear(x.double(), weight.double(), time_weight.double(), c=c)
            assert_close("y", expected, linear(x, weight, time_weight, c=c), 1e-5 if dtype == torch.float32 else 1e-2)
            points = x.view(1, 1, 40, 64) if width == 64 else x[None, None]
            truth = attention(points.double(), points.double(), points.double(), c=c, backend="torch")
            out = attention(points, points, points, c=c)
            assert_close("points", truth, out, 2e-4 if dtype == torch.float32 else 3e-2)


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "lorentz_logsumexp": lambda q, t, y: lorentz_logsumexp(q, t, beta=0.5, c=0.7, target=y),
    "linear_logsumexp": lambda q, t, y: linear_logsumexp(q, t, scale=0.5, target=y),
    "linear_logsumexp_mean": lambda q, t, y: linear_logsumexp_mean(q, t),
    "lorentz_rank": lambda q, t, y: lorentz_rank(q, t, y, beta=0.5, c=0.7),
    "pairwise_dist": lambda q, t, y: pairwise_dist(q, t, 0.7),
    "attention": lambda q, t, y: attention(q, t, t, scale=0.5, c=0.7),
    "linear": lambda q, t, y: linear_with_time(q, t, t.select(1, 0), None, 0.7, activation="gelu"),
}


@pytest.mark.parametrize("function", SCORES.values(), ids=SCORES)
def test_numbers_given_as_floats_are_recorded_in_a_graph(function: Callable[..., object]) -> None:
    query, table, target = torch.randn(33, 64, device="cuda"), torch.randn(97, 64, device="cuda"), torch.arange(33)
    target = target.cuda()
    expected = function(query, table, target)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = function(query, table, target)
    graph.replay()
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", ["bf16x3", "bf16x6", "bf16"])
@pytest.mark.parametrize("rank", [linear_rank, lorentz_rank], ids=["euclid", "lorentz"])
def test_copies_of_the_target_tie_with_it_wherever_they_stand(
    rank: Callable[..., tuple[Tensor, Tensor]], precision: str, dtype: torch.dtype
) -> None:
    """Every place in a tile of every configuration: that tensor cores give one number there is what ranks stand on."""
    for width in (20, 64, 100, 128):
        query, entry = (30 * torch.randn(n, width, device="cuda", dtype=dtype) for n in (300, 1))
        target = torch.randint(1000, (300,), device="cuda")
        above, equal = rank(query, entry.repeat(1000, 1), target, precision=precision)
        assert not above.any()
        assert (equal == 999).all()


@pytest.mark.parametrize("backend", [None, "triton"], ids=["few", "kernels"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_multi_head_attention_is_its_specification(
    case: Case, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend:
        monkeypatch.setenv("LORENTZ_KERNELS_BACKEND", backend)
    p = problem(case, width=16, inputs=32)
    truth = gradients(p, specification, torch.float64)
    mask = None if p.mask is None else p.mask.cuda()
    moved = Problem([None if x is None else x.cuda() for x in p.tensors], mask, p.grad.cuda(), case)
    for name, found in gradients(moved).items():  # as tests/kernels/test_attention_precision.py emulates them
        assert_close(name, truth[name], found.cpu(), 2e-3 if name in ("scale", "c") else 2e-4)


@large(24)
def test_rows_beyond_two_to_the_31_are_found_by_scores_and_attention() -> None:
    width, entries = 32, 2**26 + 5  # 2^31 + 160 numbers
    table = torch.zeros(entries, width, device="cuda", dtype=torch.bfloat16)
    query = torch.randn(3, width, device="cuda", dtype=torch.bfloat16)
    table[-1] = 100 * query[1] / query[1].norm()
    lse, mean = linear_logsumexp_mean(query, table)
    expected = (query.double() @ table[-1].double()).exp() + entries - 1
    assert_close("lse", expected.log(), lse, 1e-2)
    assert_close("mean", table[-1], mean[1], 1e-2)
    above, _ = linear_rank(query, table, torch.full((3,), entries - 1, device="cuda"))
    assert above[1] == 0
    heads = table.narrow(0, 0, 2**26).view(1, -1, 64, width)  # 2^20 heads
    heads.select(1, -1).copy_(torch.randn(64, width, device="cuda"))
    out = attention(heads, heads, heads)
    last = heads.narrow(1, heads.shape[1] - 1, 1).double()
    assert_close("points", attention(last, last, last, backend="torch"), out.narrow(1, out.shape[1] - 1, 1), 3e-2)
    del out
    heads = heads.view(1, -1, 32, width)  # of which one tile holds each
    out, last = attention(heads, heads, heads), heads.narrow(1, heads.shape[1] - 1, 1).double()
    assert_close("points", attention(last, last, last, backend="torch"), out.narrow(1, out.shape[1] - 1, 1), 3e-2)


@large(24)
def test_rows_beyond_two_to_the_31_are_found_by_linear() -> None:
    width, count = 512, 2**22 + 5  # 2^31 + 2560 numbers
    x = torch.zeros(count, width, device="cuda", dtype=torch.bfloat16)
    x[-3:] = torch.randn(3, width, device="cuda")
    weight, time_weight, bias = (torch.randn(s, device="cuda").bfloat16() for s in ((width, width), width, width))
    y = linear(x, weight, time_weight, bias)
    expected = naive.linear(x[-3:].double(), weight.double(), time_weight.double(), bias.double())
    assert_close("y", expected, y[-3:], 1e-2)


@large(64)
def test_rows_beyond_two_to_the_31_are_found_by_adam() -> None:
    width, count = 128, 2**24 + 5
    x, w = torch.zeros(2, count, width, device="cuda")
    v = torch.zeros(count, 1, device="cuda")
    last = torch.tensor([count - 1, 0], device="cuda")
    grad = torch.randn(2, width, device="cuda")
    adam_step_(x, grad, w, v, 1, lr=0.1, rows=(last,))
    zero = torch.zeros(2, width, device="cuda", dtype=torch.float64)
    expected, _, _ = adam_step(zero, grad.double(), zero, zero[:, :1], 1, lr=0.1)
    assert_close("x", expected, x[last], 1e-5)
    assert int((x != 0).any(dim=1).sum()) == 2


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_run_on_the_device_of_their_tensors() -> None:
    x, weight = torch.randn(5, 4, device="cuda:1"), torch.randn(3, 4, device="cuda:1")
    with torch.cuda.device(0):
        y = linear(x, weight, weight[:, 0])
    assert y.device == x.device
    assert_close("y", naive.linear(x.double(), weight.double(), weight[:, 0].double()), y, 1e-5)
