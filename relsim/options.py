"""What the commands share: options, examples in help texts, and answers for people or for machines."""

from __future__ import annotations

import json
from typing import Any

import click

from relsim.arguments import SEED as SEED_RANGE

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
COLUMNS = click.option("--columns", default="hrt", show_default=True, help="Order of the columns of a table: htr, say.")
SEED = click.option("--seed", type=SEED_RANGE, default=0, show_default=True, help="Equal seeds, equal results.")


def examples(*lines: str) -> str:
    """Return the end of a help text that shows these command lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def show(as_json: bool, value: Any, text: str) -> None:
    """Print `value` as JSON, or else `text`."""
    click.echo(json.dumps(value) if as_json else text)
