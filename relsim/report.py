"""The HTML report of a comparison: one file with its data, style and script inside, which needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.evidence import Evidence, shared
from relsim.kb import KB
from relsim.similar import nearest_pairs, symmetric_kl
from relsim.storage import atomic_file

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("data.js", "colour.js", "text.js", "picture.js", "map.js", "lists.js", "main.js")
OPTIMAL_ORDER_LIMIT = 1_000  # the optimal leaf order takes 1.5 s here and grows as R^4 in the worst case
STDERR_BITS = 5
CLOSEST_PAIRS = 50
LISTED_PAIRS = 500


@dataclass(frozen=True)
class Rule:
    """When a pair earns a reading; every bound holds with `errors` standard errors to spare.

    Attributes:
        duplicate: a near-duplicate has max(KL(a || b), KL(b || a)) at most this, in nats.
        kind_of: "a is a kind of b" has KL(a || b) at most this, in nats. A relation that holds one n-th of another's
            facts, and no others, has KL(a || b) = ln n, so 3 allows n = 20.
        gap: "a is a kind of b" has KL(b || a) - KL(a || b) at least this, in nats.
        errors: the number of standard errors by which a bound must hold.
        weak: a relation with fewer facts than this is weak evidence, and is marked.
        usual: the typical divergence in nats that the bounds are meant for. In a small world all relations are close,
            so where the median of max(KL(a || b), KL(b || a)) is lower, all three bounds are lower in proportion.
    """

    duplicate: float = 1.0
    kind_of: float = 3.0
    gap: float = 3.0
    errors: float = 2.0
    weak: int = 10
    usual: float = 10.0

    def scaled(self, div: Divergence) -> Rule:
        """Return the rule for `div`, its bounds in nats in proportion where relations are closer than usual."""
        pairs = symmetric_kl(div)[np.triu_indices(len(div.relations), 1)]
        pairs = pairs[np.isfinite(pairs)]
        share = min(1.0, float(np.median(pairs)) / self.usual) if len(pairs) else 1.0
        bounds = {name: getattr(self, name) * share for name in ("duplicate", "kind_of", "gap")}
        return replace(self, **bounds, usual=self.usual * share)


RULE = Rule()


class Reading(IntEnum):
    """What the two directions of a pair (a, b) say together."""

    NONE = 0
    DUPLICATE = 1
    A_KIND_OF_B = 2
    B_KIND_OF_A = 3


def readings(div: Divergence, rule: Rule = RULE) -> NDArray[np.uint8]:
    """Return the `Reading` of every pair (row a, column b), shape (R, R); the diagonal says nothing."""
    with np.errstate(invalid="ignore"):  # inf - inf says nothing: no gap between relations that exclude each other
        highest = div.kl + rule.errors * div.stderr
        gap = div.kl.T - div.kl - rule.errors * np.hypot(div.stderr, div.stderr.T)
        duplicate = np.maximum(highest, highest.T) <= rule.duplicate
        kind = (highest <= rule.kind_of) & (gap >= rule.gap)
    codes = [Reading.DUPLICATE, Reading.A_KIND_OF_B, Reading.B_KIND_OF_A]
    result = np.select([duplicate, kind, kind.T], codes, Reading.NONE).astype(np.uint8)
    np.fill_diagonal(result, Reading.NONE)
    return result


def cluster_order(div: Divergence) -> NDArray[np.int64]:
    """Return a permutation of the relations that puts similar ones side by side, shape (R,).

    The leaves of the average-linkage tree on the symmetric KL divergence, in the order that makes neighbours most
    similar (Bar-Joseph et al. 2001) up to `OPTIMAL_ORDER_LIMIT` relations, and in the tree's own beyond.
    """
    distance = np.maximum(symmetric_kl(div), 0.0)
    known = distance[np.isfinite(distance)]
    distance[~np.isfinite(distance)] = 2 * known.max(initial=1.0)
    np.fill_diagonal(distance, 0.0)
    size = len(div.relations)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=size <= OPTIMAL_ORDER_LIMIT)
    return np.asarray(leaves_list(tree), dtype=np.int64)


def shared_facts(
    kb: KB, div: Divergence, pairs: Iterable[tuple[int, int]], examples: int = 5
) -> dict[tuple[str, str], Evidence]:
    """Return what each pair of relations shares in `kb`, for `write_report(evidence=)`.

    `pairs` are indices into `div.relations`, as `nearest_pairs` gives them; `examples` of the shared (head, tail) are
    named, spread evenly over all.

    Raises:
        RelsimError: `kb` has no relation of that name.
    """
    return shared(kb, [(div.relations[a], div.relations[b]) for a, b in pairs], examples)


def pack(values: NDArray[Any], bits: int = 10) -> str:
    """Return numbers as base64 of zlib of their float16 bytes, all low bytes first and then all high bytes.

    `bits` is the precision kept of the mantissa: the relative error is at most 2^-(bits + 1) down to 6.2e-5, and the
    absolute error 3e-8 below. Finite numbers beyond 65,504 become 65,504. The page's `halves` undoes it.
    """
    limit = float(np.finfo(np.float16).max)
    values = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
    fraction, exponent = np.frexp(values)
    scale = 2.0 ** (bits + 1)
    rounded = np.clip(np.ldexp(np.round(fraction * scale) / scale, exponent), -limit, limit)
    half = np.where(np.isfinite(values), rounded, values).astype("<f2")
    return _base64(half.reshape(-1).view(np.uint8).reshape(-1, 2).T.tobytes())


def report_data(
    div: Divergence, evidence: Mapping[tuple[str, str], Evidence] | None = None, rule: Rule = RULE
) -> dict[str, Any]:
    """Return what the page's script works on, as JSON values: names, order, packed matrices, readings, listed pairs."""
    index = {name: i for i, name in reversed(list(enumerate(div.relations)))}
    reading = readings(div, rule)
    return {
        "relations": list(div.relations),
        "support": div.support.tolist(),
        "order": cluster_order(div).tolist(),
        "kl": pack(div.kl),
        "head": pack(div.head),
        "stderr": pack(div.stderr, STDERR_BITS),
        "reading": _base64(reading.tobytes()),
        "rule": asdict(rule),
        "pairs": _listed_pairs(div, reading, rule),
        "evidence": [
            [index[a], index[b], found.shared, [list(fact) for fact in found.examples]]
            for (a, b), found in (evidence or {}).items()
            if a in index and b in index
        ],
    }


