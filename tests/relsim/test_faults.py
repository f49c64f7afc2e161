"""What dumps, disks, other processes and impatient people do to an ingestion; in each case nothing is half done."""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyoxigraph
import pytest

import relsim
from relsim import scratch
from relsim.cli import main
from relsim.errors import RelsimError
from relsim.ingest import Dump, ingest, ingest_into
from relsim.kb import KB
from relsim.scratch import scratch_folder
from relsim.storage import atomic_folder, check_source

Fact = tuple[str, str, str]
RUN = "import sys; from relsim import cli, spool; spool.BUDGET = 1000; sys.exit(cli.main(sys.argv[1:]))"


def named(kb: KB) -> Counter[Fact]:
    part = kb.train
    rows = zip(part.head, part.relation, part.tail, part.count, strict=True)
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): int(n) for h, r, t, n in rows})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command with spools that go to disk at once; Ctrl-C reaches it wherever these tests are run."""
    root = Path(relsim.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump that takes about a second, since its literals in odd languages go to the parser one by one."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("dump") / "dump.nt"
    with path.open("w") as out:
        for i in range(150_000):
            tail = f"<http://e.org/{rng.randrange(9000)}>" if i % 2 else '"x"@zh-Hant'
            out.write(f"<http://e.org/{rng.randrange(9000)}> <http://e.org/p{i % 7}> {tail} .\n")
    return path


@pytest.fixture(scope="session")
def whole(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the KB of `dump`, made undisturbed."""
    kb = tmp_path_factory.mktemp("whole") / "kb"
    process = start("ingest", dump, kb)
    assert process.communicate(timeout=120)[1] == b""
    return tree(kb)


# other processes


def wait_for(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert process.poll() is None, "it was over before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def stopped(
    sig: signal.Signals, delay: float, dump: Path, kb: Path, there: bool
) -> tuple[dict[str, bytes], int, bytes, bytes]:
    """Send a signal to an ingestion after `delay` seconds, sooner where it is over by then.

    Returns what stood beside it before, and its exit code, output and errors.
    """
    while True:
        shutil.rmtree(kb, ignore_errors=True)
        if there:
            KB.from_names([("a", "r", "b")]).save(kb)
        before = tree(kb.parent)
        process = start("ingest", dump, kb)
        scratch = kb.with_name(f".{kb.name}.partial")
        wait_for(process, scratch)
        time.sleep(delay)
        process.send_signal(sig)
        out, err = process.communicate(timeout=60)
        over = process.returncode == 0 or (sig == signal.SIGKILL and not scratch.exists())
        if not over:
            return before, process.returncode, out, err
        delay /= 2


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "written over"])
def test_kill_9_and_the_same_command_again_give_the_same_bytes(
    dump: Path, whole: dict[str, bytes], tmp_path: Path, delay: float, there: bool
) -> None:
    kb = tmp_path / "kb"
    before, code, _, _ = stopped(signal.SIGKILL, delay, dump, kb, there)
    assert code == -signal.SIGKILL
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith(".")} == before
    again = start("ingest", dump, kb)
    assert again.communicate(timeout=120)[1] == b""
    assert again.returncode == 0
    assert tree(kb) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3, 0.6])
