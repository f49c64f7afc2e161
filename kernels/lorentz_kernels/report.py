"""`python -m lorentz_kernels.report`: what the compiler made of every kernel, on a machine with or without a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from lorentz_kernels.ahead import Launch, compile_launch, operations
from lorentz_kernels.command import Refused, named
from lorentz_kernels.cubin import Facts, facts
from lorentz_kernels.dispatch import INSTALLED, interpreting

CAPABILITIES = (80, 90, 100)
COLUMNS = ("registers", "stack", "spills", "shared", "widest_load", "hgmma", "hmma", "utcmma", "loop", "bound", "share")
PAGE_COLUMNS = ("registers", "spills", "shared", "widest_load", "hgmma", "loop", "bound", "share")
MARKS = ("<!-- report -->", "<!-- end of report -->")


def measure(launch: Launch, capability: int) -> dict[str, Facts]:
    """Return the figures of the kernels that a launch starts, by name; of one started twice, those of the last."""
    return {kernel.name: facts(kernel, launch.useful) for kernel in compile_launch(launch, capability)}


def golden(op: str, launches: list[Launch], capabilities: tuple[int, ...]) -> dict[str, Any]:
    """Return what a file of golden values holds: Triton's version, and all figures by launch, capability and kernel."""
    import triton

    figures = {
        launch.name: {
            f"sm_{capability}": {name: each.as_dict() for name, each in measure(launch, capability).items()}
            for capability in capabilities
        }
        for launch in launches
    }
    return {"op": op, "triton": triton.__version__, "launches": figures}


def table(results: list[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """Yield the lines of a Markdown table of golden values."""
    yield "| operation | launch | kernel | sm | " + " | ".join(columns) + " |"
    yield "|---" * (4 + len(columns)) + "|"
    for result in results:
        for launch, by_capability in result["launches"].items():
            for capability, kernels in by_capability.items():
                for kernel, figures in kernels.items():
                    cells = [_cell(name, figures[name]) for name in columns]
                    yield "| " + " | ".join([result["op"], launch, kernel, capability[3:], *cells]) + " |"


def on_page(text: str, golden: Path) -> str:
    """Return a page with the table between its marks made anew, from the golden values in a folder, for Hopper."""
    results = [json.loads(path.read_text()) for path in sorted(golden.glob("*.json"))]
    for result in results:
        for by_capability in result["launches"].values():
            for other in set(by_capability) - {"sm_90"}:
                del by_capability[other]
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return "\n".join([before + MARKS[0], *table(results, PAGE_COLUMNS), MARKS[1] + after])


def _cell(name: str, figure: float | str | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.0%}" if name == "share" else str(figure)


@click.command()
@click.argument("ops", nargs=-1, metavar="[OPERATION]...")
@click.option(
    "--sm",
    "capabilities",
    type=click.Choice([str(c) for c in CAPABILITIES]),
    multiple=True,
    help="Compile for these only.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
@click.option(
    "--update",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Rewrite the golden values in this folder.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="With --update: rewrite the table in this page too, from all golden values.",
)
def main(
    ops: tuple[str, ...], capabilities: tuple[str, ...], as_json: bool, update: Path | None, page: Path | None
) -> None:
    """Compile every kernel ahead of time and print its resources, loads, tensor-core use and modelled share of peak.

    Example: python -m lorentz_kernels.report --sm 90 linear
    """
    if update is not None and capabilities:
        raise Refused("golden values are of every capability: leave out --sm")
    if page is not None and update is None:
        raise Refused("a page is made from golden values: give their folder with --update")
    if not INSTALLED or interpreting():
        raise Refused("compiling needs triton (pip install 'lorentz-relsim[gpu]') and TRITON_INTERPRET unset")
    launches = named(ops, operations(), "launches")
    wanted = tuple(int(each) for each in capabilities) or CAPABILITIES
    results = [golden(op, cases, wanted) for op, cases in launches.items()]
    if update is not None:
        for result in results:
            (update / f"{result['op']}.json").write_text(json.dumps(result, indent=1) + "\n")
    if update is not None and page is not None:
        page.write_text(on_page(page.read_text(), update))
    click.echo(json.dumps(results, indent=1) if as_json else "\n".join(table(results)))


if __name__ == "__main__":
    main()
