"""The command `relsim`: from a dump of a knowledge base to a report on its relations.

Heavy imports stand inside the commands, so that `relsim --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relsim import __version__
from relsim.errors import RelsimError

if TYPE_CHECKING:
    from relsim.distribution import FactDistribution
    from relsim.divergence import Divergence
    from relsim.estimators import Estimator

INTERRUPTED = 130
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_COLUMNS = click.option(
    "--columns", default="hrt", show_default=True, help="Order of the columns of a table: htr, say."
)
_SEED = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds give equal results."
)


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.group(epilog=_examples("relsim demo", "relsim fit codex-s model", "relsim compare model comparison"))
@click.version_option(__version__, prog_name="relsim", message="%(prog)s %(version)s")
def cli() -> None:
    """How similar are two relations of a knowledge base?

    Fits a distribution over facts, p(head, tail | relation), and compares relations by the KL divergence of theirs.
    """


@cli.command(epilog=_examples("relsim demo", "relsim demo --out nations"))
@click.option("--out", type=click.Path(path_type=Path), default="relsim-demo", show_default=True, help="Folder.")
@_SEED
def demo(out: Path, seed: int) -> None:
    """Run the whole job on a small bundled KB: 14 nations, 55 relations, 1,992 facts."""
    from relsim.demo import run

    run(out, seed)


@cli.command(
    epilog=_examples(
        "relsim ingest codex-s codex-s.kb",
        "relsim ingest facts.tsv facts.kb --columns htr",
        "relsim ingest dump.nt.gz dump.kb",
    )
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("kb", type=click.Path(path_type=Path))
@_COLUMNS
@click.option("--format", "format_", help="tsv, csv, nt or openke, where the name of the file does not tell.")
def ingest(source: Path, kb: Path, columns: str, format_: str | None) -> None:
    """Turn SOURCE into a KB folder.

    SOURCE is a folder of train, valid and test files, an OpenKE folder, or a TSV, CSV or N-Triples file; files may be
    compressed. Every other command takes a SOURCE as well as a KB; ingesting once saves the parsing.
    """
    from relsim.ingest import ingest as read

    read_kb = read(source, columns=columns, format=format_)
    read_kb.save(kb)
    click.echo(f"{kb}: {read_kb}")
    for reason, count in read_kb.skipped.items():
        click.echo(f"skipped {count:,} statements: {reason}")


@cli.command(epilog=_examples("relsim stats codex-s", "relsim stats codex-s.kb --top 5 --json"))
@click.argument("kb", type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Show this many relations, the most frequent first.",
)
@_COLUMNS
@_AS_JSON
def stats(kb: Path, top: int, columns: str, as_json: bool) -> None:
    """Count what a KB holds: entities, relations, facts, duplicates."""
    from relsim.ingest import open_kb
    from relsim.stats import describe, render

    summary = describe(open_kb(kb, columns=columns), top)
    click.echo(json.dumps(summary, ensure_ascii=False) if as_json else render(summary))


@cli.command(epilog=_examples("relsim fit codex-s model", "relsim fit codex-s counts.model --counts"))
@click.argument("kb", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--counts", is_flag=True, help="Smoothed counts instead of the neural model; no training.")
@click.option(
    "--dim", type=click.IntRange(min=1), default=64, show_default=True, help="Width of entity and relation vectors."
)
@click.option(
    "--hidden", type=click.IntRange(min=1), default=1024, show_default=True, help="Width of the hidden layers."
)
@click.option("--no-bias", is_flag=True, help="No output bias: the exact form of the 2019 paper.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Groups of equal (head, relation) in a step; by default 1/64 of them, 32 to 512.",
)
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=2e-3, show_default=True, help="Peak learning rate."
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=0.1, show_default=True, help="Of the perceptrons."
)
@click.option(
    "--table-decay",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Weight decay of entity and relation vectors.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Stop after so many epochs without improvement.",
)
@click.option("--device", default="cpu", show_default=True)
@_COLUMNS
@_SEED
def fit(kb: Path, model: Path, counts: bool, no_bias: bool, columns: str, **options: Any) -> None:
    """Fit p(head, tail | relation) to KB and write it to the folder MODEL.

    Training can be interrupted: checkpoints go to MODEL.training after every epoch, and the same command goes on.
    """
    from relsim.ingest import open_kb
    from relsim.models import MANIFEST, save_model
    from relsim.storage import check_target
    from relsim.training import Training, fit_counts
    from relsim.training import fit as train

    check_target(model, MANIFEST)
    facts = open_kb(kb, columns=columns)
    if counts:
        fitted: FactDistribution = fit_counts(facts)
    else:
        shape = {key: options.pop(key) for key in ("dim", "hidden", "dropout", "device")}
        resume = model.with_name(model.name + ".training")
        try:
            fitted = train(facts, bias=not no_bias, training=Training(**options), resume=resume, **shape)
        except KeyboardInterrupt:
            if resume.exists():
                click.echo(f"relsim: {resume} holds what was done: the same command goes on from there", err=True)
            raise
    save_model(fitted, model)
    click.echo(f"{model}: validation NLL {fitted.meta['valid_nll']:.3f} nats per fact")


@cli.command(epilog=_examples("relsim compare model comparison", "relsim compare model comparison --samples 3000"))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("comparison", type=click.Path(path_type=Path))
@click.option(
    "--mass",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="As many heads as hold this share of each relation's mass,",
)
@click.option("--samples", type=click.IntRange(min=1), default=1200, show_default=True, help="but at most this many.")
@click.option("--exact", is_flag=True, help="Every head: no sampling error.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Print this many of the most similar pairs.",
)
@_SEED
@_AS_JSON
def compare(
    model: Path, comparison: Path, mass: float, samples: int, exact: bool, top: int, seed: int, as_json: bool
) -> None:
    """Estimate the KL divergence between all relations of MODEL; write it to the folder COMPARISON.

    The folder also holds pairs.tsv, a table of all pairs with standard errors.
    """
    from relsim.divergence import MANIFEST
    from relsim.estimators import Enumerate, RaoBlackwell
    from relsim.models import load_model
    from relsim.similar import write_pairs
    from relsim.storage import check_target

    check_target(comparison, MANIFEST)
    estimator: Estimator = Enumerate() if exact else RaoBlackwell(mass=mass, samples=samples, seed=seed)
    fitted = load_model(model)
    div = estimator.divergence(fitted)
    div.save(comparison)
    write_pairs(div, comparison / "pairs.tsv")
    _print_pairs(div, top, as_json)


@cli.command(epilog=_examples("relsim similar comparison P27", "relsim similar comparison P27 --top 5 --json"))
@click.argument("comparison", type=click.Path(path_type=Path))
@click.argument("relation")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True)
@_AS_JSON
def similar(comparison: Path, relation: str, top: int, as_json: bool) -> None:
    """List the relations most similar to RELATION."""
    from relsim.divergence import Divergence
    from relsim.similar import neighbours, render_neighbours

    found = neighbours(Divergence.load(comparison), relation, top)
    click.echo(json.dumps([n._asdict() for n in found], ensure_ascii=False) if as_json else render_neighbours(found))


@cli.command(
    epilog=_examples("relsim report comparison report.html", "relsim report comparison report.html --kb codex-s")
)
@click.argument("comparison", type=click.Path(path_type=Path))
@click.argument("page", type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="Show the facts that similar relations share in this KB.")
@click.option("--title", help="Heading of the page; by default the name of the data.")
@_COLUMNS
def report(comparison: Path, page: Path, kb: Path | None, title: str | None, columns: str) -> None:
    """Write a comparison as one self-contained HTML page."""
    from relsim.divergence import Divergence
    from relsim.ingest import open_kb
    from relsim.report import LISTED_PAIRS, shared_facts, write_report
    from relsim.similar import nearest_pairs

    div = Divergence.load(comparison)
    evidence = None
    if kb is not None:
        evidence = shared_facts(open_kb(kb, columns=columns), div, nearest_pairs(div, LISTED_PAIRS))
    write_report(div, page, title=title or f"Relations of {div.meta.get('source', comparison.name)}", evidence=evidence)
    click.echo(f"{page}: open it in a browser")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for bad input or a full disk, 130 when interrupted."""
    try:
        return cli.main(args=arguments, prog_name="relsim", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RelsimError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `relsim stats | head`
        sys.stderr.close()
        return 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("relsim: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}: make room or choose another place")


def _fail(message: str) -> int:
    click.echo(f"relsim: {message}", err=True)
    return 2


def _print_pairs(div: Divergence, top: int, as_json: bool) -> None:
    from relsim.similar import nearest_pairs, pair_record, render_pairs

    pairs = nearest_pairs(div, top)
    if as_json:
        click.echo(json.dumps([pair_record(div, a, b) for a, b in pairs], ensure_ascii=False))
    else:
        click.echo(render_pairs(div, pairs))
