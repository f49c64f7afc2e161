"""Every kernel as the compiler leaves it: hard limits on any version of Triton, golden values on the one recorded.

After a change that is meant:
python -m lorentz_kernels.report --update tests/kernels/golden --page docs/kernels.md [OPERATION]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

from lorentz_kernels.ahead import Launch, operations  # noqa: E402  its operations import triton
from lorentz_kernels.report import measure, on_page  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
SHARED = {80: 166_912, 90: 232_448, 100: 232_448}  # bytes of shared memory that one block can have
LAUNCHES = [(op, launch) for op, launches in operations().items() for launch in launches]

every_launch = pytest.mark.parametrize(
    ("op", "launch"), LAUNCHES, ids=[f"{op}-{launch.name}" for op, launch in LAUNCHES]
)


def recorded(op: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{op}.json").read_text())


@pytest.mark.parametrize("capability", [80, 90, pytest.param(100, marks=pytest.mark.slow)])
@every_launch
def test_kernels_keep_the_limits_and_their_golden_values(op: str, launch: Launch, capability: int) -> None:
    golden, found = recorded(op), measure(launch, capability)
    wanted = golden["launches"][launch.name][f"sm_{capability}"]
    assert found.keys() == wanted.keys()
    for name, facts in found.items():
        assert facts.shared <= SHARED[capability], name
        assert facts.registers * facts.warps * 32 <= 65_536, name
        if capability < 100:
            assert facts.spills == 0, name
            assert facts.widest_load >= 128 or name in launch.narrow, name
        for unit in ("hgmma", "hmma", "utcmma"):
            assert (getattr(facts, unit) > 0) == (wanted[name][unit] > 0), f"{name}: {unit}"
        if golden["triton"] == triton.__version__:
            assert facts.loop <= 1.03 * wanted[name]["loop"], f"{name}: the hot loop has grown"
            assert facts.widest_load == wanted[name]["widest_load"], name


def test_golden_values_are_of_the_launches_that_there_are() -> None:
    recorded_names = {path.stem: list(recorded(path.stem)["launches"]) for path in GOLDEN.glob("*.json")}
    assert recorded_names == {op: [launch.name for launch in launches] for op, launches in operations().items()}


def test_the_page_has_the_golden_values() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"
    assert page.read_text() == on_page(page.read_text(), GOLDEN), "report --page docs/kernels.md makes it anew"


def test_launches_have_names_of_their_own() -> None:
    for op, launches in operations().items():
        names = [launch.name for launch in launches]
        assert len(names) == len(set(names)), op
