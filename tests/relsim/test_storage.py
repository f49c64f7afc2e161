"""Whatever goes wrong, a folder is there whole, or as it was, and nothing else is left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from relsim import scratch, storage
from relsim.errors import RelsimError
from relsim.storage import atomic_file, atomic_folder, read_json, sha256, write_json

MARKER = "manifest.json"


def make(path: Path, content: str = "new") -> None:
    with atomic_folder(path, MARKER) as folder:
        (folder / MARKER).write_text("{}")
        (folder / "data").write_text(content)


def tree(path: Path) -> dict[str, str]:
    """Every file below `path` with its content, hidden ones too."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own."""
    root = str(Path(storage.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "kb"
    with atomic_folder(path, MARKER) as folder:
        (folder / MARKER).write_text("{}")
        assert not path.exists()
    assert tree(tmp_path) == {f"deep/er/kb/{MARKER}": "{}"}


def test_a_folder_gets_ordinary_permissions(tmp_path: Path) -> None:
    make(tmp_path / "kb")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "kb").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, RelsimError])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "folder there"])
def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    if there:
        make(tmp_path / "kb", "old")
    before = tree(tmp_path)
    with pytest.raises(error), atomic_folder(tmp_path / "kb", MARKER) as folder:  # noqa: PT012
        (folder / MARKER).write_text("half")
        raise error
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["kb"] * there


def test_a_folder_of_this_kind_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "kb", "old")
    (tmp_path / "kb" / "extra").write_text("old")
    make(tmp_path / "kb", "new")
    assert tree(tmp_path) == {f"kb/{MARKER}": "{}", "kb/data": "new"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "kb").mkdir()
    make(tmp_path / "kb")
    assert tree(tmp_path) == {f"kb/{MARKER}": "{}", "kb/data": "new"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_something_else_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "work"
    if kind == "file":
        path.write_text("years")
    else:
        path.mkdir()
        (path / "thesis").write_text("years")
    before = tree(tmp_path)
    with pytest.raises(RelsimError, match=r"exists and holds no manifest\.json, so it is not overwritten"):
        make(path)
    assert tree(tmp_path) == before


def test_a_symbolic_link_leads_to_the_folder_that_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "disk" / "kb", "old")
    (tmp_path / "kb").symlink_to(tmp_path / "disk" / "kb")
    make(tmp_path / "kb", "new")
    assert (tmp_path / "kb").is_symlink()
    assert (tmp_path / "disk" / "kb" / "data").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "kb"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["kb"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "kb", "old")
    monkeypatch.setattr(scratch, "_exchange", lambda *_: False)  # as on a system that knows no exchange
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if (self / "data").is_file() and (self / "data").read_text() == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RelsimError, match=r"kb: cannot be written \(Input/output error\): nothing was changed"):
        make(tmp_path / "kb", "new")
    assert tree(tmp_path) == {f"kb/{MARKER}": "{}", "kb/data": "old"}


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "folder there"])
def test_a_kill_while_writing_leaves_the_folder_as_it_was(tmp_path: Path, there: bool) -> None:
    if there:
        make(tmp_path / "kb", "old")
    done = python(
        """
        import os, signal, sys
        from relsim.storage import atomic_folder
        with atomic_folder(sys.argv[1], "manifest.json") as folder:
            (folder / "manifest.json").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "kb",
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "kb").exists() == there
    if there:
        assert tree(tmp_path / "kb") == {MARKER: "{}", "data": "old"}
    make(tmp_path / "kb", "new")
    assert (tmp_path / "kb" / "data").read_text() == "new"


FULL_DISK = {
    # a limit on the size of files is what a process can set for itself; the system then refuses as a full disk does
    "python": "(folder / 'x').write_bytes(bytes(1 << 20))",
    "parquet": """
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table({"x": [os.urandom(1 << 20)]}), folder / "x.parquet")""",
    "safetensors": """
    import numpy as np
    from safetensors.numpy import save_file
    save_file({"x": np.zeros(1 << 20)}, folder / "x.safetensors")""",
}


@pytest.mark.parametrize("writer", FULL_DISK)
def test_a_refused_write_is_one_line_and_leaves_nothing(tmp_path: Path, writer: str) -> None:
    body = textwrap.indent(textwrap.dedent(FULL_DISK[writer]).strip(), " " * 8)
    done = python(
        f"""
import os, resource, sys
from relsim.errors import RelsimError
from relsim.storage import atomic_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_folder(sys.argv[1], "manifest.json") as folder:
{body}
except RelsimError as error:
    print(error)
""",
        tmp_path / "kb",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{tmp_path / 'kb'}: cannot be written (")
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    with (
        pytest.raises(RelsimError, match=r"kb: cannot be written \(No space left on device\): nothing was changed"),
        atomic_folder(tmp_path / "kb", MARKER),
        Path("/dev/full").open("w") as stream,
    ):
        stream.write("x")
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RelsimError, match=r"cannot be written \((Not a directory|File exists)\)"):
        make(tmp_path / "file" / "kb")
    with pytest.raises(RelsimError, match=r"cannot be written \((Not a directory|File exists)\)"):
        atomic_file(tmp_path / "file" / "report.html").__enter__()


def test_a_fault_of_the_program_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a fault"), atomic_folder(tmp_path / "kb", MARKER):
        raise ValueError("a fault")


# files


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    for content in ("old", "new"):
        with atomic_file(path) as scratch:
            scratch.write_text(content)
            assert not path.exists() or path.read_text() == "old"
    assert tree(tmp_path) == {"deep/report.html": "new"}


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as scratch:  # noqa: PT012
        scratch.write_text("half")
        raise ZeroDivisionError
    assert tree(tmp_path) == {"report.html": "old"}


def test_a_folder_in_the_place_of_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=r"cannot be written \(Is a directory\)"), atomic_file(tmp_path) as scratch:
        scratch.write_text("x")
    assert list(tmp_path.iterdir()) == []
    assert not scratch.exists()


# JSON and hashes


def test_json_survives_writing_and_reading(tmp_path: Path) -> None:
    value = {"name": "東京 \n", "list": [1, 2.5, None], "nested": {"a": True}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json", "KB") == value


def test_a_missing_json_file_says_what_the_folder_is_not(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=f"^{tmp_path}: not a model folder, it has no model.json$"):
        read_json(tmp_path / "model.json", "model")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b'"\xff"'])
def test_a_damaged_json_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(RelsimError) as caught:
        read_json(path, "model")
    assert str(caught.value).startswith(f"{path}: damaged (")
    assert str(caught.value).endswith("make the model again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 7])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "x").write_bytes(data)
    assert sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
