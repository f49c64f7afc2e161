"""The compiler's output, read without a GPU: real launches, resources, loads, the hot loop, the modelled share."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from lorentz_kernels.ahead import Launch, compile_launch
from lorentz_kernels.cubin import facts, hot_loop, parse, width
from tests.kernels.scale_kernel import product, scale


def scaled(dtype: torch.dtype, columns: int = 1024, offset: int = 0) -> Launch:
    def call() -> None:
        buffer = torch.empty(64, columns + 16, dtype=dtype, device="cuda")
        scale(buffer.narrow(1, offset, columns), 2.0)

    return Launch("scale", call)


def multiplied(dtype: torch.dtype, warps: int = 4) -> Launch:
    def call() -> None:
        product(*(torch.empty(128, 512, dtype=dtype, device="cuda") for _ in range(2)), warps=warps)

    return Launch("product", call)


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_aligned_rows_are_loaded_128_bits_at_a_time(capability: int) -> None:
    (kernel,) = compile_launch(scaled(torch.bfloat16), capability)
    found = facts(kernel)
    assert kernel.name == "scale_rows"
    assert (found.warps, found.widest_load, found.spills, found.share) == (1, 128, 0, None)
    assert 0 < found.registers <= 255


def test_alignment_is_that_of_the_tensors_that_the_launcher_passes() -> None:
    (kernel,) = compile_launch(scaled(torch.bfloat16, offset=1), 90)
    assert facts(kernel).widest_load == 16
    (kernel,) = compile_launch(scaled(torch.bfloat16, columns=1023), 90)
    assert facts(kernel).widest_load < 128


@pytest.mark.parametrize(("capability", "unit"), [(80, "hmma"), (90, "hgmma"), (100, "utcmma")])
def test_products_are_on_the_tensor_cores_of_each_generation(capability: int, unit: str) -> None:
    (kernel,) = compile_launch(multiplied(torch.bfloat16), capability)
    found = facts(kernel).as_dict()
    assert {name for name in ("hmma", "hgmma", "utcmma") if found[name] > 0} == {unit}


@pytest.mark.parametrize("warps", [4, 8])
@pytest.mark.parametrize("capability", [80, 90])
def test_the_share_counts_the_products_of_the_loop(capability: int, warps: int) -> None:
    (kernel,) = compile_launch(multiplied(torch.bfloat16, warps), capability)
    found = facts(kernel, useful=0.5)
    products = 2 * 128 * 128 * 64 / {80: 2048, 90: 4096}[capability]  # cycles of one iteration
    issue = found.loop * warps / 4
    assert found.bound == ("products" if products > issue else "issue")
    assert found.share == pytest.approx(0.5 * products / max(products, issue), abs=1e-3)


def test_everything_is_put_back() -> None:
    from triton.runtime import driver
    from triton.runtime.jit import KernelInterface

    def fail() -> None:
        raise RuntimeError("launcher")

    before = KernelInterface.__getitem__, driver._active
    with pytest.raises(RuntimeError, match="launcher"):
        compile_launch(Launch("fail", fail), 90)
    assert before == (KernelInterface.__getitem__, driver._active)
    assert torch.ones(1).device.type == "cpu"


def test_an_interpreted_kernel_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorentz_kernels.ahead.interpreting", lambda: True)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET unset"):
        compile_launch(scaled(torch.float32), 90)


CODE = """
.text.kernel:
        /*0000*/                   IADD3 R1, R1, 0x1, RZ ;
.L_x_2:
        /*0010*/              @!P0 LDG.E.U16 R2, desc[UR4][R4.64] ;
.L_x_1:
        /*0020*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0030*/                   MUFU.EX2 R3, R3 ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
.L_x_3:
        /*0050*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0060*/                   STL [R1], R3 ;
        /*0070*/                   FSEL R3, R3, RZ, P2 ;
        /*0080*/               @P1 BRA `(.L_x_3) ;
        /*0090*/              @!P3 BRA `(.L_x_2) ;
        /*00a0*/                   EXIT ;
.L_x_4:
        /*00b0*/                   BRA `(.L_x_4) ;
"""


def test_the_hot_loop_is_the_shortest_innermost_one_with_the_products() -> None:
    instructions, labels = parse(CODE)
    assert [line.split()[0] for line in hot_loop(instructions, labels)] == [
        "HGMMA.64x64x16.F32.BF16",
        "MUFU.EX2",
        "BRA",
    ]
    assert len(instructions) == 12


def test_a_kernel_without_products_has_the_longest_loop_and_one_without_loops_is_all_hot() -> None:
    instructions, labels = parse(CODE.replace("HGMMA.64x64x16.F32.BF16", "FFMA"))
    assert len(hot_loop(instructions, labels)) == 4
    straight, labels = parse("        /*0000*/   IADD3 R1, R1, 0x1, RZ ;\n        /*0010*/   EXIT ;\n")
    assert hot_loop(straight, labels) == straight


@pytest.mark.parametrize(
    ("instruction", "bits"),
    [
        ("LDG.E.U16 R2, desc[UR4][R4.64]", 16),
        ("LDG.E R2, desc[UR4][R4.64]", 32),
        ("LDG.E.64.CONSTANT R2, desc[UR4][R4.64]", 64),
        ("LDGSTS.E.BYPASS.LTC128B.128 [R2], desc[UR4][R4.64]", 128),
        ("LDGSTS.E.LTC128B [R2], desc[UR4][R4.64]", 32),
        ("UTMALDG.2D [UR8], [UR4]", 128),
        ("LDGDEPBAR", 0),
        ("LDS.128 R2, [R4]", 0),
    ],
)
def test_width_of_a_load(instruction: str, bits: int) -> None:
    assert width(instruction) == bits
