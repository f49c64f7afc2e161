"""`python -m lorentz_kernels.report`: the table, the golden values that it writes, one line for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("triton")

from lorentz_kernels import report
from lorentz_kernels.ahead import Launch
from tests.kernels.scale_kernel import scale


@pytest.fixture(autouse=True)
def _one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch("bf16", lambda: scale(torch.empty(64, 1024, dtype=torch.bfloat16, device="cuda"), 2.0))
    monkeypatch.setattr(report, "operations", lambda: {"scale": [launch], "other": []})


def test_the_table_has_a_line_for_each_kernel_and_capability() -> None:
    done = CliRunner().invoke(report.main, ["scale", "--sm", "80", "--sm", "90"])
    assert done.exit_code == 0
    head, rule, *lines = done.stdout.splitlines()
    assert [line.split(" | ")[:4] for line in lines] == [["| scale", "bf16", "scale_rows", sm] for sm in ("80", "90")]
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1


def test_golden_values_are_what_json_prints(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- report -->\nold\n<!-- end of report -->\nbelow\n")
    done = CliRunner().invoke(report.main, ["--json", "--update", str(tmp_path), "--page", str(page)])
    assert done.exit_code == 0
    above, mark, head, rule, line, *rest = page.read_text().splitlines()
    assert [above, mark, *rest] == ["above", "<!-- report -->", "<!-- end of report -->", "below"]
    assert line.startswith("| scale | bf16 | scale_rows | 90 | ")
    assert head.count("|") == rule.count("|") == line.count("|")
    printed = {result["op"]: result for result in json.loads(done.stdout)}
    assert printed == {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("scale", "other")}
    assert printed["scale"]["launches"]["bf16"]["sm_90"]["scale_rows"]["widest_load"] == 128


def test_what_cannot_be_done_is_said_with_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(report.main, ["scales"])
    assert done.exit_code == 2
    assert done.stderr == "Error: no operation 'scales' with launches: choose from scale, other\n"
    for options, message in (
        (["--update", ".", "--sm", "90"], "golden values are of every capability: leave out --sm"),
        (["--page", __file__], "a page is made from golden values: give their folder with --update"),
    ):
        done = CliRunner().invoke(report.main, options)
        assert (done.exit_code, done.stderr) == (2, f"Error: {message}\n")
    monkeypatch.setattr(report, "INSTALLED", False)
    done = CliRunner().invoke(report.main, [])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: compiling needs triton (pip install 'lorentz-relsim[gpu]')")
