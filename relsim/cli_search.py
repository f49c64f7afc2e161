"""The commands that ask which relations are alike, inverse, or kinds of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relsim.arguments import Finite, open_facts, open_model, open_model_or_comparison
from relsim.errors import RelsimError
from relsim.options import AS_JSON, COLUMNS, SEED, estimator_of, estimator_options, examples, show

if TYPE_CHECKING:
    from relsim.estimators import DesignEstimator
    from relsim.evidence import Evidence
    from relsim.search import Effort

_PATH = click.Path(path_type=Path)
_TOP = click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="List so many.")
_KB = click.option("--kb", type=_PATH, help="Show the facts that prove it, from this KB.")


@click.command(
    epilog=examples(
        "relsim similar model P27", "relsim similar comparison P27", "relsim similar comparison P27 --top 5 --json"
    )
)
@click.argument("source", type=_PATH)
@click.argument("relation")
@_TOP
@estimator_options
@AS_JSON
def similar(source: Path, relation: str, top: int, as_json: bool, **options: Any) -> None:
    """List the relations most similar to RELATION.

    SOURCE is a comparison, or a model: then only what could be among the nearest is evaluated, with the result that a
    comparison with the same options has.
    """
    from relsim.distribution import FactDistribution
    from relsim.search import nearest
    from relsim.similar import neighbours, render_neighbours

    opened = open_model_or_comparison(source)
    effort = None
    if isinstance(opened, FactDistribution):
        found, effort = nearest(opened, relation, top, estimator=_kept(source, **options))
    else:
        found = neighbours(opened, relation, top)
    show(as_json, [n._asdict() for n in found], _lines(render_neighbours(found), effort))


@click.command(
    epilog=examples(
        "relsim redundant model", "relsim redundant comparison --kb codex-s", "relsim redundant model --threshold 0.8"
    )
)
@click.argument("source", type=_PATH)
@click.option(
    "--threshold",
    type=Finite(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="The least similarity exp(-max KL).",
)
@_KB
@COLUMNS
@estimator_options
@AS_JSON
def redundant(source: Path, threshold: float, kb: Path | None, columns: str, as_json: bool, **options: Any) -> None:
    """List the pairs of relations that say nearly the same.

    SOURCE is a comparison, or a model: then only pairs that could be similar enough are evaluated.
    """
    from relsim.distribution import FactDistribution
    from relsim.evidence import shared
    from relsim.search import similar_pairs
    from relsim.similar import nearest_pairs, pair_record, render_records

    opened = open_model_or_comparison(source)
    effort = None
    if isinstance(opened, FactDistribution):
        records, effort = similar_pairs(opened, threshold, estimator=_kept(source, **options))
    else:
        every = (pair_record(opened, a, b) for a, b in nearest_pairs(opened))
        records = [record for record in every if record["similarity"] >= threshold]
    found = None
    if kb is not None:
        facts = open_facts(kb, columns)
        _check_names(facts.relations, opened.relations, kb, source)
        found = shared(facts, [(r["a"], r["b"]) for r in records])
    _show_records(records, found, _lines(render_records(records), effort), as_json)


@click.command(epilog=examples("relsim inverse model", "relsim inverse model --relation P27 --kb codex-s"))
@click.argument("model", type=_PATH)
@click.option("--relation", "relations", multiple=True, help="Ask for this relation only; may be given more than once.")
@_TOP
@click.option(
    "--draws", type=click.IntRange(2, 1 << 20), default=200, show_default=True, help="Facts drawn of each relation."
)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Relations compared with each, the nearest by tails against heads.",
)
@_KB
@COLUMNS
@SEED
@AS_JSON
def inverse(
    model: Path,
    relations: tuple[str, ...],
    top: int,
    draws: int,
    candidates: int,
    kb: Path | None,
    columns: str,
    seed: int,
    as_json: bool,
) -> None:
    """List the pairs of relations that say the same backwards.

    Compares p(head, tail | a) with p(tail, head | b); a relation beside itself is symmetric.
    """
    from relsim.evidence import mirrored
    from relsim.inverse import inverses
    from relsim.similar import render_records

    fitted = open_model(model)
    records = inverses(fitted, list(relations) or None, candidates=candidates, samples=draws, seed=seed)[:top]
    found = None
    if kb is not None:
        facts = open_facts(kb, columns)
        _check_names(facts.relations, fitted.relations, kb, model)
        found = mirrored(facts, [(r["a"], r["b"]) for r in records])
    _show_records(records, found, render_records(records), as_json)


@click.command(epilog=examples("relsim hierarchy comparison", "relsim hierarchy model --kind-of 2 --gap 2 --json"))
@click.argument("source", type=_PATH)
@click.option("--kind-of", type=Finite(min=0), help="The most KL(a || b) in nats; by default as the report has it.")
@click.option("--gap", type=Finite(min=0), help="The least KL(b || a) - KL(a || b) in nats; likewise.")
@estimator_options
@AS_JSON
def hierarchy(source: Path, kind_of: float | None, gap: float | None, as_json: bool, **options: Any) -> None:
    """Show which relation is a kind of which, as a tree.

    a is a kind of b where b covers the facts of a and has others too. SOURCE is a comparison, or a model.
    """
    from dataclasses import replace

    from relsim.distribution import FactDistribution
    from relsim.kinds import hierarchy as graph_of
    from relsim.kinds import kinds, reduced, render_tree
    from relsim.report import RULE
    from relsim.search import covered_pairs
    from relsim.terminal import shown

    given: dict[str, Any] = {k: v for k, v in (("kind_of", kind_of), ("gap", gap)) if v is not None}
    opened = open_model_or_comparison(source)
    effort = None
    if isinstance(opened, FactDistribution):
        rule = replace(RULE, **given)
        records, effort = covered_pairs(opened, rule.kind_of, estimator=_kept(source, **options))
        graph = kinds(records, rule)
    else:
        graph = graph_of(opened, replace(RULE.scaled(opened), **given))
    kept = reduced(graph)
    edges = [{"a": a, "b": b, **data} for a, b, data in kept.edges(data=True)]
    tree = render_tree(kept, shown) or "no relation is a kind of another: raise --kind-of or lower --gap"
    show(as_json, edges, _lines(tree, effort))


def _kept(model: Path, **options: Any) -> DesignEstimator:
    """The estimator of the options, which finds in the model's folder what no question changes."""
    from relsim.designs import KeptDesigns

    return KeptDesigns(estimator_of(**options), model)


def _check_names(known: Any, wanted: Any, kb: Path, source: Path) -> None:
    if strange := set(wanted) - set(known):
        raise RelsimError(f"{kb}: has no relation {min(strange)!r}: name the KB that {source} was made from")


def _lines(text: str, effort: Effort | None) -> str:
    """The answer and, after a search, what it took."""
    return text if effort is None else f"{text}\n\n{effort}"


def _show_records(
    records: list[dict[str, Any]], found: dict[tuple[str, str], Evidence] | None, text: str, as_json: bool
) -> None:
    """Print pairs and, below each in a list of its own, the facts that prove it."""
    from relsim.terminal import shown

    if found is None:
        show(as_json, records, text)
        return
    for record in records:
        evidence = found[record["a"], record["b"]]
        record |= {"shared": evidence.shared, "examples": [list(fact) for fact in evidence.examples]}
    lines = [text, ""]
    for r in records:
        lines.append(f"{shown(r['a'])} | {shown(r['b'])}: {r['shared']:,} facts in common")
        lines += [f"  {shown(head)}, {shown(tail)}" for head, tail in r["examples"]]
    show(as_json, records, "\n".join(lines))


COMMANDS = (similar, redundant, inverse, hierarchy)
