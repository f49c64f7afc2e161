"""Numbers for names in the order of their first appearance, whatever memory all of them would take.

Names come in runs, each without repetitions. A name's place is its position in all runs put end to end; its number is
the rank of its first place among the first places of all names. Where the runs are too large to be hashed at once, they
are dealt by content to parts that are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.spool import Scratch, Spool

PART = 128 << 20  # bytes of names hashed at a time
_PARTS = 256
_SCATTER = np.uint64(0x9E3779B97F4A7C15)


class Numbering:
    """Collects runs of names with `add`; `numbers` and `names` then say what number each place has, and whose it is."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._runs = Spool(scratch, PART)

    @property
    def size(self) -> int:
        """The number of places."""
        return self._runs.rows

    def add(self, names: pa.StringArray) -> int:
        """Add a run, and return the place of its first name."""
        place = self.size
        self._runs.append(name=names)
        return place

    def first_places(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Return, for each place, the first place of the same name."""
        first = np.empty(self.size, np.int32 if self.size <= np.iinfo(np.int32).max else np.int64)
        for place, names in self._parts():
            codes = names.dictionary_encode().indices.to_numpy()
            lead = place[np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))]  # where codes are new
            first[place] = lead[codes]
        return first

    def names(self, chosen: NDArray[np.bool_]) -> Iterator[pa.StringArray]:
        """Yield the names at the chosen places, in order."""
        start = 0
        for run in self._runs:
            yield run["name"].filter(pa.array(chosen[start : start + len(run)]))
            start += len(run)

    def _parts(self) -> Iterator[tuple[NDArray[np.int64], pa.StringArray]]:
        """Yield places and their names, equal names in the same part, places ascending in each."""
        count = min(-(-self._runs.nbytes // PART), _PARTS)
        if count <= 1:
            runs = [run["name"] for run in self._runs]
            yield np.arange(self.size), pa.concat_arrays(runs) if runs else pa.array([], pa.string())
            return
        parts = [Spool(self._scratch, 0) for _ in range(count)]
        start = 0
        for run in self._runs:
            part = _part(run["name"], count)
            for index, spool in enumerate(parts):
                rows = np.flatnonzero(part == index)
                spool.append(place=pa.array(rows + start), name=run["name"].take(pa.array(rows)))
            start += len(run)
        for spool in parts:
            batches = list(spool)
            spool.drop()
            place = np.concatenate([batch["place"].to_numpy() for batch in batches])
            yield place, pa.concat_arrays([batch["name"] for batch in batches])


def _part(names: pa.StringArray, count: int) -> NDArray[np.int64]:
    """Deal names to `count` parts by their length and their last 16 bytes, which vary most in a dump."""
    _, ends, text = names.buffers()
    offsets = np.frombuffer(ends, "<i4")[names.offset : names.offset + len(names) + 1].astype(np.int64)
    data = np.frombuffer(text or b"\0", np.uint8)[offsets[0] : offsets[-1]]
    padded = np.concatenate([np.zeros(16, np.uint8), data])  # so that 16 bytes stand before every end
    words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    length, end = np.diff(offsets), offsets[1:] - offsets[0] + 16
    key = length.astype(np.uint64)
    for back in (8, 16):
        foreign = np.clip(back - length, 0, 8).astype(np.uint64)  # bytes of the word that are not of this name
        inside = np.where(foreign < 8, words[end - back] >> (np.uint64(8) * np.minimum(foreign, np.uint64(7))), 0)
        key = (key ^ inside.astype(np.uint64)) * _SCATTER
        key ^= key >> np.uint64(32)
    return (key % np.uint64(count)).astype(np.int64)
