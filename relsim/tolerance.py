"""How many bad lines a dump may have: they are reported and left out, up to a share of all lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from relsim.errors import RelsimError
from relsim.formats import Batch

SHARE = 1e-5  # of the lines: 10 of a million, none of a small file
SHOWN = 10
_EARLY = 1_000_000  # lines after which a share can be judged before the end


class Tolerance:
    """Counts bad lines; `note` gives up as soon as they are too many, `settle` judges at the end."""

    def __init__(self, share: float = SHARE, warn: Callable[[str], None] | None = None) -> None:
        """`warn` is told of the first bad lines, each with its file and number.

        Raises:
            RelsimError: `share` is not a share.
        """
        if not 0 <= share <= 1:
            raise RelsimError(f"bad_lines {share}: expected a share, 0 for none, 0.01 for one line in a hundred")
        self._share, self._warn = share, warn or (lambda _: None)
        self._first: list[str] = []
        self.lines = self.bad = 0

    def note(self, path: Path, batch: Batch) -> None:
        """Count the lines of a batch.

        Raises:
            RelsimError: there are more bad lines than the share allows of the lines so far, or of the first million.
        """
        self.lines += batch.lines
        self.bad += len(batch.bad)
        for line in batch.bad[: SHOWN - len(self._first)]:
            self._first.append(f"{path}:{line.number}: {line.fault}")
        if self.bad > self._share * max(self.lines, _EARLY):
            self._refuse()

    def settle(self) -> None:
        """Report the bad lines that are left out.

        Raises:
            RelsimError: they are more than the share allows of all lines.
        """
        if self.bad > self._share * self.lines:
            self._refuse()
        for line in self._first:
            self._warn(line)
        if self.bad > len(self._first):
            self._warn(f"{self.bad - len(self._first):,} more bad lines")

    def _refuse(self) -> None:
        if self.bad == 1:
            raise RelsimError(self._first[0])
        allowed = math.floor(self._share * self.lines)
        raise RelsimError(
            f"{self._first[0]} ({self.bad - 1:,} more of {self.lines:,} lines are bad, and --bad-lines "
            f"{self._share:g} allows {allowed:,})"
        )
