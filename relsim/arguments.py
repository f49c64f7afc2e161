"""What the command takes: numbers in range, folders of the right kind, a device that is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relsim.errors import RelsimError
from relsim.storage import check_source, kind_of, one_line

if TYPE_CHECKING:
    from relsim.crew import Crew
    from relsim.distribution import FactDistribution
    from relsim.divergence import Divergence
    from relsim.kb import KB

SIZE = click.IntRange(1, 1 << 20)
SEED = click.IntRange(0, (1 << 32) - 1)


class Finite(click.FloatRange):
    """A range without nan, which no bound excludes, and without the infinities."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def check_facts(path: Path) -> None:
    """Refuse a folder of ours that is not a KB, where facts are asked for.

    Raises:
        RelsimError: as said.
    """
    if kind_of(path) not in (None, "a KB"):
        check_source(path, "a KB")


def open_facts(path: Path, columns: str) -> KB:
    """Return the KB in a folder or a dump.

    Raises:
        RelsimError: as `check_facts` and `relsim.ingest.open_kb`.
    """
    from relsim.ingest import open_kb

    check_facts(path)
    return open_kb(path, columns=columns)


def open_saved(path: Path) -> KB:
    """Return the KB in a folder.

    Raises:
        RelsimError: the folder is something else, or is damaged.
    """
    from relsim.kb import KB

    check_source(path, "a KB")
    return KB.load(path)


def open_comparison(path: Path) -> Divergence:
    """Return the comparison in a folder.

    Raises:
        RelsimError: the folder is something else, or is damaged.
    """
    from relsim.divergence import Divergence

    check_source(path, "a comparison")
    return Divergence.load(path)


def open_model_or_comparison(path: Path) -> FactDistribution | Divergence:
    """Return the model or the comparison in a folder: what can be searched.

    Raises:
        RelsimError: the folder is something else, or is damaged.
    """
    return open_model(path) if kind_of(path) == "a model" else open_comparison(path)


def open_model(path: Path, crew: Crew | None = None) -> FactDistribution:
    """Return the model in a folder, of two relations or more; of a crew's, the part of this process.

    Raises:
        RelsimError: the folder is something else, is damaged, or its model knows one relation.
    """
    from relsim.models import load_model

    if crew is not None and crew.size > 1:
        from relsim.sharded import load_sharded

        model: FactDistribution = load_sharded(path, crew)
    else:
        model = load_model(path)
    if len(model.relations) < 2:
        raise RelsimError(f"{path}: has {len(model.relations)} relation: fit a KB with two or more to compare them")
    return model


def check_device(name: str) -> None:
    """Refuse a device that torch does not know, or that this machine does not have.

    Raises:
        RelsimError: as said.
    """
    import torch

    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # torch says no in many ways
        raise RelsimError(
            f"--device {name}: cannot be used ({one_line(error).split('. ')[0]}): try --device cpu"
        ) from None


def check_page(path: Path) -> None:
    """Refuse to write a web page over a file that is none, so that a mistyped path never deletes somebody's work.

    Raises:
        RelsimError: as said.
    """
    if path.is_file() and not path.read_bytes()[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise RelsimError(f"{path}: exists and is not a web page, so it is not overwritten: name another file")