def write_report(
    div: Divergence, path: str | Path, *, title: str, evidence: Mapping[tuple[str, str], Evidence] | None = None
) -> None:
    """Write the comparison as one HTML file that opens from disk; it appears whole or not at all.

    The page shows the clustered heat map, the nearest relations of each, and the pairs that are near-duplicates or read
    "a is a kind of b", with standard errors, support and, where `evidence` has them, the facts that a pair shares.
    Names are never markup: they travel as escaped JSON, and a content security policy admits no other script.

    Raises:
        RelsimError: there are fewer than two relations, `path` is a folder, or it cannot be written.
    """
    path = Path(path)
    if len(div.relations) < 2:
        raise RelsimError(
            f"{path}: a report needs two relations or more, got {len(div.relations)}: compare more of them"
        )
    if path.is_dir():
        raise RelsimError(f"{path}: is a folder: name a file in it, such as {path / 'report.html'}")
    rule = RULE.scaled(div)
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = templates.get_template("report.html").render(
        title=title,
        summary=_summary(div),
        rule=rule,
        pairs=len(div.relations) * (len(div.relations) - 1) // 2,
        sampled=bool(np.any(div.stderr)),
        data=_script_json(report_data(div, evidence, rule)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
    )
    with atomic_file(path) as scratch:
        scratch.write_bytes(page.encode("utf-8", "replace"))


def _listed_pairs(div: Divergence, reading: NDArray[np.uint8], rule: Rule) -> dict[str, Any]:
    """The rows of the page's table of pairs, best first and weak evidence last, with the number of all that qualify."""
    weak = div.support < rule.weak
    ranked = np.array(nearest_pairs(div), dtype=np.int64)
    duplicates = ranked[reading[ranked[:, 0], ranked[:, 1]] == Reading.DUPLICATE]
    kinds = np.argwhere(reading == Reading.A_KIND_OF_B)
    kinds = kinds[np.argsort(div.kl[kinds[:, 0], kinds[:, 1]], kind="stable")]

    def listed(pairs: NDArray[np.int64]) -> dict[str, Any]:
        solid_first = pairs[np.argsort(weak[pairs].any(axis=1), kind="stable")]
        return {"total": len(pairs), "rows": solid_first[:LISTED_PAIRS].tolist()}

    closest = {"total": len(ranked), "rows": ranked[:CLOSEST_PAIRS].tolist()}
    return {"duplicates": listed(duplicates), "kinds": listed(kinds), "closest": closest}


def _summary(div: Divergence) -> list[str]:
    """The page's line of facts: size, what was run, and the median standard error over all ordered pairs."""
    settings = {key: value for key, value in div.meta.items() if key != "source" and not isinstance(value, Mapping)}
    for value in div.meta.values():
        settings |= value if isinstance(value, Mapping) else {}
    shown = [
        f"{key.replace('_', ' ').replace('cpu', 'CPU')} {f'{value:,.4g}' if isinstance(value, float) else value}"
        for key, value in settings.items()
        if isinstance(value, str | int | float)
    ]
    errors = div.stderr[~np.eye(len(div.relations), dtype=bool)]
    error = f"median standard error {np.nanmedian(errors):.2g} nats" if np.any(errors) else "no sampling error"
    return [f"{len(div.relations):,} relations", f"{int(div.support.sum()):,} facts", *shown, error]


def _script_json(value: Any) -> Markup:
    """JSON that no HTML parser can read as anything but text, for a `<script type="application/json">`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _content_hash(text: str) -> str:
    """The source expression by which a content security policy admits exactly this inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
