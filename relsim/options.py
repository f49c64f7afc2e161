"""What the commands share: options, examples in help texts, and answers for people or for machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relsim.arguments import SEED as SEED_RANGE
from relsim.arguments import Finite

if TYPE_CHECKING:
    from relsim.estimators import DesignEstimator

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
COLUMNS = click.option("--columns", default="hrt", show_default=True, help="Order of the columns of a table: htr, say.")
SEED = click.option("--seed", type=SEED_RANGE, default=0, show_default=True, help="Equal seeds, equal results.")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def examples(*lines: str) -> str:
    """Return the end of a help text that shows these command lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def show(as_json: bool, value: Any, text: str) -> None:
    """Print `value` as JSON, or else `text`."""
    click.echo(json.dumps(value) if as_json else text)


def estimator_options(command: _Command) -> _Command:
    """Add the options that `estimator_of` takes."""
    for option in reversed(
        (
            click.option(
                "--mass",
                type=Finite(0, 1, min_open=True),
                default=0.95,
                show_default=True,
                help="Evaluate as many heads as hold this share of the mass of each relation.",
            ),
            click.option(
                "--samples",
                type=click.IntRange(min=1),
                default=1200,
                show_default=True,
                help="The most heads to evaluate.",
            ),
            click.option("--exact", is_flag=True, help="Every head: no sampling error."),
            SEED,
        )
    ):
        command = option(command)
    return command


def estimator_of(exact: bool, mass: float, samples: int, seed: int) -> DesignEstimator:
    """Return the estimator that the options ask for."""
    from relsim.estimators import Enumerate, RaoBlackwell

    return Enumerate() if exact else RaoBlackwell(mass=mass, samples=samples, seed=seed)
