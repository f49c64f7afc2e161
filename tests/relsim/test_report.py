"""The HTML report: its numbers, its order and readings, and that no name in it is ever markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from relsim import report
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.kb import KB
from relsim.report import (
    RULE,
    STDERR_BITS,
    Evidence,
    Reading,
    Rule,
    cluster_order,
    pack,
    readings,
    report_data,
    shared_facts,
    write_report,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><b>bold</b><!--",
    "quote\"'`&amp;&lt;",
    "line\nbreak\u2028and\u2029more",
    "\u202enoisrever\u200f",
    "x" * 4000,
    "",
    "<img src=x onerror=alert(1)>",
    "\ud800 lone surrogate",
]


def make(kl: NDArray[np.float64], stderr: float = 0.0, names: Sequence[str] | None = None, **fields: Any) -> Divergence:
    size = len(kl)
    noise = np.full((size, size), stderr)
    np.fill_diagonal(noise, 0.0)
    parts = {"stderr": noise, "head": 0.4 * kl, "tail": 0.6 * kl, "support": np.full(size, 100), **fields}
    return Divergence(list(names or (f"r{i}" for i in range(size))), kl, **parts)


def random_divergence(size: int, seed: int = 0, names: Sequence[str] | None = None, **fields: Any) -> Divergence:
    rng = np.random.default_rng(seed)
    head, tail = (scale * rng.gamma(2.0, 2.0, (size, size)) for scale in (0.8, 2.0))
    stderr = 0.02 * rng.gamma(2.0, 2.0, (size, size))
    for part in (head, tail, stderr):
        np.fill_diagonal(part, 0.0)
    support = rng.integers(1, 500, size)
    return make(
        head + tail, names=names, **{"head": head, "tail": tail, "stderr": stderr, "support": support, **fields}
    )


def pair(ab: float, ba: float, stderr: float = 0.0) -> Reading:
    """The reading of one pair with these two divergences."""
    return Reading(int(readings(make(np.array([[0.0, ab], [ba, 0.0]]), stderr))[0, 1]))


def unpack(text: str, size: int) -> NDArray[np.float64]:
    """What the page's script does, done another way: `struct` reads each half from its two bytes."""
    raw = zlib.decompress(base64.b64decode(text))
    low, high = raw[: len(raw) // 2], raw[len(raw) // 2 :]
    values = [struct.unpack("<e", bytes(both))[0] for both in zip(low, high, strict=True)]
    return np.array(values).reshape(size, size)


class Page(HTMLParser):
    """Every element of a page, with its attributes, and the text inside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.texts: list[str] = []
        self.open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.open = attributes.get("type") or tag if tag in ("script", "style", "title", "h1") else ""

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open:
            self.inside[self.open] = self.inside.get(self.open, "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.inside["application/json"])
        return content


def written(tmp_path: Path, div: Divergence, **options: Any) -> Page:
    path = tmp_path / "report.html"
    write_report(div, path, **{"title": "Relations", **options})
    return Page(path.read_text(encoding="utf-8"))


# --- names are never markup -------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> Page:
    evidence = {(HOSTILE[0], HOSTILE[1]): Evidence(1, [("<script>head</script>", "</script>&")])}
    div = random_divergence(len(HOSTILE), names=HOSTILE, meta={"estimator": "<script>meta</script>"})
    return written(tmp_path, div, title="<script>title</script>", evidence=evidence)


def test_hostile_names_add_no_element(hostile: Page, tmp_path: Path) -> None:
    plain = written(tmp_path, random_divergence(len(HOSTILE), meta={"estimator": "plain"}))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [attributes.get("type") for attributes in hostile.named("script")] == ["application/json", "module"]
    assert hostile.inside["module"] == plain.inside["module"]


def test_hostile_names_come_back_letter_for_letter(hostile: Page) -> None:
    assert hostile.data["relations"] == HOSTILE
    assert hostile.data["evidence"] == [[0, 1, 1, [["<script>head</script>", "</script>&"]]]]


def test_title_and_settings_are_text(hostile: Page) -> None:
    assert hostile.inside["title"] == hostile.inside["h1"] == "<script>title</script>"
    assert "estimator <script>meta</script>" in hostile.texts


def test_embedded_json_holds_no_character_that_html_or_script_reads(tmp_path: Path) -> None:
    write_report(random_divergence(len(HOSTILE), names=HOSTILE), tmp_path / "r.html", title="t")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = re.search(
        r'<script type="application/json" id="report-data">(.*)</script>\n<script type="module">', html, re.S
    )
    assert found
    assert not re.search("[<>&\u2028\u2029\u202e\u200f\n]", found[1])


def test_script_writes_names_as_text_only() -> None:
    for name in report.SCRIPTS:
        code = (report.TEMPLATES / name).read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|</script", code
        )


# --- nothing but the file ---------------------------------------------------------------------------------------------


def test_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    page = written(tmp_path, random_divergence(6))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(
        r"https?:|//\w+\.\w|url\(|@import|\bimport\b|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", html
    )
    linking = {"src", "href", "srcset", "action", "poster", "data", "background"}
    assert not [
        tag for tag, attributes in page.elements if linking & attributes.keys() or tag in ("link", "iframe", "base")
    ]


def test_policy_admits_only_this_script_and_this_style(tmp_path: Path) -> None:
    page = written(tmp_path, random_divergence(6))
    policies = [a["content"] or "" for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = {name: sources for name, _, sources in (rule.partition(" ") for rule in policies[0].split("; "))}

    def admitted(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == admitted(page.inside["module"])
    assert rules["style-src"] == admitted(page.inside["style"])


@pytest.mark.parametrize(("size", "megabytes"), [(55, 0.2), (237, 1.0)])
def test_file_stays_small_even_where_numbers_do_not_compress(tmp_path: Path, size: int, megabytes: float) -> None:
    written(tmp_path, random_divergence(size))
    assert (tmp_path / "report.html").stat().st_size < megabytes * 1e6


@pytest.mark.slow
def test_file_of_1345_relations_stays_below_12_megabytes(tmp_path: Path) -> None:
    written(tmp_path, random_divergence(1345))
    assert (tmp_path / "report.html").stat().st_size < 12e6


def test_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(random_divergence(7), tmp_path / name, title="Same")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the report before", encoding="utf-8")
    write_bytes = Path.write_bytes

    def full_disk(self: Path, data: bytes) -> int:
        write_bytes(self, data[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(RelsimError, match="no space left"):
        write_report(random_divergence(4), path, title="t")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == "the report before"


def test_nothing_is_left_when_rendering_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "TEMPLATES", tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        write_report(random_divergence(4), tmp_path / "report.html", title="t")
    assert not list(tmp_path.iterdir())


def test_one_relation_or_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    for div, path in [(random_divergence(1), tmp_path / "r.html"), (random_divergence(3), tmp_path)]:
        with pytest.raises(RelsimError) as caught:
            write_report(div, path, title="t")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_embedded_matrices_decode_to_the_divergences(tmp_path: Path) -> None:
    div = random_divergence(31, seed=3)
    data = written(tmp_path, div).data
    for key, truth, bits in [("kl", div.kl, 10), ("head", div.head, 10), ("stderr", div.stderr, STDERR_BITS)]:
        np.testing.assert_allclose(unpack(data[key], 31), truth, rtol=2.0 ** -(bits + 1), atol=3e-8, err_msg=key)
    codes = np.frombuffer(zlib.decompress(base64.b64decode(data["reading"])), np.uint8).reshape(31, 31)
    assert np.array_equal(codes, readings(div))
    assert data["support"] == div.support.tolist()


@given(st.lists(st.floats(-60000, 60000), min_size=1), st.integers(2, 10))
def test_pack_keeps_the_precision_it_states(values: list[float], bits: int) -> None:
    packed = zlib.decompress(base64.b64decode(pack(np.array(values), bits)))
    low, high = packed[: len(values)], packed[len(values) :]
    decoded = [struct.unpack("<e", bytes(both))[0] for both in zip(low, high, strict=True)]
    np.testing.assert_allclose(decoded, values, rtol=2.0 ** -(bits + 1), atol=3e-8)


def test_pack_keeps_what_is_not_a_number_and_caps_the_finite() -> None:
    decoded = unpack(pack(np.array([[math.inf, -math.inf], [math.nan, 1e9]])), 2)
    assert np.array_equal(decoded, [[math.inf, -math.inf], [math.nan, 65504.0]], equal_nan=True)


def test_infinite_divergences_are_reported_not_refused(tmp_path: Path) -> None:
    kl = random_divergence(5).kl
    kl[0, 1] = kl[1, 0] = kl[2, 3] = math.inf
    kl[4, 0] = math.nan
    data = written(tmp_path, make(kl)).data
    assert sorted(data["order"]) == list(range(5))
    assert np.array_equal(np.isfinite(unpack(data["kl"], 5)), np.isfinite(kl))


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1000])
def test_order_is_a_permutation_that_keeps_planted_clusters_together(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "OPTIMAL_ORDER_LIMIT", limit)
    rng = np.random.default_rng(5)
    cluster = rng.permutation(np.repeat(np.arange(4), 6))
    kl = np.where(cluster[:, None] == cluster, 0.5, 12.0) + rng.uniform(0, 0.4, (24, 24))
    np.fill_diagonal(kl, 0.0)
    order = cluster_order(make(kl))
    assert sorted(order.tolist()) == list(range(24))
    assert np.count_nonzero(np.diff(cluster[order])) == 3


def test_order_joins_pairs_that_are_near_in_both_directions_only() -> None:
    one_way = np.array([[0, 0.1, 5, 9], [20, 0, 9, 9], [5, 9, 0, 9], [9, 9, 9, 0.0]])
    place = {relation: i for i, relation in enumerate(cluster_order(make(one_way)))}
    assert abs(place[0] - place[2]) == 1


# --- readings ---------------------------------------------------------------------------------------------------------


def test_small_both_ways_is_a_near_duplicate() -> None:
    assert pair(0.3, 0.9) is Reading.DUPLICATE
    assert pair(0.3, 1.1) is Reading.NONE


def test_small_one_way_and_large_the_other_is_a_kind_of() -> None:
    assert pair(0.4, 9.0) is Reading.A_KIND_OF_B
    assert pair(9.0, 0.4) is Reading.B_KIND_OF_A
    assert pair(3.1, 9.0) is Reading.NONE
    assert pair(2.0, 4.5) is Reading.NONE


def test_a_subset_of_one_tenth_reads_as_a_kind_of_the_whole() -> None:
    """Uniform over 10 of 100 facts, against 99 % uniform over all 100 and 1 % beyond: KL = ln(10/0.99) one way."""
    whole, part = np.full(1000, 0.01 / 900), np.full(1000, 0.01 / 990)
    whole[:100], part[:10] = 0.99 / 100, 0.99 / 10
    up, down = (float(np.sum(p * np.log(p / q))) for p, q in ((part, whole), (whole, part)))
    assert pair(up, down) is Reading.A_KIND_OF_B


@pytest.mark.parametrize(("ab", "ba", "said"), [(0.5, 0.5, Reading.DUPLICATE), (1.0, 9.0, Reading.A_KIND_OF_B)])
def test_a_standard_error_that_reaches_the_bound_withholds_the_reading(ab: float, ba: float, said: Reading) -> None:
    bound = 1.0 if said is Reading.DUPLICATE else 3.0
    enough = (bound - ab) / Rule().errors
    assert pair(ab, ba, 0.99 * enough) is said
    assert pair(ab, ba, 1.01 * enough) is Reading.NONE


def test_the_gap_counts_the_errors_of_both_directions() -> None:
    """A gap of 3.5 nats leaves 0.5 for 2 hypot(s, s), so s = 0.25 / sqrt(2) is the limit."""
    assert pair(0.1, 3.6, 0.17) is Reading.A_KIND_OF_B
    assert pair(0.1, 3.6, 0.18) is Reading.NONE


def test_readings_of_both_orders_of_a_pair_agree_and_the_diagonal_is_silent() -> None:
    codes = readings(make(np.random.default_rng(1).uniform(0, 6, (40, 40)), 0.05))
    mirrored = np.array([0, 1, 3, 2])[codes.T]
    assert np.array_equal(codes, mirrored)
    assert not codes.diagonal().any()
    assert set(np.unique(codes)) == {0, 1, 2, 3}


def test_unknown_errors_and_divergences_earn_no_reading() -> None:
    assert pair(0.1, 0.1, math.nan) is Reading.NONE
    assert pair(math.nan, 0.1) is Reading.NONE
    assert pair(0.1, math.inf) is Reading.A_KIND_OF_B
    assert pair(math.inf, math.inf) is Reading.NONE


def test_listed_pairs_are_all_that_qualify_nearest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    kl = np.full((5, 5), 12.0)
    kl[0, 1], kl[1, 0] = 0.2, 0.6
    kl[2, 3], kl[3, 2] = 0.1, 0.3
    kl[4, 0], kl[0, 4] = 0.5, 8.0
    kl[1, 4], kl[4, 1] = 8.0, 0.2
    np.fill_diagonal(kl, 0.0)
    listed = report_data(make(kl))["pairs"]
    assert listed["duplicates"] == {"total": 2, "rows": [[2, 3], [0, 1]]}
    assert listed["kinds"] == {"total": 2, "rows": [[4, 1], [4, 0]]}
    assert listed["closest"]["total"] == 10
    assert listed["closest"]["rows"][:2] == [[2, 3], [0, 1]]
    monkeypatch.setattr(report, "LISTED_PAIRS", 1)
    assert report_data(make(kl))["pairs"]["kinds"] == {"total": 2, "rows": [[4, 1]]}


def test_pairs_of_weak_evidence_are_listed_after_the_solid_ones() -> None:
    kl = np.full((4, 4), 0.5)
    kl[0, 1] = kl[1, 0] = 0.1
    np.fill_diagonal(kl, 0.0)
    listed = report_data(make(kl, support=np.array([9, 10, 10, 10])))["pairs"]
    assert listed["duplicates"]["rows"] == [[1, 2], [1, 3], [2, 3], [0, 1], [0, 2], [0, 3]]
    assert listed["closest"]["rows"][0] == [0, 1]


def test_summary_says_what_was_run_and_how_sure_it_is(tmp_path: Path) -> None:
    meta = {"estimator": "rao_blackwell", "settings": {"heads": 600, "seed": 0}, "cpu_seconds": 17.3456, "other": [1]}
    texts = written(tmp_path, make(random_divergence(6).kl, 0.25, meta=meta)).texts
    for said in ("6 relations", "600 facts", "heads 600", "CPU seconds 17.35", "median standard error 0.25 nats"):
        assert said in texts, said
    assert "no sampling error" in written(tmp_path, make(random_divergence(6).kl)).texts


# --- evidence ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*(st.sampled_from("abcdefg"),) * 3), min_size=1, max_size=120), st.integers(0, 6))
def test_shared_facts_are_the_intersection(facts: list[tuple[str, str, str]], examples: int) -> None:
    kb = KB.from_names(facts[::2], valid=facts[1::2])
    size = len(kb.relations)
    div = make(np.zeros((size, size)), names=list(reversed(kb.relations)))
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    found = shared_facts(kb, div, pairs, examples)
    assert len(found) == len(pairs)
    for (a, b), evidence in found.items():
        truth = {(h, t) for h, r, t in facts if r == a} & {(h, t) for h, r, t in facts if r == b}
        assert evidence.shared == len(truth)
        assert set(evidence.examples) <= truth
        assert len(set(evidence.examples)) == len(evidence.examples) == min(examples, len(truth))


def test_shared_facts_names_a_relation_that_the_kb_lacks() -> None:
    kb = KB.from_names([("a", "likes", "b")])
    with pytest.raises(RelsimError, match=r"lices.*'likes'"):
        shared_facts(kb, make(np.zeros((2, 2)), names=["likes", "lices"]), [(0, 1)])


def test_evidence_is_embedded_by_index_and_strangers_are_left_out() -> None:
    evidence = {("r2", "r0"): Evidence(7, [("h", "t")]), ("r0", "elsewhere"): Evidence(1)}
    assert report_data(random_divergence(3), evidence)["evidence"] == [[2, 0, 7, [["h", "t"]]]]


# --- in a browser -----------------------------------------------------------------------------------------------------


def dump_dom(browser: str, address: str, profile: Path) -> str:
    """The document as the browser holds it after the page's script has run."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--virtual-time-budget=20000"]
    ran = subprocess.run(
        [*command, f"--user-data-dir={profile}", "--dump-dom", address], capture_output=True, timeout=120, check=True
    )
    return ran.stdout.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of hostile names, drawn by a browser: near-duplicates, and one relation with fewer than 10 facts."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium, to see the page as its script draws it")
    folder = tmp_path_factory.mktemp("browser")
    try:
        dump_dom(browser, "about:blank", folder / "profile")
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"the browser here does not start: {error}")
    names = [name for name in HOSTILE if "surrogate" not in name]
    kl = np.full((len(names), len(names)), 12.125)
    kl[0, 1], kl[1, 0], kl[2, 3], kl[3, 2] = 0.25, 0.5, 0.5, 9.5
    np.fill_diagonal(kl, 0.0)
    support = np.array([3, 9, 10, *range(11, 11 + len(names) - 3)])
    evidence = {(names[0], names[1]): Evidence(2, [("<i>head</i>", "tail")])}
    write_report(make(kl, 0.125, names, support=support), folder / "report.html", title="Drawn", evidence=evidence)
    return dump_dom(browser, (folder / "report.html").as_uri(), folder / "profile")


