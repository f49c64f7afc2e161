"""Arrow batches in the order they came, on disk where they are too many for memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType

import pyarrow as pa

BUDGET = 64 << 20  # bytes that a spool keeps in memory
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")  # names that begin alike halve, and the disk is slower


class Scratch:
    """A folder for spools that is made when the first of them needs it, and removed with all of them."""

    def __init__(self, parent: Path | None = None) -> None:
        """`parent` is where the folder goes; by default where the system keeps temporary files."""
        self._parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def file(self) -> Path:
        """Return a path for a new file."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="spool-", dir=self._parent)
        return Path(self._folder.name) / f"{next(self._numbers)}.arrow"


class Spool:
    """Batches of one schema: append them, then read them in order, as often as needed."""

    def __init__(self, scratch: Scratch, budget: int | None = None) -> None:
        self._scratch, self._budget = scratch, BUDGET if budget is None else budget
        self._held: list[pa.RecordBatch] = []
        self._path: Path | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self.nbytes = 0
        self.rows = 0

    def append(self, **columns: pa.Array) -> None:
        """Add a batch of equally long columns."""
        batch = pa.record_batch(columns)
        self.nbytes += batch.nbytes
        self.rows += len(batch)
        if self._writer is None and self.nbytes <= self._budget:
            self._held.append(batch)
            return
        if self._writer is None:
            self._path = self._scratch.file()
            self._writer = pa.ipc.new_stream(self._path, batch.schema, options=_OPTIONS)
            for held in self._held:
                self._writer.write_batch(held)
            self._held = []
        self._writer.write_batch(batch)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._writer is not None:
            self._writer.close()
        if self._path is None:
            yield from self._held
        else:
            with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
                yield from reader

    def drop(self) -> None:
        """Forget the batches and free their room."""
        self._held = []
        if self._writer is not None:
            self._writer.close()
        if self._path is not None:
            self._path.unlink()
            self._path = None
