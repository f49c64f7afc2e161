"""`examples/quickstart.py` as a newcomer runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(folder: Path, *arguments: str) -> dict[str, tuple[float, float]]:
    """Distortion and mean average precision by the name of the space."""
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "quickstart.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\w+) plane +distortion ([\d.]+)  MAP ([\d.]+)", done.stdout, re.MULTILINE)
    return {space: (float(distortion), float(precision)) for space, distortion, precision in rows}


def test_the_tree_fits_the_hyperbolic_plane_and_not_the_euclidean_one(tmp_path: Path) -> None:
    scores = run(tmp_path, "--steps", "200")
    assert scores["hyperbolic"][0] < 0.15 < 0.2 < scores["Euclidean"][0]
    assert scores["hyperbolic"][1] > 0.8 > 0.3 > scores["Euclidean"][1]
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_distortion_is_below_a_tenth_at_every_seed(tmp_path: Path, seed: int) -> None:
    scores = run(tmp_path, "--seed", str(seed), "--out", "tree.png")
    assert scores["hyperbolic"][0] < 0.1
    assert scores["hyperbolic"][1] > 0.95
    assert (tmp_path / "tree.png").is_file()


def test_any_outline_will_do(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("a\n  b\n    c\n    d\n  e\n", encoding="utf-8")
    scores = run(tmp_path, "--data", "small.txt", "--steps", "100")
    assert scores["hyperbolic"][1] == 1


def test_the_script_has_a_hundred_lines_at_most() -> None:
    assert len((EXAMPLES / "quickstart.py").read_text(encoding="utf-8").splitlines()) <= 100


def test_the_outline_is_a_tree_of_distinct_names() -> None:
    lines = (EXAMPLES / "mammals.txt").read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines]
    depths = [(len(line) - len(name)) / 2 for line, name in zip(lines, names, strict=True)]
    assert len(set(names)) == len(names) >= 150
    assert depths[0] == 0
    assert min(depths[1:]) == 1
    assert all(1 <= after <= before + 1 for before, after in pairwise(depths))
