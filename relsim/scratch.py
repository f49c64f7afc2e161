"""One writer for a folder: a scratch folder beside it, and the swap."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from relsim.lock import Lock, on_folder

_held: set[Path] = set()  # scratch folders of this process
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` for this process alone; on success it becomes `target`, else it vanishes.

    Its name is `.NAME.partial`, so that what a killed process left there is found and removed by the next one. A
    target that is itself such a folder is written in place: it appears with the folder that it becomes.

    Raises:
        RelsimError: another process holds it.
    """
    if target in _held:
        yield target
        return
    scratch = target.with_name(f".{target.name}.partial")
    lock: Lock | None = None
    try:
        with _interrupts_later():  # one between making the folder and holding it would leave it there
            lock = on_folder(scratch, target)
        _held.add(scratch)
        restore(target)
        _clear(scratch)
        yield scratch
        _swap(scratch, target)
    except BaseException:
        if lock is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            _held.discard(scratch)
            lock.release()


def restore(target: Path) -> None:
    """Put back what a process killed between two renames had moved aside, or remove it where it was replaced."""
    retired = _retired(target)
    if retired.is_dir():
        if target.exists():
            shutil.rmtree(retired)
        else:
            retired.rename(target)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Put off Ctrl-C to the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    caught: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught and callable(handler):
            handler(*caught[0])


def _swap(scratch: Path, target: Path) -> None:
    """Move `scratch` to `target`, and remove what was there; on failure what was there stays."""
    if not target.exists():
        scratch.rename(target)
        return
    held = Lock(target, target)  # its content takes the place of the scratch folder, and must not become another's
    try:
        if _exchange(scratch, target):
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            _rename_both(scratch, target)
    finally:
        held.release()


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step, so that there is no moment without either; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


def _rename_both(scratch: Path, target: Path) -> None:
    retired = _retired(target)
    target.rename(retired)
    try:
        scratch.rename(target)
    except BaseException:
        retired.rename(target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _retired(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
