"""The command, as somebody uses it who mistypes, interrupts, fills the disk and reads what it says."""

from __future__ import annotations

import bz2
import contextlib
import csv
import errno
import fcntl
import functools
import gzip
import json
import math
import os
import pty
import random
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import relsim
from relsim import checkpoint, demo
from relsim.cli import cli, main
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.estimators import Enumerate, Estimator
from relsim.formats import FORMATS
from relsim.lock import alone
from relsim.models import load_model
from relsim.similar import neighbours

RELATIONS = ("likes", "knows", "works for", "is paid by", "lives in")
SMALL = ("--dim", "8", "--hidden", "16", "--epochs", "2")
COMMANDS = sorted(cli.commands)
ORDER = (  # each needs what those before it made
    *("plan", "ingest", "update", "stats", "fit", "compare", "merge", "similar"),
    *("redundant", "inverse", "hierarchy", "export", "report"),
)
LOADED_LATE = ("torch", "numpy", "pyarrow", "scipy", "networkx", "jinja2", "safetensors", "tqdm")

Tree = dict[str, bytes | None]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


def tsv(seed: int = 1, relations: tuple[str, ...] = RELATIONS, facts: int = 70) -> str:
    rng = random.Random(seed)
    rows = [(f"e{rng.randrange(12)}", relations[i % len(relations)], f"e{rng.randrange(12)}") for i in range(facts)]
    return "".join("\t".join(row) + "\n" for row in rows)


def tree(folder: Path) -> Tree:
    """Everything below `folder`: the files with their content, hidden ones and empty folders too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, as at a terminal: a shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: its exit code, standard output and standard error."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with facts and what the command makes of them; tests read from it and leave it as it is."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "facts.tsv").write_text(tsv())
    (folder / "one.tsv").write_text(tsv(relations=("likes",), facts=30))
    for line in (
        "ingest facts.tsv kb",
        f"fit facts.tsv model {' '.join(SMALL)}",
        "fit one.tsv lonely.model --counts",
        "compare model comparison",
    ):
        name, *rest = line.split()
        paths = [str(folder / word) if i < 2 else word for i, word in enumerate(rest)]
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
            assert main([name, *paths]) == 0, line
    facts = {"settings": {}, "progress": {}}
    tensors = {group: {"x": torch.zeros(1)} for group in ("model", "best", "optimiser")}
    checkpoint.save(folder / "model.training", tensors, facts["settings"], facts["progress"])
    (folder / "empty").mkdir()
    return folder


def refusal(result: Result, start: object, *words: str) -> str:
    """What the command says against its input: one line that opens with the place and says these words, and no more."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.endswith("\n")
    (line,) = result.err.splitlines()
    assert line.startswith(f"relsim: {start}"), line
    for word in words:
        assert word in line
    assert line.count(": ") >= 2, f"no remedy in {line!r}"
    return line


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python, as a user would start the command, and wait for it."""
    defaults = {"capture_output": True} if not {"stdout", "stderr"} & set(options) else {}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(**options.pop("extra", {})),
        text=True,
        timeout=120,
        check=False,
        **defaults,
        **options,
    )


def environment(**extra: str) -> dict[str, str]:
    root = Path(relsim.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


# help


@pytest.mark.parametrize("name", [[], *([name] for name in COMMANDS)], ids=lambda name: " ".join(["relsim", *name]))
def test_help_explains_itself_and_shows_an_example(command: Command, name: list[str]) -> None:
    result = command(*name, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(" ".join(["Usage: relsim", *name]))
    assert len(examples(result.out)) >= 2
    assert max(map(len, result.out.splitlines())) <= 80


def test_help_lists_every_command_with_a_whole_sentence(command: Command) -> None:
    listing = command("--help").out.partition("Commands:")[2].partition("Examples:")[0]
    summaries = dict(line.split(maxsplit=1) for line in listing.splitlines() if line.strip())
    assert sorted(summaries) == COMMANDS
    for summary in summaries.values():
        assert summary.endswith(".")
        assert not summary.endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_and_every_command_speaks_json(name: str) -> None:
    options = {option.name: option for option in cli.commands[name].params if option.param_type_name == "option"}
    assert "as_json" in options
    obvious = {"dropout", "epochs", "top"}
    assert {key for key, option in options.items() if not getattr(option, "help", None)} <= obvious


def examples(text: str) -> list[list[str]]:
    """The examples of a help text, as arguments."""
    block = text.partition("Examples:\n")[2]
    lines = [shlex.split(line) for line in block.splitlines()]
    assert all(line[0] == "relsim" for line in lines)
    return [line[1:] for line in lines]


def test_the_examples_of_the_help_texts_run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codex-s").mkdir()
    for split, facts in (("train", 300), ("valid", 40), ("test", 40)):
        text = tsv(len(split), ("P27", "P106", "P1412", "P69"), facts)
        (tmp_path / "codex-s" / f"{split}.txt").write_text(text)
    (tmp_path / "facts.tsv").write_text("a\tb\tr\nb\tc\tr\n")
    nt = "<http://x/a> <http://x/r> <http://x/b> .\n<http://x/a> <http://x/r> <http://x/c> .\n"
    (tmp_path / "dump.nt.gz").write_bytes(gzip.compress(nt.encode()))
    entity, direct = "http://www.wikidata.org/entity", "http://www.wikidata.org/prop/direct"
    truthy = f'<{entity}/Q42> <{direct}/P27> <{entity}/Q145> .\n<{entity}/Q42> <{direct}/P569> "1952" .\n'
    (tmp_path / "latest-truthy.nt.bz2").write_bytes(bz2.compress(truthy.encode()))
    (tmp_path / "new.tsv").write_text("e1\tP27\te2\n")
    (tmp_path / "labels.tsv").write_text("Q42\tDouglas Adams\nP27\tcitizenship\n")
    told = examples(command("--help").out)
    for name in ORDER:
        told += examples(command(name, "--help").out)
    told = sorted({tuple(line): line for line in told if line[0] != "demo"}.values(), key=lambda line: rank(line[0]))
    assert {line[0] for line in told} == set(COMMANDS) - {"demo"}
    for line in told:
        result = command(*line)
        assert (result.code, result.err) == (0, ""), line
        assert result.out
        if "--json" in line:
            json.loads(result.out)
    assert (tmp_path / "counts.model" / "model.json").is_file()
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("P1412") >= 1


def rank(name: str) -> int:
    return ORDER.index(name)


def test_help_imports_nothing_heavy() -> None:
    script = f"""
