"""Open plain and compressed files, and turn what the system says of them into one-line errors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from relsim.errors import RelsimError

COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


def bare_name(path: Path) -> Path:
    """Return the file name of `path` without the suffix of its compression: `train.tsv` for `a/train.tsv.gz`."""
    return Path(path.stem if path.suffix.lower() in COMPRESSION else path.name)


def open_bytes(path: Path) -> pa.NativeFile:
    """Open `path` for reading, decompressed as its suffix says."""
    return pa.input_stream(path, compression=COMPRESSION.get(path.suffix.lower()))


def open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """Open `path` as UTF-8 text; a byte-order mark is dropped, invalid bytes become surrogates for `invalid_utf8`."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def invalid_utf8(text: str) -> bool:
    """Whether `text`, read by `open_text`, holds bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def not_utf8(path: Path, line: int) -> RelsimError:
    """Return the error for a line that is not UTF-8."""
    return RelsimError(f"{path}:{line}: not UTF-8: convert the file, for example with `iconv -t UTF-8`")


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
