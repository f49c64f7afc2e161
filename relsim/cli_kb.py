"""The commands that make knowledge bases of dumps and say what they hold: `plan`, `ingest`, `update`, `stats`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relsim.arguments import Finite, check_facts, open_facts
from relsim.options import AS_JSON, COLUMNS, examples, show

if TYPE_CHECKING:
    from relsim.ingest import Dump

_PATH = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _dump_options(command: _Command) -> _Command:
    """Add the options that say what is wanted of a dump; `_dump` takes them."""
    for option in reversed(
        (
            COLUMNS,
            click.option("--format", help="What SOURCE is, where its name does not tell: nt, kgtk, wikidata, ..."),
            click.option(
                "--predicate",
                "predicates",
                multiple=True,
                metavar="GLOB",
                help="Keep the relations whose name matches; may be given more than once.",
            ),
            click.option(
                "--max-entities", type=click.IntRange(min=1), help="Keep so many entities, the most frequent."
            ),
            click.option(
                "--min-triples",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                help="Then keep the relations with so many distinct facts.",
            ),
            click.option("--distinct", is_flag=True, help="Count each fact once, however often it is stated."),
            click.option("--labels", type=_PATH, help="A file `name TAB label`: P27 becomes `citizenship (P27)`."),
            click.option(
                "--bad-lines",
                type=Finite(0, 1),
                default=1e-5,
                show_default=True,
                help="The share of bad lines to leave out; fail if there are more.",
            ),
        )
    ):
        command = option(command)
    return command


def _dump(source: Path, warn: Callable[[str], None] | None, **options: Any) -> Dump:
    from relsim.ingest import Dump
    from relsim.selecting import Choice

    check_facts(source)
    choice = Choice(options.pop("predicates"), options.pop("max_entities"), options.pop("min_triples"))
    return Dump(source, choice=choice, warn=warn, **options)


def _warn(line: str) -> None:
    click.echo(f"relsim: {line} (left out)", err=True)


@click.command(
    epilog=examples(
        "relsim ingest codex-s codex-s.kb",
        "relsim ingest facts.tsv facts.kb --columns htr",
        "relsim ingest dump.nt.gz dump.kb --min-triples 2",
        "relsim ingest latest-truthy.nt.bz2 wikidata.kb --labels labels.tsv",
    )
)
@click.argument("source", type=_PATH)
@click.argument("kb", type=_PATH)
@_dump_options
@AS_JSON
def ingest(source: Path, kb: Path, as_json: bool, **options: Any) -> None:
    """Turn SOURCE into a KB folder.

    SOURCE is a folder of train, valid and test files, an OpenKE folder, a table (TSV, CSV, KGTK, Parquet), RDF in any
    syntax, a Wikidata, DBpedia or Freebase dump, or Open IE extractions as JSON lines; files may be compressed, and -
    is standard input. Every other command takes a SOURCE as well as a KB; ingesting once saves the parsing.
    """
    from relsim.ingest import ingest_into
    from relsim.kbfiles import MANIFEST
    from relsim.storage import check_target

    check_target(kb, MANIFEST)
    told = ingest_into(kb, _dump(source, _warn, **options))
    show(as_json, {"kb": str(kb), **told}, "\n".join([f"{kb}: {_sizes(told)}", *_skipped(told)]))


@click.command(epilog=examples("relsim plan dump.nt.gz", "relsim plan codex-s --json"))
@click.argument("source", type=_PATH)
@COLUMNS
@click.option("--format", help="What SOURCE is, where its name does not tell.")
@AS_JSON
def plan(source: Path, columns: str, format: str | None, as_json: bool) -> None:
    """Say what SOURCE is, and what each step on it takes.

    It reads a sample: counts and times beyond that are extrapolated, from constants measured on one core.
    """
    from relsim.plan import plan as look
    from relsim.plan import render

    check_facts(source)
    told = look(source, columns, format)
    show(as_json, told, render(told))


@click.command(
    epilog=examples(
        "relsim update codex-s.kb new.tsv",
        "relsim update codex-s.kb new.tsv --distinct",
    )
)
@click.argument("kb", type=_PATH)
@click.argument("source", type=_PATH)
@_dump_options
@AS_JSON
def update(kb: Path, source: Path, as_json: bool, **options: Any) -> None:
    """Add the facts of SOURCE to the training facts of the folder KB.

    Names keep their numbers, new ones follow. Facts that KB holds out for validation or test stay there.
    """
    from relsim.arguments import open_saved
    from relsim.evolving import updated
    from relsim.ingest import ingest as read

    distinct = options["distinct"]
    saved = open_saved(kb)
    new, held_out = updated(saved, read(_dump(source, _warn, **options)), distinct=distinct)
    new.save(kb)
    told = {"entities": len(new.entities), "relations": len(new.relations)}
    sizes = {split: len(part) for split, part in new.splits.items()}
    added = len(new.train) - len(saved.train)
    text = f"{kb}: {new}: {added:,} new facts, {held_out:,} left out because they are held out"
    show(as_json, {"kb": str(kb), **told, "facts": sizes, "new": added, "held_out": held_out}, text)


@click.command(epilog=examples("relsim stats codex-s", "relsim stats codex-s.kb --top 5 --json"))
@click.argument("kb", type=_PATH)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="List the most frequent relations."
)
@COLUMNS
@AS_JSON
def stats(kb: Path, top: int, columns: str, as_json: bool) -> None:
    """Count what a KB holds: entities, relations, facts, duplicates."""
    from relsim.stats import describe, render

    summary = describe(open_facts(kb, columns), top)
    show(as_json, summary, render(summary))


def _sizes(told: dict[str, Any]) -> str:
    facts = ", ".join(f"{split}={count:,}" for split, count in told["facts"].items())
    return f"KB(entities={told['entities']:,}, relations={told['relations']:,}, {facts})"


def _skipped(told: dict[str, Any]) -> list[str]:
    return [f"skipped {count:,} statements: {reason}" for reason, count in told["skipped"].items()]


COMMANDS = (plan, ingest, update, stats)
