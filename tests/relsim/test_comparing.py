"""A comparison in blocks: the same to the bit whoever made the blocks, and after whatever interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import relsim
from relsim.blocks import BlockFolder
from relsim.comparing import Shard, compare, merge, scratch_of
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator, Enumerate, RaoBlackwell
from relsim.lock import alone, together
from relsim.mlp import MLPDistribution
from relsim.models import save_model
from tests.relsim.conftest import random_model

ESTIMATOR = RaoBlackwell(mass=1.0, samples=60, features=4)
ARRAYS = ("kl", "stderr", "head", "tail")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relsim.comparing.BLOCK", 4)  # 30 relations: eight blocks of rows, two of pairs


def model() -> MLPDistribution:
    return random_model(150, 30, seed=2).float()


def same(a: Divergence, b: Divergence) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.support, b.support)


@pytest.mark.parametrize("estimator", [ESTIMATOR, Enumerate()], ids=["sampled", "exact"])
def test_blocks_hold_what_the_estimator_gives(estimator: DesignEstimator, tmp_path: Path) -> None:
    div = compare(model(), tmp_path / "out", estimator, progress=False)
    assert div is not None
    expected = estimator.divergence(model(), progress=False)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(div, name), getattr(expected, name), rtol=2e-4, atol=2e-5)
    assert {k: v for k, v in div.meta.items() if k != "cpu_seconds"} == {
        k: v for k, v in expected.meta.items() if k != "cpu_seconds"
    }
    same(Divergence.load(tmp_path / "out"), div)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_shards_give_the_same_bits_as_one_process(count: int, tmp_path: Path) -> None:
    whole = compare(model(), tmp_path / "whole", ESTIMATOR, progress=False)
    assert whole is not None
    order = np.random.default_rng(count).permutation(count)
    for index in order:
        assert compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(int(index), count), progress=False) is None
    same(merge(tmp_path / "out", progress=False), whole)
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock")) == ["out", "whole"]


def test_a_merge_with_missing_blocks_names_them(tmp_path: Path) -> None:
    compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(0, 2), progress=False)
    with pytest.raises(RelsimError, match=r"out.blocks: 4 blocks are missing \(rows-00001, rows-00003, rows-00005\)"):
        merge(tmp_path / "out")


def test_a_merge_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=r"not a blocks folder, it has no blocks\.json"):
        merge(tmp_path / "out")


def test_blocks_that_are_there_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(2):
        compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(index, 2), progress=False)
    monkeypatch.setattr("relsim.comparing.tail_rows", None)
    assert compare(model(), tmp_path / "out", ESTIMATOR, progress=False) is not None


@pytest.mark.parametrize("victim", ["rows-00003.safetensors", "rows-00003.block.json", "design.safetensors"])
def test_a_damaged_block_is_made_again(victim: str, tmp_path: Path) -> None:
    whole = compare(model(), tmp_path / "whole", ESTIMATOR, progress=False)
    assert whole is not None
    compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(0, 1), progress=False)
    file = scratch_of(tmp_path / "out") / victim
    if victim.endswith("json"):
        file.unlink()
    else:
        raw = bytearray(file.read_bytes())
        raw[-5] ^= 1
        file.write_bytes(raw)
    again = compare(model(), tmp_path / "out", ESTIMATOR, progress=False)
    assert again is not None
    same(again, whole)


def test_other_settings_are_refused_while_blocks_are_there(tmp_path: Path) -> None:
    compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(0, 2), progress=False)
    other = RaoBlackwell(mass=1.0, samples=60, features=4, seed=1)
    with pytest.raises(RelsimError, match=r"out\.blocks: holds unfinished work with other seed: use the same"):
        compare(model(), tmp_path / "out", other)
    with pytest.raises(RelsimError, match="with other model: use the same, or remove it"):
        compare(random_model(150, 30, seed=3).float(), tmp_path / "out", ESTIMATOR)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = scratch_of(tmp_path / "out")
    folder.mkdir()
    (folder / "precious.safetensors").write_bytes(b"x")
    with pytest.raises(RelsimError, match=r"holds no blocks\.json: move it, or remove it"):
        compare(model(), tmp_path / "out", ESTIMATOR)
    assert (folder / "precious.safetensors").read_bytes() == b"x"


# crashes

SCRIPT = """
import sys
from pathlib import Path
import torch
import relsim.comparing as comparing
from relsim.estimators import RaoBlackwell
from relsim.models import load_model
torch.set_num_threads(1)
comparing.BLOCK = 4
comparing.compare(load_model(sys.argv[1]), sys.argv[2], RaoBlackwell(mass=1.0, samples=60, features=4), progress=False)
"""


def environment() -> dict[str, str]:
    root = Path(relsim.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}", "OMP_NUM_THREADS": "1"}


def run(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("sent", "moments"), [(signal.SIGKILL, (0, 2, 6, 9)), (signal.SIGINT, (3,))], ids=["kill", "ctrl-c"]
)
def test_a_process_that_dies_at_any_block_is_taken_up_to_the_same_bits(
    sent: int, moments: tuple[int, ...], tmp_path: Path
) -> None:
    """The signal comes when a block appears; then the same command runs again, and is hit at the next ones."""
    save_model(model(), tmp_path / "model")
    assert run(tmp_path / "model", tmp_path / "whole").wait() == 0
    blocks = scratch_of(tmp_path / "out")
    for target in moments:
        process = run(tmp_path / "model", tmp_path / "out")
        while process.poll() is None and len(list(blocks.glob("*.safetensors"))) < target:
            time.sleep(0.001)
        process.send_signal(sent)
        process.wait()
        if (tmp_path / "out").exists():
            break
    assert run(tmp_path / "model", tmp_path / "out").wait() == 0
    assert not blocks.exists()
    same(Divergence.load(tmp_path / "out"), Divergence.load(tmp_path / "whole"))


def test_two_processes_on_one_folder_give_a_clear_error(tmp_path: Path) -> None:
    with alone(tmp_path / "out"), pytest.raises(RelsimError, match="out: another process is working on it: wait"):
        compare(model(), tmp_path / "out", ESTIMATOR)
    with together(tmp_path / "out"), pytest.raises(RelsimError, match="another process"):
        merge(tmp_path / "out")
    with together(tmp_path / "out"):
        compare(model(), tmp_path / "out", ESTIMATOR, shard=Shard(0, 2), progress=False)


# locks


HOLD = """
import sys, time
from relsim.lock import alone
with alone(sys.argv[1]):
    print("held", flush=True)
    time.sleep(99)
"""


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RelsimError, match="another process"), alone(tmp_path / "out"):
            pass
        process.kill()
    with alone(tmp_path / "out"):
        assert (tmp_path / ".out.lock").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "1", "", "-1/2", "1/2/3"])
def test_nonsense_for_a_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a shard such as 3/16, got"):
        Shard.parse(text)


def test_shards_part_the_blocks() -> None:
    names = [str(i) for i in range(11)]
    parts = [Shard.parse(f"{i}/4").of(names) for i in range(1, 5)]
    assert sorted(name for part in parts for name in part) == sorted(names)


def test_a_block_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = BlockFolder(tmp_path / "f", {"x": 1})
    folder.make("one", lambda: {"a": torch.arange(3), "b": torch.ones(2, 2).mT})
    folder.make("one", lambda: {"a": torch.zeros(9)})
    assert folder.read("one")["a"].tolist() == [0, 1, 2]
    assert folder.missing(["one", "two"]) == ["two"]
    assert folder.seconds() >= 0