def test_browser_draws_hostile_names_as_text(drawn: str) -> None:
    page = Page(drawn)
    assert len(page.named("script")) == 2
    assert not page.named("img")
    assert [a for a in page.named("p") if a.get("id") == "fault" and "hidden" in a]
    text = "".join(page.texts)
    for shown in (
        "<script>alert(1)</script>",
        "line\\u000abreak\\u2028and\\u2029more",
        "\\u202enoisrever\\u200f",
        "(no name)",
    ):
        assert shown in text, shown
    assert "x" * 300 not in re.sub(r'title="[^"]*"', "", drawn.split('<script type="application/json"')[0])


def test_browser_shows_both_directions_errors_and_the_reading(drawn: str) -> None:
    table = drawn.split('id="pairs-table"')[1].split("</table>")[0]
    for shown in ("0.25", "± 0.13", "0.50", "near-duplicate", "0.607"):
        assert shown in table, shown
    assert Page(table).texts.count("0.25") == 1


def test_browser_marks_relations_with_fewer_than_ten_facts(drawn: str) -> None:
    options = re.findall(r'<li role="option".*?</li>', drawn, re.S)
    marked = {n for option in options if 'class="mark"' in option for n in re.findall(r">([\d,]+) fact", option)}
    assert len(options) == 8
    assert marked == {"3", "9"}
    assert "Weak evidence: fewer than 10 facts" in drawn


def test_browser_marks_pairs_with_fewer_than_ten_facts(drawn: str) -> None:
    table = drawn.split('id="near-table"')[1].split("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", table.split("<tbody>")[1], re.S)
    assert len(rows) == 7
    assert all(">weak</span>" in row for row in rows)
    kinds = drawn.split('id="pairs-table"')[1].split("</table>")[0]
    assert kinds.count(">weak</span>") == 1


def test_bounds_shrink_where_all_relations_are_close() -> None:
    """In a small world half a nat is no near-duplicate: bounds follow the median pair, and never exceed the rule."""
    kl = np.full((4, 4), 1.0)
    kl[0, 1] = kl[1, 0] = 0.05
    np.fill_diagonal(kl, 0)
    rule = RULE.scaled(make(kl))
    assert rule.duplicate == pytest.approx(0.1)
    assert (readings(make(kl), rule) == Reading.DUPLICATE).sum() == 2
    assert RULE.scaled(make(30 * kl)) == RULE
