"""The commands that compare all relations of a model and hand the result on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relsim.arguments import Finite, open_comparison, open_model
from relsim.options import AS_JSON, estimator_of, estimator_options, examples, show

if TYPE_CHECKING:
    from relsim.comparing import Shard
    from relsim.divergence import Divergence

_PATH = click.Path(path_type=Path)


class _ShardType(click.ParamType):  # type: ignore[type-arg]
    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        from relsim.comparing import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command(
    epilog=examples(
        "relsim compare model comparison",
        "relsim compare model comparison --samples 3000",
        "relsim compare model sharded --shard 1/2",
        "relsim compare model sharded --shard 2/2",
    )
)
@click.argument("model", type=_PATH)
@click.argument("comparison", type=_PATH)
@estimator_options
@click.option("--shard", type=_ShardType(), help="Do this part of the work only; `relsim merge` puts parts together.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Print the most similar pairs.")
@AS_JSON
def compare(model: Path, comparison: Path, shard: Shard | None, top: int, as_json: bool, **options: Any) -> None:
    """Estimate the KL divergence between all relations of MODEL.

    It goes to the folder COMPARISON, which also holds pairs.tsv, a table of all pairs with standard errors. The work is
    done in blocks, which go to COMPARISON.blocks: after an interruption the same command goes on from there.

    `torchrun --nproc-per-node 2 -m relsim compare ...` shares the table of entities out to processes.
    """
    from relsim.comparing import compare as run
    from relsim.comparing import scratch_of
    from relsim.crew import Crew
    from relsim.divergence import MANIFEST
    from relsim.storage import check_target

    check_target(comparison, MANIFEST)
    crew, scratch = Crew.joined(), scratch_of(comparison)
    try:
        div = run(open_model(model, crew), comparison, estimator_of(**options), shard=shard, crew=crew)
    except KeyboardInterrupt:
        if scratch.exists():
            click.echo(f"relsim: {scratch} holds what was done: the same command goes on from there", err=True)
        raise
    if not crew.leads:
        return
    if div is None:
        assert shard is not None
        part = f"{shard.index + 1}/{shard.count}"
        text = f"{scratch}: holds part {part}; `relsim merge {comparison}` once all parts are there"
        show(as_json, {"blocks": str(scratch), "shard": part}, text)
    else:
        _show_pairs(div, top, as_json)


@click.command(epilog=examples("relsim merge sharded", "relsim merge sharded --top 5 --json"))
@click.argument("comparison", type=_PATH)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Print the most similar pairs.")
@AS_JSON
def merge(comparison: Path, top: int, as_json: bool) -> None:
    """Put together what `relsim compare --shard` made for COMPARISON.

    The model is not needed. Blocks that are missing are named.
    """
    from relsim.comparing import merge as run

    _show_pairs(run(comparison), top, as_json)


@click.command(
    epilog=examples("relsim export comparison pairs.csv", "relsim export comparison relations.graphml --threshold 0.9")
)
@click.argument("comparison", type=_PATH)
@click.argument("file", type=_PATH)
@click.option(
    "--threshold",
    type=Finite(0, 1),
    default=0.0,
    show_default=True,
    help="Keep pairs that are more similar than this share of all pairs.",
)
@AS_JSON
def export(comparison: Path, file: Path, threshold: float, as_json: bool) -> None:
    """Write a comparison for other programs.

    The ending of FILE decides: .csv, .tsv, .json, .parquet, .graphml or .gexf.
    """
    from relsim.exporting import export as write

    count = write(open_comparison(comparison), file, threshold=threshold)
    show(as_json, {"file": str(file), "pairs": count}, f"{file}: {count:,} pairs")


def _show_pairs(div: Divergence, top: int, as_json: bool) -> None:
    from relsim.similar import nearest_pairs, pair_record, render_pairs

    pairs = nearest_pairs(div, top)
    show(as_json, [pair_record(div, a, b) for a, b in pairs], render_pairs(div, pairs))


COMMANDS = (compare, merge, export)
