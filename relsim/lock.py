"""One process at a time on one output: a lock that the system takes back when its holder dies, however it dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relsim.errors import RelsimError

try:
    import fcntl

    _SHARED, _EXCLUSIVE, _AT_ONCE = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB
except ImportError:  # not a POSIX system: one process at a time is then up to the user
    fcntl = None  # type: ignore[assignment]
    _SHARED = _EXCLUSIVE = _AT_ONCE = 0


@contextmanager
def alone(path: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `path` against every other process, by a lock on `.NAME.lock` beside it, which goes when it is let go.

    Raises:
        RelsimError: another process holds it, and the call shall not wait.
    """
    target = Path(path).resolve()
    lock = _lock_of(target)
    descriptor = _acquire(lock, target, _EXCLUSIVE if wait else _EXCLUSIVE | _AT_ONCE)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def together(path: str | Path) -> Iterator[None]:
    """Hold `path` together with others that do so, against whoever wants it `alone`.

    Raises:
        RelsimError: another process holds it alone.
    """
    target = Path(path).resolve()
    descriptor = _acquire(_lock_of(target), target, _SHARED | _AT_ONCE)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _acquire(lock: Path, target: Path, mode: int) -> int:
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, target, mode)
            if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has just removed the file


def _flock(descriptor: int, target: Path, mode: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        raise RelsimError(
            f"{target}: another process is working on it: wait until it is done, or name another folder"
        ) from None
    except OSError:  # some network file systems have no locks
        return
