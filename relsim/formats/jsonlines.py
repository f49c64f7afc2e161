"""JSON with one value on each line, alone or in one list: the entities of Wikidata, the extractions of Open IE."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from relsim.formats.base import BadLine, Batch, Format, suffixed
from relsim.formats.lines import Lines, blocks, overlong
from relsim.formats.stream import NOT_UTF8, bare_name, empty, open_bytes, reading

Fact = tuple[str, str, str]
_BRACKETS = (b"", b"[", b"]")
_SUBJECTS = ("head", "subject", "arg1", "h")
_RELATIONS = ("relation", "predicate", "rel", "r")
_OBJECTS = ("tail", "object", "arg2", "t")
_TEXTS = ("name", "text", "label", "id")


def read(path: Path, columns: str = "hrt", *, facts: Callable[[Any, Counter[str]], Iterator[Fact]]) -> Iterator[Batch]:
    """Yield what `facts` finds in each value, which it may also count as skipped, by reason.

    Raises:
        RelsimError: the file is empty, or cannot be read.
    """
    values = 0
    with reading(path), open_bytes(path) as stream:
        for lines in blocks(stream):
            batch = _batch(lines, facts)
            values += batch.lines
            yield batch
    if not values:
        raise empty(path)


def _batch(lines: Lines, facts: Callable[[Any, Counter[str]], Iterator[Fact]]) -> Batch:
    found: list[Fact] = []
    skipped: Counter[str] = Counter()
    bad, values = overlong(lines), len(lines.overlong)
    for index in range(len(lines.start)):
        line = lines.line(index).strip().removesuffix(b",")
        if line in _BRACKETS:
            continue
        values += 1
        try:
            value = json.loads(line)
            for each in value if isinstance(value, list) else [value]:
                found += facts(each, skipped)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            bad.append(BadLine(lines.first + index, _fault(error)))
    columns = zip(*found, strict=True) if found else ((), (), ())
    head, relation, tail = (pa.array(column, pa.string()) for column in columns)
    return Batch(head, relation, tail, skipped=skipped, lines=values, bad=bad)


def _fault(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return NOT_UTF8
    if isinstance(error, RecursionError):
        return "nested too deeply: correct the line, or remove it"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg}): correct the line, or remove it"
    return f"not the JSON that was expected ({error}): correct the line, or remove it"


def truthy(entity: dict[str, Any], skipped: Counter[str]) -> Iterator[Fact]:
    """Yield the facts between entities that Wikidata holds best: of a property the preferred ones, else the normal.

    Raises:
        KeyError, TypeError: it is no Wikidata entity.
    """
    for relation, statements in (entity["claims"] or {}).items():
        preferred = [s for s in statements if s["rank"] == "preferred"]
        for statement in preferred or [s for s in statements if s["rank"] == "normal"]:
            snak = statement["mainsnak"]
            if snak["snaktype"] != "value":
                skipped["no value"] += 1
            elif snak["datavalue"]["type"] == "wikibase-entityid":
                yield str(entity["id"]), relation, _entity(snak["datavalue"]["value"])
            else:
                skipped["external id" if snak.get("datatype") == "external-id" else "literal"] += 1


def _entity(value: dict[str, Any]) -> str:
    """Return the id of an entity, which old dumps give as a kind and a number."""
    if "id" in value:
        return str(value["id"])
    return {"item": "Q", "property": "P", "lexeme": "L"}[value["entity-type"]] + str(value["numeric-id"])


def extraction(value: dict[str, Any], skipped: Counter[str]) -> Iterator[Fact]:
    """Yield the fact that an extraction holds: `head`, `subject`, `arg1` or `h`, and likewise the others.

    A part is a text, a list of words, or an object that has one of these as `name`, `text`, `label` or `id`. An
    extraction without a second argument is counted as skipped.

    Raises:
        KeyError, TypeError: it is no extraction.
    """
    head, relation = _part(value, _SUBJECTS), _part(value, _RELATIONS)
    if not any(value.get(key) for key in _OBJECTS):
        skipped["no second argument"] += 1
        return
    yield head, relation, _part(value, _OBJECTS)


def _part(value: dict[str, Any], keys: tuple[str, ...]) -> str:
    key = next((key for key in keys if key in value), None)
    if key is None:
        raise KeyError(f"none of {', '.join(keys)}")
    part = value[key]
    while isinstance(part, dict):
        part = part[next((key for key in _TEXTS if part.get(key)), _TEXTS[0])]
    text = " ".join(part) if isinstance(part, list) else part
    if not isinstance(text, str) or not text:
        raise TypeError(f"{key} is not a text")
    return text


def _looks_like_wikidata(path: Path) -> bool:
    name = bare_name(path)
    return name.suffix.lower() == ".json" and (name.name.startswith("latest-") or "wikidata" in name.name.lower())


WIKIDATA = Format(
    "wikidata-json",
    "a Wikidata entity dump (latest-*.json, wikidata*.json)",
    _looks_like_wikidata,
    partial(read, facts=truthy),
)
OPENIE = Format(
    "openie",
    "Open IE extractions as JSON lines (.jsonl)",
    suffixed(".jsonl", ".ndjson"),
    partial(read, facts=extraction),
)
