// Names and numbers as people read them. Names come from a dump: they only ever become text nodes.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "colspan") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** The name with characters that hide or reorder text spelt out, its middle dropped beyond `limit` characters. */
function visible(name, limit = 240) {
  const letters = Array.from(name);
  const kept =
    letters.length > limit
      ? [...letters.slice(0, limit * 0.6), "…", ...letters.slice(-Math.floor(limit * 0.3))]
      : letters;
  const text = kept.join("").replace(INVISIBLE, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  return text.trim() ? text : "(no name)";
}

const labels = relations.map((name) => visible(name));

/** A name that may break after its separators, cut to a few lines by the style sheet, whole in its tooltip. */
function nameNode(text, full = text) {
  const node = el("bdi", { className: "name", title: full.length < 1000 ? full : full.slice(0, 1000) + "…" });
  for (const piece of text.split(/(?<=[/._:#])(?=[^/._:#])/)) node.append(piece, el("wbr"));
  return node;
}

const relationName = (a) => nameNode(labels[a], relations[a]);
const grouped = new Intl.NumberFormat("en");
const count = (n) => grouped.format(n);
const factCount = (a) => `${count(support[a])} ${support[a] === 1 ? "fact" : "facts"}`;
const marked = (a, text) =>
  el("span", isWeak(a) ? { className: "mark", title: `Fewer than ${rule.weak} facts` } : {}, text);
const facts = (a) => marked(a, factCount(a));

function nats(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "∞";
  return value.toFixed(Math.abs(value) < 10 ? 2 : 1).replace("-", "−");
}

function plusMinus(value) {
  if (!(value > 0)) return "";
  return `± ${value < 0.001 ? "<\u200a0.001" : value.toFixed(value < 0.01 ? 3 : value < 1 ? 2 : 1)}`;
}

function similarityText(value) {
  if (Number.isNaN(value)) return "–";
  if (value >= 0.001) return value.toFixed(3);
  if (value === 0) return "0";
  const [digit, exponent] = value.toExponential(0).split("e-");
  return `${digit}\u200a·\u200a10⁻${exponent.replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])}`;
}

/** Rounded down, with enough digits that no pair reads as closer than all. */
function share(value) {
  if (Number.isNaN(value)) return "–";
  const digits = value < 0.99 ? 0 : value < 0.999 ? 1 : value < 0.9999 ? 2 : 3;
  return `${(Math.floor(value * 100 * 10 ** digits) / 10 ** digits).toFixed(digits)} %`;
}

function readingText(code) {
  return (
    { [NEAR_DUPLICATE]: "near-duplicate", [A_KIND_OF_B]: "a is a kind of b", [B_KIND_OF_A]: "b is a kind of a" }[
      code
    ] || ""
  );
}

const readingNodes = (a, b) => {
  const code = reading[at(a, b)];
  const said = el("span", { className: code === NEAR_DUPLICATE ? "duplicate" : "kind" }, readingText(code));
  if (!isWeak(a) && !isWeak(b)) return [said];
  return [said, " ", el("span", { className: "mark", title: `One has fewer than ${rule.weak} facts` }, "weak")];
};

const klText = (a, b) => `KL(${a}\u202f∥\u202f${b})`;

/** Both directions of a pair with their parts, for the tooltip and for the pinned pair. */
function pairDetails(a, b) {
  const line = (letter, r) =>
    el("div", { className: "pair-name" }, el("i", {}, letter), el("span", {}, relationName(r), " ", facts(r)));
  if (a === b) return [el("div", { className: "pair-name" }, el("span", {}, relationName(a), " ", facts(a)))];
  const row = (from, to, x, y) => {
    const i = at(x, y);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, klText(from, to)),
      el("td", {}, nats(kl[i])),
      el("td", { className: "error" }, plusMinus(stderr[i])),
      el("td", {}, nats(headPart[i])),
      el("td", {}, nats(kl[i] - headPart[i])),
    );
  };
  const head = el(
    "tr",
    {},
    el("th"),
    el("th", { colspan: 2, scope: "col" }, "nats"),
    el("th", { scope: "col" }, "head"),
    el("th", { scope: "col" }, "tail"),
  );
  const said = readingText(reading[at(a, b)]);
  return [
    line("a", a),
    line("b", b),
    el(
      "table",
      { className: "parts" },
      el("thead", {}, head),
      el("tbody", {}, row("a", "b", a, b), row("b", "a", b, a)),
    ),
    el(
      "p",
      {},
      el("i", {}, "S"),
      ` ${similarityText(similarity(a, b))}, closer than ${share(closerThan(a, b))} of pairs`,
    ),
    said ? el("p", { className: "said" }, said[0].toUpperCase() + said.slice(1)) : null,
    isWeak(a) || isWeak(b) ? el("p", { className: "weak" }, `Weak evidence: fewer than ${rule.weak} facts`) : null,
  ];
}

function evidenceList(found) {
  const rows = found.examples.map(([head, tail]) =>
    el(
      "li",
      {},
      nameNode(visible(head), head),
      el("span", { className: "arrow" }, " → "),
      nameNode(visible(tail), tail),
    ),
  );
  return el("ul", { className: "evidence" }, ...rows);
}
