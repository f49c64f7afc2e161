"""One process at a time on one output: locks that the system takes back when their holder dies, however it dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relsim.errors import RelsimError

try:
    import fcntl
except ImportError:  # not a POSIX system: one process at a time is then up to the user
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(path: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `path` against every other process, by a lock on `.NAME.lock` beside it, which goes when it is let go.

    Raises:
        RelsimError: another process holds it, and the call shall not wait.
    """
    target = Path(path).resolve()
    lock = _on_file(target, wait=wait)
    try:
        yield
    finally:
        lock.place.unlink(missing_ok=True)
        lock.release()


@contextmanager
def together(path: str | Path) -> Iterator[None]:
    """Hold `path` together with others that do so, against whoever wants it `alone`.

    Raises:
        RelsimError: another process holds it alone.
    """
    lock = _on_file(Path(path).resolve(), shared=True)
    try:
        yield
    finally:
        lock.release()


def on_folder(folder: Path, target: Path) -> Lock:
    """Return an exclusive lock on `folder`, which is made where it is missing.

    Raises:
        RelsimError: another process has locked it, and so is working on `target`.
    """
    while True:
        folder.mkdir(exist_ok=True)
        lock = Lock(folder, target)
        if lock.holds():
            return lock
        lock.release()  # its last holder has just renamed it


class Lock:
    """A lock on a file or folder that is there, whatever name it has later; it ends with the process at the latest."""

    def __init__(self, place: Path, target: Path, *, shared: bool = False, wait: bool = False) -> None:
        """Lock `place`.

        Raises:
            RelsimError: another process has locked it, and so is working on `target`, and the call shall not wait.
        """
        self.place = place
        self._descriptor: int | None = None
        if fcntl is None:
            return
        try:
            # a network file system locks what may be written; a folder may only be read
            self._descriptor = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR)
        except FileNotFoundError:  # renamed since
            return
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.release()
            raise RelsimError(
                f"{target}: another process is working on it: wait until it is done, or name another folder"
            ) from None
        except OSError:  # some network file systems have no locks
            return
        except BaseException:  # Ctrl-C while it waits
            self.release()
            raise

    def holds(self) -> bool:
        """Whether what was locked still has its name."""
        if self._descriptor is None:
            return fcntl is None
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.place.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _on_file(target: Path, *, shared: bool = False, wait: bool = False) -> Lock:
    """Return a lock on `.NAME.lock` beside `target`, a file that is made where it is missing."""
    place = target.with_name(f".{target.name}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    while True:
        place.touch(0o666)
        lock = Lock(place, target, shared=shared, wait=wait)
        if lock.holds():
            return lock
        lock.release()  # its last holder has just removed the file
