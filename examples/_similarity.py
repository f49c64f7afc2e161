"""What the experiments with relation similarity share: flags, folders that can be gone on with, results."""

from __future__ import annotations

import argparse
import json
import sys
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


def parser_of(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with the flags that all experiments have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data; what comes with the package by default")
    parser.add_argument("--dim", type=int, default=defaults.get("dim", 64))
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--seeds", type=int, default=defaults.get("seeds", 3), help="how many")
    device = defaults.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--device", default=device)
    parser.add_argument("--epochs", type=int, default=defaults.get("epochs", 20))
    parser.add_argument("--out", type=Path, default=Path(defaults["out"]), help="folder for all that is written")
    parser.add_argument("--resume", action="store_true", help="use what an earlier run has left in --out")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="by default on a terminal only")
    return parser


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


def run(main: Callable[[], None], name: str) -> None:
    """Run a script's main; a fault that the user can mend is one line, and exit code 2."""
    try:
        main()
    except (RelsimError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted: go on with --resume", file=sys.stderr)
        sys.exit(130)
