"""The knowledge base that comes with the package."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files

from relsim.ingest import ingest
from relsim.kb import KB


def nations() -> KB:
    """Return the Nations KB: 14 countries, 55 relations, 1,992 facts of 1950 to 1965, all of them training facts.

    Source: R. J. Rummel, Dimensionality of Nations project; see the README in this folder.
    """
    with as_file(files(__name__) / "nations.tsv") as path:
        return replace(ingest(path), source="nations (Rummel, Dimensionality of Nations, 1950 to 1965)")
