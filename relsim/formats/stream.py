"""Open plain and compressed files, or standard input, and turn what the system says of them into one-line errors."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from relsim.errors import RelsimError

COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
STANDARD_INPUT = Path("-")
NOT_UTF8 = "not UTF-8: convert the file, for example with `iconv -t UTF-8`"
MARK = b"\xef\xbb\xbf"  # of byte order, which UTF-8 does not need and some write
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


def bare_name(path: Path) -> Path:
    """Return the file name of `path` without the suffix of its compression: `train.tsv` for `a/train.tsv.gz`."""
    return Path(path.stem if path.suffix.lower() in COMPRESSION else path.name)


def open_bytes(path: Path) -> pa.NativeFile:
    """Open `path` for reading, decompressed as its suffix says; for standard input, as its first bytes say."""
    if path != STANDARD_INPUT:
        return pa.input_stream(path, compression=COMPRESSION.get(path.suffix.lower()))
    source = sys.stdin.buffer
    if not isinstance(source, io.BufferedReader):
        source = io.BufferedReader(source)
    start = source.peek(4)
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    return pa.input_stream(pa.PythonFile(source, "r"), compression=kind)


@contextmanager
def on_disk(path: Path) -> Iterator[Path]:
    """Yield `path`, or a copy of standard input that lasts as long as the context, for readers that go back."""
    if path != STANDARD_INPUT:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="relsim-") as copy, open_bytes(path) as stream:
        shutil.copyfileobj(stream, copy)
        copy.flush()
        yield Path(copy.name)


def open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """Open `path` as UTF-8 text; a byte-order mark is dropped, invalid bytes become surrogates for `invalid_utf8`."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def invalid_utf8(text: str) -> bool:
    """Whether `text`, read by `open_text`, holds bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def not_utf8(path: Path, line: int) -> RelsimError:
    """Return the error for a line that is not UTF-8."""
    return RelsimError(f"{path}:{line}: {NOT_UTF8}")


def empty(path: Path) -> RelsimError:
    """Return the error for a file without content."""
    return RelsimError(f"{path}: the file is empty: put one fact on each line, or remove the file")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the system, or of decompression, into a RelsimError that names `path`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise RelsimError(f"{path}: no such file or folder: check the spelling") from None
    except PermissionError:
        raise RelsimError(f"{path}: no permission to read it: change its mode or copy it to where you may") from None
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise RelsimError(f"{path}: cannot be read ({reason}): the file may be cut off, fetch it again") from None
