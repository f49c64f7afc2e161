"""The one exception that users meet: a fault they can mend, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from heapq import nlargest

_COMPARED = 1000  # names, letter by letter


class RelsimError(Exception):
    """Bad input. The message is one line: the place, the fault, the remedy. The command exits with 2."""


def unknown_name(kind: str, name: str, known: Sequence[str]) -> RelsimError:
    """Return the error for a name that is not in `known`, with the nearest names as the remedy."""
    lowered = {candidate.lower(): candidate for candidate in _alike(name, known)}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"`relsim stats` lists the {kind}s"
    return RelsimError(f"unknown {kind} {name!r}: {hint}")


def _alike(name: str, known: Sequence[str]) -> Iterable[str]:
    """Return the names that share most runs of three letters with `name`: difflib takes a minute for a million."""
    if len(known) <= _COMPARED:
        return known
    wanted = name.lower()
    runs = {wanted[i : i + 3] for i in range(max(1, len(wanted) - 2))}
    shared = ((sum(run in candidate.lower() for run in runs), candidate) for candidate in known)
    return [candidate for count, candidate in nlargest(_COMPARED, shared) if count]