def test_ctrl_c_at_any_moment_leaves_all_as_it_was(dump: Path, tmp_path: Path, delay: float) -> None:
    before, *told = stopped(signal.SIGINT, delay, dump, tmp_path / "kb", there=True)
    assert (told[0], told[1], told[2].strip()) == (130, b"", b"relsim: interrupted")
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_ctrl_c_while_a_scratch_folder_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = scratch.on_folder

    def interrupted(*folders: Path) -> Any:
        lock = acquire(*folders)
        signal.raise_signal(signal.SIGINT)
        return lock

    monkeypatch.setattr(scratch, "on_folder", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path / "kb"):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_on_the_same_folder_is_refused(dump: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    first = start("ingest", dump, tmp_path / "kb")
    wait_for(first, tmp_path / ".kb.partial")
    first.send_signal(signal.SIGSTOP)  # it may be done before the second has imported what it needs
    second = start("ingest", dump, tmp_path / "kb")
    out, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    message = (
        f"relsim: {tmp_path / 'kb'}: another process is working on it: wait until it is done, or name another folder\n"
    )
    assert (second.returncode, out, err.decode()) == (2, b"", message)
    assert first.communicate(timeout=60)[1] == b""
    assert tree(tmp_path / "kb") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_a_kill_between_two_renames_is_mended_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KB.from_names([("old", "r", "b")]).save(tmp_path / "kb")
    (tmp_path / "kb").rename(tmp_path / ".kb.old")  # as a system without an exchange of folders may leave it
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "kb", "manifest.json"):
        raise ZeroDivisionError
    assert named(KB.load(tmp_path / "kb")) == {("old", "r", "b"): 1}
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]
    (tmp_path / ".kb.old").mkdir()  # as a kill after both renames leaves it
    monkeypatch.setattr(scratch, "_exchange", lambda *_: False)
    KB.from_names([("new", "r", "b")]).save(tmp_path / "kb")
    assert named(KB.load(tmp_path / "kb")) == {("new", "r", "b"): 1}
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_there_is_no_moment_without_the_old_folder_or_the_new(tmp_path: Path) -> None:
    if not scratch._exchange(*(_made(tmp_path / name) for name in ("a", "b"))):
        pytest.skip("this system cannot exchange two folders in one step; the test above covers what it does instead")
    KB.from_names([("old", "r", "b")]).save(tmp_path / "kb")
    script = (
        "import os, signal, sys; from pathlib import Path; from relsim import scratch; from relsim.kb import KB\n"
        "exchange = scratch._exchange\n"
        "def then_die(*folders):\n"
        "    exchange(*folders)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "scratch._exchange = then_die\n"
        "KB.from_names([('new', 'r', 'b')]).save(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "kb"], check=False, cwd=Path(relsim.__file__).parents[1]
    )
    assert done.returncode == -signal.SIGKILL
    assert named(KB.load(tmp_path / "kb")) == {("new", "r", "b"): 1}
    assert named(KB.load(tmp_path / ".kb.partial")) == {("old", "r", "b"): 1}
    KB.from_names([("newer", "r", "b")]).save(tmp_path / "kb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "kb"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_folder_is_locked_for_this_process_too_but_not_against_its_own_parts(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "kb") as scratch:
        with pytest.raises(RelsimError, match="another process is working on it"), scratch_folder(tmp_path / "kb"):
            pass
        with scratch_folder(scratch) as inner:
            assert inner == scratch
        (scratch / "data").write_text("x")
    assert tree(tmp_path) == {"kb/data": b"x"}


# the disk


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a disk of `size` bytes at `folder`, or where that is not allowed, limit the size of files to it."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        try:
            yield True
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1 << 14, 1 << 17, 3 << 17], ids=["16K", "128K", "384K"])
def test_a_full_disk_is_one_line_and_leaves_nothing(dump: Path, tmp_path: Path, size: int) -> None:
    # the spools fill the smallest, the tables of the KB what is left of the larger
    with small_disk(tmp_path / "disk", size) as is_disk:
        kb = tmp_path / "disk" / "kb"
        process = start("ingest", dump, kb)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, (out, err)
        said = "No space left on device" if is_disk else "File too large"
        (line,) = err.decode().splitlines()
        assert line.startswith(f"relsim: {kb}: cannot be written (")
        assert said in line
        assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("name", ["dump.nt", "facts.tsv", "facts.jsonl"])
def test_a_dump_that_was_cut_off_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    lines = {
        "nt": "<x:{0}> <x:r> <x:b{0}> .\n",
        "tsv": "{0}\tr\tb{0}\n",
        "jsonl": '{{"h": "{0}", "r": "r", "t": "b{0}"}}\n',
    }
    text = "".join(lines[name.rpartition(".")[2]].format(i * 7919) for i in range(50_000))
    data = gzip.compress(text.encode())
    path = tmp_path / f"{name}.gz"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RelsimError) as caught:
        ingest_into(tmp_path / "kb", path)
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# the dump


