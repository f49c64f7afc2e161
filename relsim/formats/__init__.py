"""The dump formats that `relsim.ingest` reads, one file for each family."""

from __future__ import annotations

from pathlib import Path

from relsim.formats import dumps, jsonlines, kgtk, ntriples, openke, oxigraph, parquet, table, tsv
from relsim.formats.base import Batch, Format

FILES: tuple[Format, ...] = (
    tsv.FORMAT,
    table.FORMAT,
    *dumps.FORMATS,  # before those they are written in: the first that recognises a file reads it
    ntriples.FORMAT,
    ntriples.QUADS,
    *oxigraph.FORMATS,
    kgtk.FORMAT,
    parquet.FORMAT,
    jsonlines.WIKIDATA,
    jsonlines.OPENIE,
)
FOLDERS: tuple[Format, ...] = (openke.FORMAT,)
FORMATS: dict[str, Format] = {known.name: known for known in (*FILES, *FOLDERS)}

__all__ = ["FILES", "FOLDERS", "FORMATS", "Batch", "Format", "recognise"]


def recognise(path: Path) -> Format | None:
    """Return the format that `path` looks like, or None."""
    candidates = FOLDERS if path.is_dir() else FILES
    return next((known for known in candidates if known.recognise(path)), None)