import sys
from relsim.cli import main
for name in {[[], *([name] for name in COMMANDS)]!r}:
    assert main([*name, "--help"]) == 0
print(*sorted(set({LOADED_LATE!r}) & set(sys.modules)), sep=",", file=sys.stderr)
"""
    done = python("-c", script)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout.count("Examples:") == len(COMMANDS) + 1


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "relsim", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


def test_version_is_the_packages(command: Command) -> None:
    assert command("--version") == (0, f"relsim {relsim.__version__}\n", "")


@pytest.mark.parametrize(
    "line",
    [
        "nosuch",
        "stats",
        "stats a b",
        "stats a --nosuch",
        "fit a",
        "stats a --top 0",
        "stats a --top x",
        "fit a b --dim 0",
        "fit a b --dim 1000000000000000000000",
        "fit a b --hidden -1",
        "fit a b --epochs 0",
        "fit a b --batch 1000000000000000000000",
        "fit a b --seed -1",
        "fit a b --seed 1000000000000000000000",
        "fit a b --lr 0",
        "fit a b --lr nan",
        "fit a b --lr inf",
        "fit a b --dropout 1",
        "fit a b --dropout nan",
        "fit a b --weight-decay -0.5",
        "fit a b --table-decay inf",
        "compare a b --mass 0",
        "compare a b --mass 1.5",
        "compare a b --mass nan",
        "compare a b --samples 0",
    ],
)
def test_a_mistyped_command_line_exits_with_2_and_names_the_help(command: Command, line: str) -> None:
    result = command(*line.split())
    assert (result.code, result.out) == (2, "")
    assert f"Try 'relsim{f' {line.split()[0]}' if line != 'nosuch' else ''} --help' for help." in result.err
    assert result.err.splitlines()[-1].startswith("Error: ")


# good input


def test_ingest_keeps_what_the_file_says(command: Command, tmp_path: Path) -> None:
    rows = [tuple(line.split("\t")) for line in tsv(3).splitlines()]
    (tmp_path / "facts.tsv").write_text("".join(f"{h}\t{t}\t{r}\n" for h, r, t in rows))
    result = command("ingest", tmp_path / "facts.tsv", tmp_path / "kb", "--columns", "htr", "--json")
    assert (result.code, result.err) == (0, "")
    told = json.loads(result.out)
    assert told["kb"] == str(tmp_path / "kb")
    assert told["facts"] == {"train": len(set(rows))}
    assert told["duplicates"] == {"train": len(rows) - len(set(rows))}
    assert told["entities"] == len({name for h, _, t in rows for name in (h, t)})
    kb = relsim.open_kb(tmp_path / "kb")
    names = [(kb.entities[h], kb.relations[r], kb.entities[t]) for h, r, t in facts_of(kb)]
    assert Counter(dict(zip(names, kb.train.count.tolist(), strict=True))) == Counter(rows)
    text = command("ingest", tmp_path / "facts.tsv", tmp_path / "kb", "--columns", "htr")
    assert text == (0, f"{tmp_path / 'kb'}: {kb!r}\n", "")


def facts_of(kb: relsim.KB) -> Iterator[tuple[int, int, int]]:
    return zip(kb.train.head.tolist(), kb.train.relation.tolist(), kb.train.tail.tolist(), strict=True)


def test_ingest_says_what_it_left_out(command: Command, tmp_path: Path) -> None:
    (tmp_path / "dump.nt").write_text('<x:a> <x:r> <x:b> .\n<x:a> <x:r> "text" .\n')
    told = json.loads(command("ingest", tmp_path / "dump.nt", tmp_path / "kb", "--json").out)
    ((reason, count),) = told["skipped"].items()
    assert count == 1
    text = command("ingest", tmp_path / "dump.nt", tmp_path / "kb").out
    assert text.splitlines()[1:] == [f"skipped 1 statements: {reason}"]


def test_stats_count_what_the_file_says(command: Command, made: Path) -> None:
    rows = {tuple(line.split("\t")) for line in (made / "facts.tsv").read_text().splitlines()}
    for source in ("facts.tsv", "kb"):
        told = json.loads(command("stats", made / source, "--json").out)
        assert told["relations"] == len(RELATIONS)
        assert {entry["relation"]: entry for entry in told["top"]} == {
            name: {
                "relation": name,
                "facts": sum(r == name for _, r, _ in rows),
                "heads": len({h for h, r, _ in rows if r == name}),
                "tails": len({t for _, r, t in rows if r == name}),
            }
            for name in RELATIONS
        }
    assert [entry["facts"] for entry in told["top"]] == sorted((e["facts"] for e in told["top"]), reverse=True)
    top = json.loads(command("stats", made / "kb", "--json", "--top", 2).out)["top"]
    assert top == told["top"][:2]
    text = command("stats", made / "kb").out
    assert re.search(rf"^ *{told['top'][0]['facts']} .* {told['top'][0]['relation']}$", text, re.MULTILINE)


def test_fit_from_a_dump_and_from_its_kb_give_the_same_bytes(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("fit", made / "kb", tmp_path / "model", *SMALL, "--json")
    assert (result.code, result.err) == (0, "")
    told = json.loads(result.out)
    model = load_model(tmp_path / "model")
    assert told.pop("model") == str(tmp_path / "model")
    assert told == model.meta
    assert math.isfinite(told["valid_nll"])
    assert told["training"]["epochs"] == 2
    weights = "model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (made / "model" / weights).read_bytes()
    assert command("fit", made / "kb", tmp_path / "other", *SMALL, "--seed", 1).code == 0
    assert (tmp_path / "other" / weights).read_bytes() != (made / "model" / weights).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]


def test_fit_hands_every_option_on(command: Command, made: Path, tmp_path: Path) -> None:
    line = "--dim 5 --hidden 7 --no-bias --dropout 0.2 --epochs 3 --batch 9 --lr 0.01 --weight-decay 0.3"
    line += " --table-decay 0.4 --patience 2 --seed 6"
    assert command("fit", made / "kb", tmp_path / "model", *line.split()).code == 0
    model = load_model(tmp_path / "model")
    assert model.config() == {"dim": 5, "hidden": 7, "bias": False, "dropout": 0.2}
    assert model.meta["training"] == {
        "epochs": 3,
        "batch": 9,
        "lr": 0.01,
        "weight_decay": 0.3,
        "table_decay": 0.4,
        "patience": 2,
        "seed": 6,
    }


def test_compare_writes_what_it_prints(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("compare", made / "model", tmp_path / "exact", "--exact", "--json", "--top", 3)
    assert (result.code, result.err) == (0, "")
    div = Divergence.load(tmp_path / "exact")
    expected = Enumerate().divergence(load_model(made / "model"))
    np.testing.assert_array_equal(div.kl, expected.kl)
    assert not div.stderr.any()
    told = json.loads(result.out)
    assert len(told) == 3
    largest = np.maximum(expected.kl, expected.kl.T)[np.triu_indices(len(RELATIONS), 1)]
    np.testing.assert_allclose([pair["similarity"] for pair in told], np.exp(-np.sort(largest)[:3]), rtol=1e-12)
    with (tmp_path / "exact" / "pairs.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, dialect="excel-tab"))
    assert len(rows) == len(largest)
    assert [(row["a"], row["b"]) for row in rows[:3]] == [(pair["a"], pair["b"]) for pair in told]
    lines = command("compare", made / "model", tmp_path / "exact", "--exact", "--top", 3).out.splitlines()
    assert len(lines) == 4
    for line, pair in zip(lines[1:], told, strict=True):
        similarity, kl_ab, kl_ba, facts_a, facts_b, a, b = re.split("  +", line)
        assert (similarity, a, b) == (f"{pair['similarity']:.3f}", pair["a"], pair["b"])
        assert (facts_a, facts_b) == (f"{pair['support_a']:,}", f"{pair['support_b']:,}")
        assert (kl_ab, kl_ba) == (f"{pair['kl_ab']:.2f}", f"{pair['kl_ba']:.2f}")


def test_compare_hands_every_option_on(command: Command, made: Path, tmp_path: Path) -> None:
    line = "--mass 0.5 --samples 4 --seed 9"
    assert command("compare", made / "model", tmp_path / "comparison", *line.split()).code == 0
    meta = Divergence.load(tmp_path / "comparison").meta
    assert {"mass": 0.5, "samples": 4, "seed": 9}.items() <= meta.items()


def test_similar_lists_the_nearest(command: Command, made: Path) -> None:
    div = Divergence.load(made / "comparison")
    result = command("similar", made / "comparison", "works for", "--json", "--top", 2)
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == [n._asdict() for n in neighbours(div, "works for", 2)]
    lines = command("similar", made / "comparison", "works for").out.splitlines()
    assert [line.split("  ")[-1] for line in lines[1:]] == [n.name for n in neighbours(div, "works for")]


def test_report_shows_facts_of_the_kb(command: Command, made: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = command("report", made / "comparison", page, "--kb", made / "kb", "--title", "<b>& Co")
    assert result == (0, f"{page}: open it in a browser\n", "")
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp; Co" in text
    assert "<b>& Co" not in text
    again = command("report", made / "comparison", page, "--json")  # a page may be written again
    assert (again.code, json.loads(again.out)) == (0, {"page": str(page)})
    assert page.read_text(encoding="utf-8") != text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_demo_does_the_whole_job(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "fit", functools.partial(demo.fit, dim=8, hidden=16))
    text = command("demo")
    assert (text.code, text.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["relsim-demo"]
    made_here = sorted(path.name for path in (tmp_path / "relsim-demo").iterdir())
    assert made_here == ["comparison", "kb", "model", "report.html"]
    result = command("demo", "--json", "--out", "again")
    told = json.loads(result.out)
    assert told["out"] == "again"
    assert f"validation NLL {told['valid_nll']:.3f} nats" in text.out
    for pair in told["pairs"]:
        assert re.search(rf"^{pair['similarity']:.3f} .* {pair['a']} +{pair['b']}$", text.out, re.MULTILINE)
    div = Divergence.load("again/comparison")
    exact = Enumerate().divergence(load_model("again/model"))
    sampled = div.stderr > 0
    deviation = np.abs(div.kl - exact.kl)[sampled] / div.stderr[sampled]
    assert told["deviation"]["largest"] == pytest.approx(deviation.max(), rel=1e-4)
    assert told["deviation"]["estimates"] == sampled.sum() > 1000


# bad input: facts


def bad_columns(folder: Path) -> Path:
    lines = tsv().splitlines(keepends=True)
    lines[16] = "e1\tlikes\n"
    (folder / "facts.tsv").write_text("".join(lines))
    return folder / "facts.tsv"


def lying_openke(folder: Path) -> Path:
    folder = folder / "openke"
    folder.mkdir()
    (folder / "entity2id.txt").write_text("2\na\t0\nb\t1\n")
    (folder / "relation2id.txt").write_text("1\nr\t0\n")
    (folder / "train2id.txt").write_text("5\n0 1 0\n1 0 0\n0 0 0\n1 1 0\n")
    return folder


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


BAD_FACTS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "nothing there": (lambda folder: folder / "nosuch.tsv", "nosuch.tsv: no such file", "check the spelling"),
    "empty file": (file("x.tsv", b""), "x.tsv: the file is empty", "put one fact on each line"),
    "blank file": (file("x.tsv", b"\n\n"), "x.tsv: the file is empty", "put one fact on each line"),
    "wrong column count on line 17": (bad_columns, "facts.tsv:17: expected 3", "put a tab between the names"),
    "not UTF-8": (file("x.tsv", b"a\tr\tb\n\xff\tr\tb\n"), "x.tsv:2: not UTF-8", "iconv"),
    "an empty name": (file("x.tsv", b"a\tr\tb\na\t\tb\n"), "x.tsv:2: the relation is empty", "give it a name"),
    "cut off": (file("x.tsv.gz", gzip.compress(tsv().encode())[:-30]), "x.tsv.gz: cannot be read", "fetch it again"),
    "no gzip": (file("x.tsv.gz", tsv().encode()), "x.tsv.gz: cannot be read", "fetch it again"),
    "commas in a TSV": (file("x.tsv", b"a,r,b\nc,r,d\n"), "x.tsv:1: expected 3 tab", "let its name end in .csv"),
    "a count that lies": (lying_openke, "openke/train2id.txt:1: says 5 but 4 rows follow", "correct the count"),
    "another suffix": (file("thesis.docx", b"PK"), "thesis.docx: not a knowledge base that relsim reads", "a TSV file"),
    "a folder": (lambda folder: folder, ": not a knowledge base that relsim reads", "train, valid and test files"),
    "single fact": (file("x.tsv", b"a\tr\tb\n"), "x.tsv: too few facts", "add facts"),
    "single entity": (file("x.tsv", b"a\tr\ta\n" * 2 + b"a\ts\ta\n" * 2), "x.tsv: ", ": "),
}


@pytest.mark.parametrize("name", ["ingest", "stats", "fit", "fit --counts"])
@pytest.mark.parametrize("case", BAD_FACTS)
def test_bad_facts_are_one_line_with_the_place_and_the_remedy(
    command: Command, tmp_path: Path, name: str, case: str
) -> None:
    make, start, remedy = BAD_FACTS[case]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    before = tree(tmp_path)
    verb, *options = name.split()
    target = [] if verb == "stats" else [tmp_path / "out"]
    place = tmp_path / "in" if start.startswith(": ") else f"{tmp_path / 'in'}/"
    result = command(verb, path, *target, *options)
    if case.startswith("single") and verb != "fit":  # enough to count, too little to fit
        assert (result.code, result.err) == (0, "")
        return
    refusal(result, f"{place}{start}", remedy)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["ingest", "stats", "fit", "report"])
def test_nonsense_for_columns_is_refused(command: Command, made: Path, tmp_path: Path, name: str) -> None:
    facts, out = made / "facts.tsv", tmp_path / "out"
    arguments = {"stats": [facts], "report": [made / "comparison", out, "--kb", facts]}.get(name, [facts, out])
    refusal(command(name, *arguments, "--columns", "nonsense"), "columns 'nonsense': expected h, r and t", "say hrt")
    assert tree(tmp_path) == {}


def test_an_unknown_format_names_the_known_ones(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("ingest", made / "facts.tsv", tmp_path / "kb", "--format", "foo")
    assert result.err == f"relsim: unknown format 'foo': it is one of {', '.join(FORMATS)}\n"
    assert (result.code, tree(tmp_path)) == (2, {})


def test_a_file_name_with_a_line_break_stays_on_one_line(command: Command, tmp_path: Path) -> None:
    refusal(command("stats", tmp_path / "a\nb.tsv"), f"{tmp_path}/a b.tsv: no such file")


# bad input: folders of another kind


@pytest.mark.parametrize("name", ["ingest", "stats", "fit", "report --kb"])
@pytest.mark.parametrize(
    ("given", "kind"),
    [("model", "a model"), ("comparison", "a comparison"), ("model.training", "an unfinished training")],
)
def test_where_facts_are_asked_for_another_folder_is_named_for_what_it_is(
    command: Command, made: Path, tmp_path: Path, name: str, given: str, kind: str
) -> None:
    path, out = made / given, tmp_path / "out"
    lines = {"stats": ["stats", path], "report --kb": ["report", made / "comparison", out, "--kb", path]}
    result = command(*lines.get(name, [name, path, out]))
    refusal(result, f"{path}: is {kind}, not a KB: name a KB, or a dump")
    assert tree(tmp_path) == {}


FOLDERS = {
    "kb": "is a KB, not {}",
    "model": "is a model, not {}",
    "comparison": "is a comparison, not {}",
    "model.training": "is an unfinished training, not {}",
    "facts.tsv": "is a file, not {}",
    "empty": "is not {}",
    "nosuch": "no such folder",
}


@pytest.mark.parametrize("given", sorted(set(FOLDERS) - {"model"}))
def test_compare_says_what_is_not_a_model(command: Command, made: Path, tmp_path: Path, given: str) -> None:
    result = command("compare", made / given, tmp_path / "out")
    refusal(result, f"{made / given}: {FOLDERS[given].format('a model')}: `relsim fit` makes one of a KB")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (name, given)
        for name in ("similar", "redundant", "hierarchy", "export", "report")
        for given in sorted(set(FOLDERS) - {"comparison"})
        if name in ("export", "report") or given != "model"  # the others search a model
    ],
)
def test_what_is_not_a_comparison_is_named(command: Command, made: Path, tmp_path: Path, name: str, given: str) -> None:
    more = {"similar": ["likes"], "export": [tmp_path / "x.csv"], "report": [tmp_path / "report.html"]}
    result = command(name, made / given, *more.get(name, []))
    start = f"{made / given}: {FOLDERS[given].format('a comparison')}: `relsim compare` makes one of a model"
    refusal(result, start)
    assert tree(tmp_path) == {}


def test_a_saved_kb_needs_no_ingestion(command: Command, made: Path, tmp_path: Path) -> None:
    refusal(command("ingest", made / "kb", tmp_path / "kb"), f"{made / 'kb'}: ", "a saved KB needs no ingestion")
    assert tree(tmp_path) == {}


def test_one_relation_cannot_be_compared(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("compare", made / "lonely.model", tmp_path / "comparison")
    refusal(result, f"{made / 'lonely.model'}: has 1 relation: fit a KB with two or more")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("typed", "near"), [("like", "likes"), ("Works For", "works for"), ("lives_in", "lives in")])
def test_an_unknown_relation_suggests_the_nearest(command: Command, made: Path, typed: str, near: str) -> None:
    result = command("similar", made / "comparison", typed)
    assert result.code == 2
    assert re.fullmatch(f"relsim: unknown relation {typed!r}: did you mean {near!r}.*\n", result.err)


@pytest.mark.parametrize("typed", ["", "zzzzzzzz", "\udcff", "a\nb"])
def test_an_unknown_relation_like_no_other_says_where_they_are_listed(command: Command, made: Path, typed: str) -> None:
    result = command("similar", made / "comparison", typed)
    assert result == (2, "", f"relsim: unknown relation {typed!r}: `relsim stats` lists the relations\n")


def test_a_report_with_facts_of_another_kb_names_that_kb(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("report", made / "comparison", tmp_path / "out.html", "--kb", made / "one.tsv")
    refusal(result, f"{made / 'one.tsv'}: has no relation 'is paid by': name the KB that", str(made / "comparison"))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "device", ["cuda" if not torch.cuda.is_available() else "cuda:99", "nonsense", "meta", "xla", ""]
)
def test_a_device_that_is_not_there_is_one_short_line(
    command: Command, made: Path, tmp_path: Path, device: str
) -> None:
    result = command("fit", made / "facts.tsv", tmp_path / "model", "--device", device)
    line = refusal(result, f"--device {device}: cannot be used (", "try --device cpu")
    assert len(line) < 300
    assert tree(tmp_path) == {}


def test_a_training_that_diverges_is_not_kept(command: Command, made: Path, tmp_path: Path) -> None:
    result = command("fit", made / "facts.tsv", tmp_path / "model", *SMALL, "--lr", "1e9")
    refusal(result, f"{made / 'facts.tsv'}: the training diverged: lower lr", "1e+09")
    assert tree(tmp_path) == {}


def test_a_model_too_large_for_the_memory_is_one_line(command: Command, made: Path, tmp_path: Path) -> None:
    # 2^20 x 2^20 weights are 4 TB; the limit keeps a system that promises more than it has from trying
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 38, hard))
    try:
        result = command("fit", made / "facts.tsv", tmp_path / "model", "--hidden", 1 << 20, "--dim", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch("relsim: out of memory: take a smaller --hidden, .*\n", result.err)
    assert tree(tmp_path) == {}


# bad input: damaged folders


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("kb", "entities.parquet"),
        ("kb", "manifest.json"),
        ("model", "model.json"),
        ("model", "entities.json"),
        ("model", "model.safetensors"),
        ("comparison", "divergence.json"),
        ("comparison", "divergence.safetensors"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_folder_says_how_to_make_it_again(
    command: Command, made: Path, tmp_path: Path, folder: str, name: str, damage: str
) -> None:
    copy = tmp_path / folder
    copy.mkdir()
    for source in (made / folder).iterdir():
        content = source.read_bytes()
        if source.name == name:
            content = {"cut": content[: len(content) // 2], "empty": b"", "foreign": b"\x80\x04]\x94." * 9}[damage]
        (copy / source.name).write_bytes(content)
    before = tree(tmp_path)
    line = {"kb": ["stats", copy], "model": ["compare", copy, tmp_path / "out"]}.get(folder, ["similar", copy, "likes"])
    refusal(command(*line), copy, "again")
    assert tree(tmp_path) == before


# targets


def somebodys_work(folder: Path, kind: str) -> Path:
    """A path that must not be written: `work`, or a place below it."""
    path = folder / "work"
    if kind == "folder":
        path.mkdir()
        (path / "thesis").write_text("years")
    else:
        path.write_text("years")
    return path / "out" if kind == "below a file" else path


@pytest.mark.parametrize("kind", ["folder", "file", "below a file"])
@pytest.mark.parametrize("name", ["ingest", "fit", "compare", "report", "demo"])
def test_somebodys_work_is_never_overwritten(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    target = somebodys_work(tmp_path, kind)
    before = tree(tmp_path)
    forbid_work(monkeypatch)
    source = {"compare": "model", "report": "comparison"}.get(name, "facts.tsv")
    if name == "demo" and kind == "folder":
        (tmp_path / "work").rename(tmp_path / "model")
        target, before = tmp_path, tree(tmp_path)
    result = command("demo", "--out", target) if name == "demo" else command(name, made / source, target)
    refusal(result, target, "name a" if kind != "folder" or name != "report" else "name a file in it")
    assert tree(tmp_path) == before


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where long work starts, so that a refusal is known to have come before it."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the work had started")

    monkeypatch.setattr("relsim.training.train", refuse)
    monkeypatch.setattr(Estimator, "divergence", refuse)


@pytest.mark.parametrize("name", ["ingest", "fit", "compare"])
def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    forbid_work(monkeypatch)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    source = made / ("model" if name == "compare" else "facts.tsv")
    result = command(name, source, tmp_path / "deep" / "out")
    refusal(result, f"{tmp_path / 'deep' / 'out'}: cannot be written (Permission denied)", "name another place")
    assert tree(tmp_path) == {}


@contextlib.contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Limit the size of files, which a process can do to itself; the system then refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "written over"])
@pytest.mark.parametrize("name", ["ingest", "fit", "fit --counts", "compare", "report"])
def test_a_full_disk_leaves_everything_as_it_was(
    command: Command, made: Path, tmp_path: Path, name: str, there: bool
) -> None:
    verb, *options = name.split()
    options += SMALL if verb == "fit" else []
    source = made / {"compare": "model", "report": "comparison"}.get(verb, "facts.tsv")
    target = tmp_path / "out"
    if there:
        assert command(verb, source, target, *options).code == 0
    before = tree(tmp_path)
    with disk_with_room_for(300):
        result = command(verb, source, target, *options)
    place = {"fit": f"{target}.training", "compare": f"{target}.blocks/blocks.json"}.get(name, target)
    refusal(result, f"{place}: cannot be written (", "File too large", "nothing was changed, make room")
    assert tree(tmp_path) == before


def test_a_comparison_without_room_for_its_table_is_not_there_and_its_blocks_are(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("relsim.similar.write_pairs", full)
        result = command("compare", made / "model", tmp_path / "comparison")
    refusal(result, f"{tmp_path / 'comparison'}: cannot be written (No space left on device)")
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.blocks"]
    assert command("compare", made / "model", tmp_path / "comparison").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["comparison"]


# interruption


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Press Ctrl-C after the next checkpoint, once."""
    save = checkpoint.save

    def arm() -> None:
        def once(*arguments: Any) -> None:
            save(*arguments)
            monkeypatch.setattr(checkpoint, "save", save)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(checkpoint, "save", once)

    return arm


