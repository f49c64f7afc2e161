"""What the scripts share: their flags, a training that survives a kill, and the table of a model beside its twin."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import trange

from relsim.errors import RelsimError
from relsim.terminal import table

Results = dict[str, list[dict[str, float]]]
"""For each model, the figures of each seed."""
Summary = dict[str, dict[str, tuple[float, float]]]
"""For each model and figure, the mean and the standard deviation over seeds."""


def parser(description: str | None, out: str, **defaults: int) -> argparse.ArgumentParser:
    """Return a parser of the flags that every script has; `defaults` are those of --dim, --epochs and --seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a JSON file with some of these options")
    parser.add_argument("--data", type=Path, help="by default what the script brings along")
    parser.add_argument("--dim", type=int, default=defaults["dim"], help="space coordinates of a point")
    parser.add_argument("--epochs", type=int, default=defaults["epochs"])
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=defaults["seeds"], help="how many, for a mean and a spread")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for all that is written")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out, if there are any")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="by default on a terminal only")
    return parser


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options: those of the command line, then of `--config`, then the defaults."""
    chosen = parser.parse_args()
    if chosen.config:
        config = json.loads(chosen.config.read_text(encoding="utf-8"))
        if unknown := config.keys() - vars(chosen).keys():
            raise RelsimError(f"{chosen.config}: no option {min(unknown)!r}: see --help")
        parser.set_defaults(**config)
        chosen = parser.parse_args()
    return chosen


def run(main: Callable[[], None]) -> None:
    """Call the main function of a script; say what a user can mend in one line, and leave with 2."""
    try:
        main()
    except (RelsimError, OSError, ValueError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: the same command with --resume goes on", file=sys.stderr)
        sys.exit(130)


def fit(
    folder: Path,
    model: nn.Module,
    optimiser: Optimizer,
    epoch: Callable[[], Tensor],
    score: Callable[[], float],
    options: argparse.Namespace,
    *,
    seed: int,
    every: int = 1,
    patience: float = math.inf,
    also: Callable[[], dict[str, object]] = dict,
) -> dict[str, float]:
    """Train, validate every so many epochs, and leave the model at its best validation.

    Learning rates fall from where they are to zero along half a cosine. What is random in an epoch follows from the
    seed and its number, and the state is written whole after every validation: run again with `--resume`, a training
    that was killed has the curve of one that was not.

    Args:
        folder: receives `checkpoint.pt` and `log.jsonl`.
        model: the model.
        optimiser: of its parameters.
        epoch: takes the steps of an epoch and returns its loss.
        score: the figure of the validation set, higher is better.
        options: those of the command line; all but where and how to run must be those of the checkpoint.
        seed: of this training.
        every: epochs between validations.
        patience: stop after so many epochs without a better validation.
        also: more that is to be known of a validation, for the log.

    Returns:
        The best score, its epoch and the CPU seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    peaks = [group["lr"] for group in optimiser.param_groups]
    state, best, lines = restored(checkpoint, model, optimiser, options)
    log.write_text("".join(lines))
    hidden = None if options.progress is None else not options.progress
    done, total = int(state["epoch"]), options.epochs
    bar = trange(done, total, initial=done, total=total, disable=hidden, leave=False)
    for number in bar:
        if number - state["best_epoch"] >= patience:
            break
        start = time.process_time()
        torch.manual_seed(seed * 1_000_003 + number)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * (1 + math.cos(math.pi * number / options.epochs)) / 2
        model.train()
        entry: dict[str, Any] = {"epoch": number + 1, "loss": epoch().item()}
        if not math.isfinite(entry["loss"]):
            raise RelsimError(f"{folder}: the training diverged in epoch {number + 1}: lower --lr")
        validated = (number + 1) % every == 0 or number + 1 == options.epochs
        if validated:
            model.eval()
            with torch.no_grad():
                entry |= {"score": score(), **also()}
            bar.set_description(f"{folder.name}: loss {entry['loss']:.3f}, validation {entry['score']:.3f}")
            if entry["score"] > state["best"]:
                state |= {"best": entry["score"], "best_epoch": number + 1}
                best = {name: value.clone() for name, value in model.state_dict().items()}
        state["epoch"], state["cpu_s"] = number + 1, state["cpu_s"] + time.process_time() - start
        lines.append(json.dumps(entry | {"cpu_s": round(state["cpu_s"], 2)}) + "\n")
        if validated:
            parts = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state, "best": best}
            save(checkpoint, {**parts, "log": lines, "settings": settings(options)})
            log.write_text("".join(lines))
    model.load_state_dict(best)
    model.eval()
    return {"valid": state["best"], "epoch": state["best_epoch"], "cpu_s": round(state["cpu_s"], 1)}