def dirty_lines(count: int) -> list[bytes]:
    """Lines as dumps have them: facts, literals, blank nodes, escapes, comments, and one in a hundred garbage."""
    rng = random.Random(1)
    garbage = [
        b"\xff\xfe",
        b"<html>",
        b"<http://e.org/a> <no iri> <http://e.org/b> .",
        b"<http://e.org/\xe9> <x:p> <x:o> .",
    ]
    kinds = [
        "<http://e.org/{0}> <http://e.org/p> <http://e.org/{1}> .",
        '<http://e.org/{0}> <http://e.org/q> "text {1}"@zh-Hant .',
        '<http://e.org/{0}> <http://e.org/q> "a \\"b\\" \\u00e9 {1}" .',
        "_:b{0} <http://e.org/p> <http://e.org/{1}> .\r",
        "<http://e.org/{0}>  <http://e.org/p>\t_:b{1}.",
        "<http://e.org/{0}> <http://e.org/p> <http://e.org/%E6%9D%B1\\u4EAC{1}> .",
        "# {0} {1}",
        "",
    ]
    return [
        garbage[i // 100 % len(garbage)]
        if i % 100 == 50
        else rng.choice(kinds).format(rng.randrange(300), rng.randrange(300)).encode()
        for i in range(count)
    ]


def test_a_dirty_dump_is_read_as_a_parser_reads_its_good_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = dirty_lines(20_000)
    expected: Counter[Fact] = Counter()
    for line in lines:
        with contextlib.suppress(SyntaxError):
            for s, p, o, _ in pyoxigraph.parse(line, format=pyoxigraph.RdfFormat.N_TRIPLES):
                if not isinstance(o, pyoxigraph.Literal):
                    head, tail = (x.value if isinstance(x, pyoxigraph.NamedNode) else str(x) for x in (s, o))
                    expected[head, p.value, tail] += 1
    path = tmp_path / "dump.nt"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    assert main(["ingest", str(path), str(tmp_path / "kb"), "--bad-lines", "0.01"]) == 0
    out, err = capsys.readouterr()
    assert "skipped 200 statements: bad line" in out
    told = err.splitlines()
    assert len(told) == 11
    assert told[0].startswith(f"relsim: {path}:51: ")
    assert told[10] == "relsim: 190 more bad lines (left out)"
    assert named(KB.load(tmp_path / "kb")) == expected
    assert main(["ingest", str(path), str(tmp_path / "other"), "--bad-lines", "0.009"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"relsim: {path}:51: ")
    assert "(199 more of 20,000 lines are bad, and --bad-lines 0.009 allows 180)" in message
    assert not (tmp_path / "other").exists()


def test_a_share_of_bad_lines_is_judged_before_the_end_of_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "movie.nt"
    path.write_bytes(b"\x00garbage\n" * 10_000)
    with pytest.raises(RelsimError, match=rf"{path}:1: .*9,999 more of 10,000 lines are bad"):
        ingest(path, bad_lines=0.001)


def test_a_line_of_100_megabytes_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "dump.nt"
    with path.open("wb") as out:
        out.write(b"<x:a> <x:r> <x:b> .\n<x:a> <x:r> ")
        for _ in range(100):
            out.write(b"x" * (1 << 20))
        out.write(b"\n<x:b> <x:r> <x:c> .\n")
    script = (
        "import re, sys; from relsim.ingest import ingest; kb = ingest(sys.argv[1], bad_lines=0.5, warn=print)\n"
        # not ru_maxrss, which starts from what the parent held when it forked
        "print(len(kb.train), int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10)"
    )
    root = Path(relsim.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True, check=True)
    warning, result = done.stdout.splitlines()
    assert warning.startswith(f"{path}:2: longer than 33,554,432 bytes: ")
    facts, megabytes = map(int, result.split())
    assert facts == 2
    assert megabytes < 500


HOSTILE = [
    "tab\there",
    "quotes \" and ' and `",
    "two\nlines\r\n",
    "<script>alert(1)</script>",
    "\u202eright to left\u200f",
    "x" * 4000,
    "../../etc/passwd",
    "nul\x00byte",
    "-",
    "NaN",
    "\U0001f600",
]


def test_hostile_names_survive_ingestion_and_disturb_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = [(name, name, other) for name in HOSTILE for other in HOSTILE]
    rows = (json.dumps(dict(zip(("head", "relation", "tail"), fact, strict=True))) for fact in facts)
    (tmp_path / "dump.jsonl").write_text("\n".join(rows))
    assert main(["ingest", str(tmp_path / "dump.jsonl"), str(tmp_path / "kb")]) == 0
    kb = KB.load(tmp_path / "kb")
    assert named(kb) == Counter(facts)
    capsys.readouterr()
    assert main(["stats", str(tmp_path / "kb")]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("") + 2 :]
    assert len(listed) == len(HOSTILE)
    assert all(line.isprintable() and len(line) < 100 for line in listed)
    for name in HOSTILE:
        assert kb.entities[kb.entity_id(name)] == name


# a folder from a stranger


def strange_kb(folder: Path) -> dict[str, Any]:
    KB.from_names([("a", "r", "b")]).save(folder)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def test_a_manifest_cannot_lead_outside_its_folder(tmp_path: Path) -> None:
    manifest = strange_kb(tmp_path / "kb")
    (tmp_path / "secret.parquet").write_bytes((tmp_path / "kb" / "entities.parquet").read_bytes())
    manifest["sha256"]["../secret"] = manifest["sha256"]["entities"]
    manifest["splits"] = ["train", "../secret", "/etc/passwd"]
    manifest["tables"] = {"entities": "../secret.parquet"}
    (tmp_path / "kb" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "kb" / "entities.parquet").unlink()
    with pytest.raises(RelsimError, match=r"kb/entities.parquet: missing"):
        KB.load(tmp_path / "kb")


@pytest.mark.parametrize("name", ["manifest.json", "entities.parquet", "triples.parquet"])
def test_a_link_in_a_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    strange_kb(tmp_path / "kb")
    (tmp_path / "kb" / name).rename(tmp_path / "outside")
    (tmp_path / "kb" / name).symlink_to(tmp_path / "outside")
    for read in (KB.load, lambda folder: check_source(folder, "a KB")):
        with pytest.raises(RelsimError, match=rf"{name}: is a symbolic link, which may lead anywhere"):
            read(tmp_path / "kb")


def test_facts_about_names_that_are_not_there_are_damage(tmp_path: Path) -> None:
    KB.from_names([("a", "r", "b"), ("b", "r", "c")]).save(tmp_path / "kb")
    strange_kb(tmp_path / "small")
    folder = tmp_path / "kb"
    (folder / "entities.parquet").write_bytes((tmp_path / "small" / "entities.parquet").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["entities"] = json.loads((tmp_path / "small" / "manifest.json").read_text())["sha256"][
        "entities"
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RelsimError, match=r"damaged \(ids out of range\)"):
        KB.load(folder)


def test_nothing_in_relsim_runs_code_that_it_reads() -> None:
    forbidden = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle", "runpy"}
    calls = {"eval", "exec", "compile", "__import__"}
    found = []
    for path in Path(relsim.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(path.name, alias.name) for alias in node.names if alias.name.split(".")[0] in forbidden]
            elif isinstance(node, ast.ImportFrom):
                found += [(path.name, node.module)] if (node.module or "").split(".")[0] in forbidden else []
            elif isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in calls or name in ("torch.load", "np.load", "numpy.load", "yaml.load"):
                    found.append((path.name, name))
    assert found == []


def test_a_choice_and_labels_reach_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "facts.tsv").write_text("a\tr1\tb\na\tr1\tc\na\tr2\tb\nb\tx\tc\na\tr1\tb\n")
    (tmp_path / "labels.tsv").write_text("r1\tknows\n")
    options = ["--predicate", "r*", "--min-triples", "2", "--labels", str(tmp_path / "labels.tsv"), "--distinct"]
    assert main(["ingest", str(tmp_path / "facts.tsv"), str(tmp_path / "kb"), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert named(KB.load(tmp_path / "kb")) == {("a", "knows (r1)", "b"): 1, ("a", "knows (r1)", "c"): 1}
    assert told["skipped"] == {"another predicate": 1, "not among the chosen": 1}
    assert told["duplicates"] == {"train": 0}
    dump = Dump(tmp_path / "facts.tsv", distinct=True)
    assert ingest(dump).train.total == 4
