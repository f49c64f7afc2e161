"""What the experiments with relation similarity share: folders that can be gone on with, results."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import relsim
from relsim.data import nations
from relsim.errors import RelsimError
from relsim.ingest import open_kb
from relsim.kb import KB

NEURAL = {"mlp": relsim.MLPDistribution, "lorentz": relsim.LorentzDistribution}


def start(options: argparse.Namespace) -> None:
    """Make the folder of results; what is in it is used only if that is asked for.

    Raises:
        RelsimError: the folder holds something, and `--resume` is not given.
    """
    if options.out.is_dir() and any(options.out.iterdir()) and not options.resume:
        raise RelsimError(f"{options.out}: not empty: go on with --resume, or choose another --out")
    options.out.mkdir(parents=True, exist_ok=True)


def knowledge_base(path: Path | None) -> KB:
    """Return the KB at `path`, or the bundled Nations."""
    return open_kb(path) if path else nations()


def kept(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays in a file, which is made, whole or not at all, where it is absent."""
    if not path.exists():
        scratch = path.with_suffix(".tmp.npz")
        np.savez(scratch, **make())
        scratch.replace(path)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def write_result(options: argparse.Namespace, result: dict[str, Any], started: float) -> None:
    """Write `result.json` with the options and the CPU seconds of this run."""
    settings = dict(vars(options))
    seconds = {"cpu_seconds_of_this_run": round(time.process_time() - started, 1)}
    text = json.dumps({"options": settings, "torch": torch.__version__, **seconds, **result}, indent=1, default=str)
    (options.out / "result.json").write_text(text + "\n", encoding="utf-8")
