"""The command `relsim`: from a dump of a knowledge base to a report on its relations.

Heavy imports stand inside the commands, so that `relsim --help` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relsim import __version__, cli_compare, cli_kb, cli_search
from relsim.arguments import SIZE, Finite, check_device, check_page, open_comparison, open_facts
from relsim.errors import RelsimError
from relsim.options import AS_JSON as _AS_JSON
from relsim.options import COLUMNS as _COLUMNS
from relsim.options import SEED as _SEED
from relsim.options import examples as _examples
from relsim.options import show as _show
from relsim.registry import NEURAL

if TYPE_CHECKING:
    from relsim.distribution import FactDistribution

INTERRUPTED = 130


@click.group(epilog=_examples("relsim demo", "relsim fit codex-s model", "relsim compare model comparison"))
@click.version_option(__version__, prog_name="relsim", message="%(prog)s %(version)s")
def cli() -> None:
    """How similar are two relations of a knowledge base?

    Fits a distribution over facts, p(head, tail | relation), and compares relations by the KL divergence of theirs.
    """


for _command in cli_kb.COMMANDS:
    cli.add_command(_command)


@cli.command(epilog=_examples("relsim demo", "relsim demo --out nations"))
@click.option("--out", type=click.Path(path_type=Path), default="relsim-demo", show_default=True, help="Folder.")
@_SEED
@_AS_JSON
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Run the whole job on a small bundled KB.

    It holds 14 nations, 55 relations and 1,992 facts.
    """
    from relsim.demo import run

    result = run(out, seed, say=(lambda _: None) if as_json else click.echo)
    if as_json:
        _show(as_json, result, "")


@cli.command(
    epilog=_examples(
        "relsim fit codex-s model",
        "relsim fit codex-s points.model --model lorentz",
        "relsim fit codex-s counts.model --counts",
    )
)
@click.argument("kb", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "kind",
    type=click.Choice(list(NEURAL)),
    default="mlp",
    show_default=True,
    help="Perceptrons; maps of points of hyperbolic space; perceptrons with classes of entities, for over a million.",
)
@click.option("--counts", is_flag=True, help="Smoothed counts instead of the neural model; no training.")
@click.option("--dim", type=SIZE, default=64, show_default=True, help="Width of entity and relation vectors.")
@click.option("--hidden", type=SIZE, default=1024, show_default=True, help="Width of the hidden layers.")
@click.option("--no-bias", is_flag=True, help="No output bias: the exact form of the 2019 paper.")
@click.option("--dropout", type=Finite(0, 1, max_open=True), default=0.3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--batch", type=SIZE, help="Groups of equal (head, relation) in a step; by default 1/64 of them, 32 to 512."
)
@click.option("--lr", type=Finite(min=0, min_open=True), default=2e-3, show_default=True, help="Peak learning rate.")
@click.option("--weight-decay", type=Finite(min=0), default=0.1, show_default=True, help="Of the perceptrons.")
@click.option(
    "--table-decay", type=Finite(min=0), default=2.0, show_default=True, help="Of entity and relation vectors."
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Stop after so many epochs without improvement.",
)
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda, cuda:1.")
@_COLUMNS
@_SEED
@_AS_JSON
def fit(
    kb: Path, model: Path, kind: str, counts: bool, no_bias: bool, columns: str, as_json: bool, **options: Any
) -> None:
    """Fit p(head, tail | relation) to KB, into the folder MODEL.

    Training can be interrupted: checkpoints go to MODEL.training after every epoch, and the same command goes on.
    """
    from relsim.crew import Crew
    from relsim.lock import alone
    from relsim.models import MANIFEST, save_model
    from relsim.optimising import Training
    from relsim.registry import neural_class_of
    from relsim.storage import check_target
    from relsim.training import fit as train
    from relsim.training import fit_counts

    check_target(model, MANIFEST)
    crew = Crew.joined()
    check_device(options["device"])
    facts = open_facts(kb, columns)
    resume = model.with_name(model.name + ".training")
    with alone(model) if crew.leads else nullcontext():
        if counts:
            fitted: FactDistribution = fit_counts(facts, options["seed"])
        else:
            shape = {key: options.pop(key) for key in ("dim", "hidden", "dropout", "device")}
            settings = {"model": neural_class_of(kind), "bias": not no_bias, "training": Training(**options), **shape}
            try:
                fitted = train(facts, resume=resume, crew=crew, **settings)
            except KeyboardInterrupt:
                if resume.exists():
                    click.echo(f"relsim: {resume} holds what was done: the same command goes on from there", err=True)
                raise
        if not crew.leads:
            return
        save_model(fitted, model)
        if not counts:
            shutil.rmtree(resume, ignore_errors=True)
    text = f"{model}: validation NLL {fitted.meta['valid_nll']:.3f} nats per fact"
    _show(as_json, {"model": str(model), **fitted.meta}, text)


@cli.command(
    epilog=_examples("relsim report comparison report.html", "relsim report comparison report.html --kb codex-s")
)
@click.argument("comparison", type=click.Path(path_type=Path))
@click.argument("page", type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="Show the facts that similar relations share in this KB.")
@click.option("--title", help="Heading of the page; by default the name of the data.")
@_COLUMNS
@_AS_JSON
def report(comparison: Path, page: Path, kb: Path | None, title: str | None, columns: str, as_json: bool) -> None:
    """Write a comparison as one self-contained HTML page."""
    from relsim.report import LISTED_PAIRS, shared_facts, write_report
    from relsim.similar import nearest_pairs

    check_page(page)
    div = open_comparison(comparison)
    evidence = None
    if kb is not None:
        facts = open_facts(kb, columns)
        if strange := set(div.relations) - set(facts.relations):
            raise RelsimError(f"{kb}: has no relation {min(strange)!r}: name the KB that {comparison} was made from")
        evidence = shared_facts(facts, div, nearest_pairs(div, LISTED_PAIRS))
    source = Path(div.meta.get("source") or comparison).name
    write_report(div, page, title=title or f"Relations of {source}", evidence=evidence)
    _show(as_json, {"page": str(page)}, f"{page}: open it in a browser")


for _command in cli_compare.COMMANDS + cli_search.COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for bad input or a full disk, 130 when interrupted."""
    gc.set_threshold(500_000)  # importing torch makes many objects and little garbage
    atexit.register(_leave)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        return cli.main(args=arguments, prog_name="relsim", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RelsimError as error:
        return _fail(str(error))
    except SystemExit as done:  # click's way out of `relsim stats | head`, and of completing a line for the shell
        return 0 if "_RELSIM_COMPLETE" not in os.environ else int(done.code or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("relsim: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}: mend that, or name another place")
    except (MemoryError, RuntimeError) as error:  # torch says either
        if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        return _fail("out of memory: take a smaller --hidden, --dim or --batch, or fewer --samples")


def _leave() -> None:
    """Let the last collections pass over what torch made: a third of the time that its import takes."""
    if "triton" not in sys.modules:  # whose binding reports what was not collected
        gc.freeze()


def _fail(message: str) -> int:
    click.echo(f"relsim: {' '.join(message.splitlines())}", err=True)
    return 2
