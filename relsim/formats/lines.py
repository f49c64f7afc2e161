"""A stream in blocks of whole lines, each block one buffer with the places where its lines begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.formats.base import BadLine
from relsim.formats.stream import MARK

BLOCK = 32 << 20  # bytes read at a time
_FIRST = 1 << 18  # bytes read at first, so that a small file costs little
LONGEST = 32 << 20  # bytes of a line; a longer one is a bad line, so that it cannot fill the memory
_LF, _CR, _SPACE = b"\n\r "

Places = NDArray[np.int64]


class Stream(Protocol):
    """What can be read into a buffer: up to its length at a time, and zero bytes at the end."""

    def readinto(self, buffer: memoryview, /) -> int: ...


@dataclass(frozen=True)
class Lines:
    """Some lines: line i is `data[start[i]:end[i]]`, without its end, and is number `first + i` of the stream.

    `white` has the places of all bytes up to the space, which a line break is among, and `byte` what stands there.
    `overlong` has the numbers of lines that were passed over because they are longer than `LONGEST`. All of it is good
    until the next block is asked for.
    """

    data: bytes | bytearray
    start: Places
    end: Places
    white: Places
    byte: NDArray[np.uint8]
    first: int
    overlong: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.start) + len(self.overlong)

    def line(self, index: int) -> bytes:
        return bytes(self.data[self.start[index] : self.end[index]])

    def separators(self, wanted: NDArray[np.bool_]) -> tuple[Places, Places, Places]:
        """Return the places of the `wanted` of `white`, and for each line which of them is its first, and its count."""
        upto = np.append(0, np.cumsum(wanted))
        last = np.flatnonzero(self.byte == _LF)
        ends = np.append(last, len(wanted))[: len(self.start)]  # a line may lack its end, the last one alone
        before = upto[np.append(0, ends[:-1])]
        return self.white[wanted], before, upto[ends] - before


def blocks(stream: Stream, size: int | None = None) -> Iterator[Lines]:
    """Yield the lines of `stream`, `size` bytes at a time. They end in LF or CR LF; a byte-order mark is dropped."""
    size = size or BLOCK
    data = bytearray(max(min(size, _FIRST), len(MARK)))
    number, held, at_start = 1, 0, True
    while read := _fill(stream, data, held):
        held += read
        full = held == len(data)
        if at_start and data.startswith(MARK):
            data[:held] = data[len(MARK) : held] + bytes(len(MARK))
            held -= len(MARK)
        at_start = False
        cut = data.rfind(b"\n", 0, held) + 1
        if cut:
            lines = _split(data, cut, number)
            yield lines
            number += len(lines)
            data[: held - cut] = data[cut:held]
            held -= cut
        elif held > LONGEST:
            held = _pass_over(stream, data)
            none = np.zeros(0, np.int64)
            yield Lines(b"", none, none, none, none.astype(np.uint8), number, [number])
            number += 1
        if held == len(data) or (full and len(data) < size):
            data = data + bytes(max(size - len(data), len(data)))
    if held:
        yield _split(data, held, number)


def overlong(lines: Lines) -> list[BadLine]:
    """Return the bad lines of a block that were too long to be read."""
    return [BadLine(n, f"longer than {LONGEST:,} bytes: is it a file of this format?") for n in lines.overlong]


def spans(data: bytes | bytearray, start: Places, end: Places) -> pa.BinaryArray:
    """Return the pieces `data[start[i]:end[i]]` as an array; they must be in order and must not overlap."""
    offsets = np.empty(2 * len(start), np.int32)
    offsets[::2], offsets[1::2] = start, end
    if not len(start):
        return pa.array([], pa.binary())
    with_gaps = pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return with_gaps.take(pa.array(np.arange(0, len(with_gaps), 2, dtype=np.int32)))


def as_text(values: pa.BinaryArray) -> pa.StringArray:
    """Return bytes as strings, null where they are not UTF-8."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(value) for value in values.to_pylist()], pa.string())


def _split(data: bytearray, size: int, number: int) -> Lines:
    text = np.frombuffer(data, np.uint8, size)
    white = np.flatnonzero(text <= _SPACE)  # one pass for all that divides lines and their parts
    byte = text[white]
    end = white[byte == _LF]
    if data[size - 1] != _LF:
        end = np.append(end, size)
    start = np.zeros_like(end)
    start[1:] = end[:-1] + 1
    if (byte == _CR).any():
        end = end - ((text[end - 1] == _CR) & (end > start))
    return Lines(data, start, end, white, byte, number)


def _fill(stream: Stream, data: bytearray, start: int) -> int:
    """Read from `stream` to `data[start:]` until it is full or the stream is at its end; return the bytes read."""
    end = start
    with memoryview(data) as view:
        while end < len(data) and (read := stream.readinto(view[end:])):
            end += read
    return end - start


def _pass_over(stream: Stream, data: bytearray) -> int:
    """Read to the end of a line; return how many bytes of the next lines are in `data` then."""
    while held := _fill(stream, data, 0):
        cut = data.find(b"\n", 0, held) + 1
        if cut:
            data[: held - cut] = data[cut:held]
            return held - cut
    return 0


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
