"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relsim.errors import RelsimError
from relsim.scratch import scratch_folder

KINDS = {  # what a folder is that holds this file
    "manifest.json": "a KB",
    "model.json": "a model",
    "divergence.json": "a comparison",
    "checkpoint.json": "an unfinished training",
}
_SOURCES = {
    "a KB": "name a KB, or a dump that relsim reads",
    "a model": "`relsim fit` makes one of a KB",
    "a comparison": "`relsim compare` makes one of a model",
}


@contextmanager
def atomic_folder(path: str | Path, marker: str) -> Iterator[Path]:
    """Yield a scratch folder that becomes `path` on success and vanishes on any failure.

    `marker` is the file that tells a folder of this kind (`manifest.json`, say). An existing folder is replaced only
    where it holds the marker, so that a mistyped path never deletes somebody's work.

    Raises:
        RelsimError: `path` exists and is neither empty nor a folder of this kind; another process is working on it; the
            disk refuses (it is full, say).
    """
    check_target(path, marker)
    with _writing(path) as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as scratch:
            yield scratch
            for file in scratch.iterdir():
                file.chmod(0o666 & ~_umask())  # safetensors makes private files


def check_target(path: str | Path, marker: str) -> None:
    """Refuse a path that `atomic_folder` would not replace or could not make; long work asks before it starts.

    Raises:
        RelsimError: `path` exists and is neither empty nor a folder that holds `marker`, or may not be written.
    """
    with _writing(path) as target:
        if target.exists() and not (target.is_dir() and ((target / marker).is_file() or not any(target.iterdir()))):
            raise RelsimError(f"{path}: exists and holds no {marker}, so it is not overwritten: name another folder")
        _check_writable(target)


def kind_of(path: str | Path) -> str | None:
    """Return which of `KINDS` a folder is, or none."""
    return next((kind for marker, kind in KINDS.items() if (Path(path) / marker).is_file()), None)


def check_source(path: str | Path, kind: str) -> None:
    """Refuse a path that is not a folder of this kind, one of `KINDS`: say what it is, and how to come by one.

    Raises:
        RelsimError: as said, or `path` may not be read.
    """
    with _reading(path) as source:
        found = kind_of(source)
        if found == kind:
            for file in source.iterdir():
                refuse_links(file)
            return
        if not source.exists():
            fault = "no such folder"
        elif found or not source.is_dir():
            fault = f"is {found or 'a file'}, not {kind}"
        else:
            fault = f"is not {kind}"
    raise RelsimError(f"{path}: {fault}: {_SOURCES[kind]}")


def refuse_links(path: Path) -> None:
    """Refuse an entry of a folder that leads elsewhere: a folder from somebody else must not read outside itself.

    Raises:
        RelsimError: it is a symbolic link, or a pipe or a device.
    """
    if path.is_symlink():
        raise RelsimError(f"{path}: is a symbolic link, which may lead anywhere: put the file itself there")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise RelsimError(f"{path}: is a pipe or a device: put a file there")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that replaces it on success and vanishes on any failure.

    Raises:
        RelsimError: the disk refuses (it is full, say).
    """
    with _writing(path) as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield scratch
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Return the object in the JSON file `path` of a `kind` folder.

    Raises:
        RelsimError: the file is missing or is not a JSON object.
    """
    try:
        with _reading(path):
            refuse_links(path)
            value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RelsimError(f"{path.parent}: not a {kind} folder, it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise RelsimError(f"{path}: damaged ({error}): make the {kind} again") from None
    if not isinstance(value, dict):
        raise RelsimError(f"{path}: damaged (expected a JSON object): make the {kind} again")
    return value


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line: `KeyError: 'meta'`, and without the name where it says a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines[:1] and lines[0].endswith(":") else "".join(lines[:1])
    return said if " " in said else f"{type(error).__name__} {said}".strip()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path` as UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _reading(path: str | Path) -> Iterator[Path]:
    """Yield `path`; what the system says against reading it, apart from its absence, becomes one line."""
    try:
        yield Path(path)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RelsimError(
            f"{path}: cannot be read ({error.strerror or error}): change its mode, or name another"
        ) from None


@contextmanager
def _writing(path: str | Path) -> Iterator[Path]:
    """Yield the real place behind `path`; what the system says against writing there becomes one line."""
    try:
        yield Path(path).resolve()  # renaming a symbolic link would leave the folder behind it as it was
    except Exception as error:
        # of two places, one inside the other, the user has named the outer
        fault = error.__cause__ if isinstance(error, RelsimError) else error
        # safetensors wraps what the system says in an exception of its own
        if not isinstance(fault, OSError) and "(os error " not in str(fault):
            raise
        reason = getattr(fault, "strerror", None) or one_line(fault or error)
        raise RelsimError(
            f"{path}: cannot be written ({reason}): nothing was changed, make room or name another place"
        ) from fault


def _check_writable(target: Path) -> None:
    """Raise what the system would say to writing below the nearest folder that is there."""
    parent = next(folder for folder in (*target.parents, target) if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
