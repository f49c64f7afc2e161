"""Millions of names as one sequence of strings, at the size of their text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import pyarrow as pa


class Names(Sequence[str]):
    """Names in an Arrow array. It equals any sequence of the same strings."""

    def __init__(self, names: pa.ChunkedArray | pa.Array | Sequence[str]) -> None:
        if not isinstance(names, (pa.Array, pa.ChunkedArray)):
            names = pa.array(names, pa.string())
        self.array = names if isinstance(names, pa.ChunkedArray) else pa.chunked_array([names])

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self.array.take(pa.array(range(*index.indices(len(self))), pa.int64())))
        return str(self.array[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for chunk in self.array.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Names([{shown}{', ...' if len(self) > 3 else ''}], {len(self):,})"