def test_an_interrupted_fit_says_that_it_can_go_on_and_does(
    command: Command, made: Path, tmp_path: Path, interrupted: Callable[[], None]
) -> None:
    line = ["fit", made / "facts.tsv", tmp_path / "model", *SMALL]
    interrupted()
    result = command(*line)
    assert (result.code, result.out) == (130, "")
    saved = tmp_path / "model.training"
    assert [text for text in result.err.splitlines() if text] == [
        f"relsim: {saved} holds what was done: the same command goes on from there",
        "relsim: interrupted",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model.training"]
    other = command("fit", made / "facts.tsv", tmp_path / "model", *SMALL, "--dropout", 0.1)
    refusal(other, f"{saved}: holds a training with other dropout: use the same, or remove it")
    other = command("fit", made / "one.tsv", tmp_path / "model", *SMALL)
    refusal(other, f"{saved}: holds a training with other relations, facts: use the same, or remove it")
    assert command(*line).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (made / weights).read_bytes()


def test_a_resumed_fit_keeps_the_best_epoch_from_before_the_interruption(
    command: Command, made: Path, tmp_path: Path, interrupted: Callable[[], None]
) -> None:
    options = ["--dim", "8", "--hidden", "16", "--epochs", "4", "--lr", "0.3"]  # so high that it soon gets worse
    assert command("fit", made / "facts.tsv", tmp_path / "whole", *options).code == 0
    assert load_model(tmp_path / "whole").meta["best_epoch"] == 0
    interrupted()
    assert command("fit", made / "facts.tsv", tmp_path / "model", *options).code == 130
    assert command("fit", made / "facts.tsv", tmp_path / "model", *options).code == 0
    whole, model = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "model"))
    assert model == whole