def steps_taken(optimiser: Optimizer) -> int:
    """Return how many steps an optimiser of Adam's kind has taken."""
    return int(next(iter(optimiser.state.values()))["step"]) if optimiser.state else 0


def descend(optimiser: Optimizer, losses: Iterable[Tensor]) -> Tensor:
    """Take a step for each loss; return their mean."""
    seen = []
    for loss in losses:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.detach())
    return torch.stack(seen).mean()


def restored(
    checkpoint: Path, model: nn.Module, optimiser: Optimizer, options: argparse.Namespace
) -> tuple[dict[str, float], dict[str, Tensor], list[str]]:
    """Return the state, the best parameters and the log of a training, from the checkpoint if it is to be resumed."""
    if not (options.resume and checkpoint.exists()):
        state = {"epoch": 0, "best": -math.inf, "best_epoch": 0, "cpu_s": 0.0}
        return state, {name: value.clone() for name, value in model.state_dict().items()}, []
    saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
    if differing := [key for key, value in settings(options).items() if saved["settings"].get(key) != value]:
        raise RelsimError(f"{checkpoint}: of a training with other {', '.join(differing)}: use the same or remove it")
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return saved["state"], saved["best"], saved["log"]


def settings(options: argparse.Namespace) -> dict[str, object]:
    """Return the options that a curve depends on."""
    where = {"config", "out", "resume", "progress", "device", "graphs", "seed", "seeds", "kinds", "models"}
    return {key: str(value) for key, value in vars(options).items() if key not in where}


def save(path: Path, value: object) -> None:
    """Write a file that appears whole or not at all."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def parameters(model: nn.Module) -> int:
    """Return the number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def mean_and_spread(figures: list[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation over seeds, zero for one; a count that all share stays a count."""
    if len(set(figures)) == 1:
        return figures[0], 0.0
    return statistics.fmean(figures), statistics.stdev(figures) if len(figures) > 1 else 0.0


def shown_as(mean: float, spread: float) -> str:
    """Return a mean and its spread as text; a count, and a figure without a spread, alone."""
    if isinstance(mean, int):
        return f"{mean:,}"
    return f"{mean:.4g} ± {spread:.2g}" if spread else f"{mean:.4g}"


def report(out: Path, results: Results, shown: dict[str, str], protocol: str, **more: object) -> Summary:
    """Print a row for each model, mean ± standard deviation over the seeds, and write all of it to `result.json`.

    `shown` maps the figures of a row to their headings. Returns what it prints.
    """
    summary = {
        name: {key: mean_and_spread([figures[key] for figures in runs]) for key in shown}
        for name, runs in results.items()
    }
    rows = [[name, *(shown_as(*figure) for figure in row.values())] for name, row in summary.items()]
    print(table(["model", *shown.values()], rows))
    outcome = {"protocol": protocol, **more, "mean_and_standard_deviation": summary, "seeds": results}
    (out / "result.json").write_text(json.dumps(outcome, indent=1) + "\n")
    return summary


def curves(out: Path, label: str, sign: int = 1) -> None:
    """Draw the validations of all trainings below a folder, epoch by epoch, a colour for each model: `curves.png`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: run `pip install 'lorentz-relsim[plot]'`", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    colors: dict[str, str] = {}
    for log in sorted(out.glob("*/log.jsonl")):
        model = log.parent.name.rpartition("-")[0]
        name = None if model in colors else model
        entries = [entry for entry in map(json.loads, log.read_text().splitlines()) if "score" in entry]
        color = colors.setdefault(model, f"C{len(colors)}")
        axes.plot([e["epoch"] for e in entries], [sign * e["score"] for e in entries], color=color, label=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=label)
    axes.legend()
    figure.savefig(out / "curves.png", dpi=120)
    pyplot.close(figure)