def test_an_interruption_before_the_first_checkpoint_leaves_nothing(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relsim.loop._epoch", lambda *_: signal.raise_signal(signal.SIGINT))
    result = command("fit", made / "facts.tsv", tmp_path / "model", *SMALL)
    assert (result.code, result.out, result.err.strip()) == (130, "", "relsim: interrupted")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["fit", "compare"])
def test_two_processes_on_one_folder_are_told_apart(command: Command, made: Path, tmp_path: Path, name: str) -> None:
    source = made / ("facts.tsv" if name == "fit" else "model")
    with alone(tmp_path / "out"):
        result = command(name, source, tmp_path / "out", *(SMALL if name == "fit" else ()))
    refusal(result, f"{tmp_path / 'out'}: another process is working on it", "wait until it is done")
    assert tree(tmp_path) == {}


def test_an_interrupted_comparison_goes_on_with_the_same_command(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("relsim.similar.write_pairs", lambda *_: signal.raise_signal(signal.SIGINT))
        result = command("compare", made / "model", tmp_path / "comparison")
    blocks = tmp_path / "comparison.blocks"
    told = f"relsim: {blocks} holds what was done: the same command goes on from there"
    assert (result.code, result.out, result.err.split("\n\n")[0]) == (130, "", told)
    assert [path.name for path in tmp_path.iterdir()] == [blocks.name]
    assert command("compare", made / "model", tmp_path / "comparison").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["comparison"]


@pytest.mark.parametrize("content", [None, b"years"])
def test_what_stands_in_the_place_of_the_checkpoints_is_left_alone(
    command: Command, made: Path, tmp_path: Path, content: bytes | None
) -> None:
    place = tmp_path / "model.training"
    if content is None:
        place.mkdir()
    (place / "notes" if content is None else place).write_bytes(b"years")
    before = tree(tmp_path)
    result = command("fit", made / "facts.tsv", tmp_path / "model", *SMALL)
    refusal(result, f"{place}: stands where checkpoints go and holds no checkpoint.json: move it")
    assert tree(tmp_path) == before


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start the command; Ctrl-C reaches it even where whoever runs these tests ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "relsim", *arguments],
        env=environment(),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def wait_for_epoch(process: subprocess.Popen[str], folder: Path, after: int) -> int:
    """Wait for a checkpoint of an epoch later than `after`; return that epoch."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training was over before it was stopped"
        with contextlib.suppress(FileNotFoundError, RelsimError):
            epoch = int(json.loads((folder / "checkpoint.json").read_text())["progress"]["epoch"])
            if epoch > after:
                return epoch
        time.sleep(0.005)
    raise TimeoutError


def test_ctrl_c_and_kill_9_change_nothing_of_the_result(command: Command, tmp_path: Path) -> None:
    (tmp_path / "facts.tsv").write_text(tsv())
    options = ["--dim", "8", "--hidden", "16", "--epochs", "60", "--patience", "60"]
    facts, model, saved = (str(tmp_path / name) for name in ("facts.tsv", "model", "model.training"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes below
    try:
        assert command("fit", facts, tmp_path / "whole", *options).code == 0
    finally:
        torch.set_num_threads(threads)

    first = start(["fit", facts, model, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    epoch = wait_for_epoch(first, Path(saved), 0)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=100)
    assert (first.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if line] == [  # and no progress bar, since no terminal shows it
        f"relsim: {saved} holds what was done: the same command goes on from there",
        "relsim: interrupted",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.tsv", "model.training", "whole"]

    second = start(["fit", facts, model, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_epoch(second, Path(saved), epoch + 1)
    second.kill()
    second.communicate(timeout=100)
    assert second.returncode == -signal.SIGKILL
    assert not Path(model).exists()

    third = start(["fit", facts, model, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = third.communicate(timeout=100)
    assert (third.returncode, err) == (0, "")
    assert re.fullmatch(rf"{model}: validation NLL [0-9.]+ nats per fact\n", out)
    assert not Path(saved).exists()
    for name in ("model.safetensors", "entities.json"):
        assert (Path(model) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    metas = [json.loads((folder / "model.json").read_text()) for folder in (Path(model), tmp_path / "whole")]
    for meta in metas:
        meta["meta"].pop("cpu_seconds")
    assert metas[0] == metas[1]


def test_a_terminal_sees_a_progress_bar(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with os.fdopen(inside, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert command("fit", made / "facts.tsv", tmp_path / "model", *SMALL).out.count("\n") == 1
        assert command("compare", tmp_path / "model", tmp_path / "comparison").code == 0
        terminal.flush()
        shown = os.read(outside, 1 << 16).decode()
    os.close(outside)
    assert "\r" in shown
    assert "epoch 2/2, validation " in shown
    assert re.search(r"100%\|.*block/s", shown)


# standard output


def test_a_reader_who_has_seen_enough_is_no_failure(made: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # `head` has gone
    done = python("-m", "relsim", "stats", made / "kb", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_room_for_the_output_is_one_line(made: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = python("-m", "relsim", "stats", made / "kb", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "relsim: output: No space left on device: mend that, or name another place\n"


def test_a_name_that_the_terminal_cannot_show_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "facts.tsv").write_text("a\t東京😀\tb\n", encoding="utf-8")
    for encoding, shown in (("latin-1", r"\u6771\u4eac\U0001f600"), ("utf-8", "東京😀")):
        done = python("-m", "relsim", "stats", tmp_path / "facts.tsv", extra={"PYTHONIOENCODING": encoding})
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].endswith(shown)
    done = python("-m", "relsim", "stats", tmp_path / "facts.tsv", "--json", extra={"PYTHONIOENCODING": "latin-1"})
    assert json.loads(done.stdout)["top"][0]["relation"] == "東京😀"


def test_the_exit_code_reaches_the_shell(made: Path, tmp_path: Path) -> None:
    done = python("-m", "relsim", "similar", made / "kb", "likes", cwd=tmp_path)
    refusal(Result(done.returncode, done.stdout, done.stderr), f"{made / 'kb'}: is a KB, not a comparison")


def test_a_fault_of_the_program_is_not_dressed_up_as_bad_input(
    command: Command, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("relsim.similar.neighbours", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        command("similar", made / "comparison", "likes")
