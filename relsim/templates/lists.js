// The finder with the nearest relations of one, and the table of pairs.
const FIRST = 100;

/** A last row that asks for the rows left out. */
function restRow(left, columns, show) {
  if (left <= 0) return null;
  const button = el("button", { type: "button", className: "more" }, `Show ${count(left)} more`);
  button.addEventListener("click", show);
  return el("tfoot", {}, el("tr", {}, el("td", { colspan: columns }, button)));
}

const heading = (text, className = "", title = "") => el("th", { scope: "col", className, title }, text);
const number = (text, className = "") => el("td", { className: `number ${className}` }, text);

function klCells(a, b) {
  return [number(nats(kl[at(a, b)])), number(plusMinus(stderr[at(a, b)]), "error")];
}

const numberHeadings = () => [
  el("th", { scope: "col", className: "number", colspan: 2 }, klText("a", "b")),
  el("th", { scope: "col", className: "number", colspan: 2 }, klText("b", "a")),
  heading("S", "number italic", "exp(−max KL)"),
  heading("closer than", "number", "Share of all pairs that lie further apart"),
  heading("reading"),
];

const numberCells = (a, b) => [
  ...klCells(a, b),
  ...klCells(b, a),
  number(similarityText(similarity(a, b))),
  number(share(closerThan(a, b))),
  el("td", { className: "reading" }, ...readingNodes(a, b)),
];

class Finder {
  constructor({ onPin }) {
    this.onPin = onPin;
    this.input = document.getElementById("search");
    this.list = document.getElementById("relations");
    this.table = document.getElementById("near-table");
    this.scroll = document.getElementById("near-scroll");
    this.folded = relations.map((name) => name.toLowerCase());
    const collator = new Intl.Collator("en", { numeric: true });
    this.options = relations
      .map((_, a) => a)
      .sort((a, b) => collator.compare(labels[a], labels[b]))
      .map((a) => this.option(a));
    this.list.append(...this.options);
    this.input.addEventListener("input", () => this.filter());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.filter();
  }

  option(a) {
    const node = el("li", { role: "option", id: `option-${a}`, "aria-selected": "false" }, relationName(a), facts(a));
    node.dataset.relation = a;
    node.addEventListener("click", () => this.select(a));
    return node;
  }

  filter() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const node of this.options)
      node.hidden = !words.every((word) => this.folded[node.dataset.relation].includes(word));
    const found = this.options.filter((node) => !node.hidden);
    document.getElementById("matches").textContent = words.length
      ? `${count(found.length)} of ${count(size)} relations`
      : `${count(size)} relations`;
    if (words.length && found.length) this.select(Number(found[0].dataset.relation));
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const found = this.options.filter((node) => !node.hidden);
    const now = found.findIndex((node) => Number(node.dataset.relation) === this.selected);
    const next = found[Math.min(found.length - 1, Math.max(0, now + step))];
    if (next) this.select(Number(next.dataset.relation));
  }

  /** Show the nearest relations of `a`; `marked` is brought into view. The page itself does not move. */
  select(a, marked = null) {
    if (a !== this.selected) {
      document.getElementById(`option-${this.selected}`)?.setAttribute("aria-selected", "false");
      document.getElementById(`option-${a}`).setAttribute("aria-selected", "true");
      this.input.setAttribute("aria-activedescendant", `option-${a}`);
      this.selected = a;
      this.fill(a, FIRST, marked);
    } else if (marked !== null && !this.rows.has(marked)) this.fill(a, FIRST, marked);
    this.within(this.list, document.getElementById(`option-${a}`));
    this.rows.forEach((row, b) => row.classList.toggle("pinned", b === marked));
    if (marked === null) this.scroll.scrollTop = 0;
    else this.within(this.scroll, this.rows.get(marked));
  }

  within(box, node) {
    const outer = box.getBoundingClientRect(),
      inner = node.getBoundingClientRect();
    const top = outer.top + (box.querySelector("thead")?.offsetHeight || 0);
    if (inner.top < top || inner.bottom > outer.bottom)
      box.scrollTop += inner.top - top - (outer.bottom - top - inner.height) / 2;
  }

  /** The `limit` nearest relations of `a`, and `marked` wherever it ranks. */
  fill(a, limit, marked = null) {
    const near = relations.map((_, b) => b).filter((b) => b !== a);
    const key = near.map((b) => distance(a, b));
    const rank = near.map((_, k) => k).sort((x, y) => key[x] - key[y] || near[x] - near[y]);
    this.rows = new Map();
    const shown = rank.map((k, place) => [near[k], place + 1]).filter(([b, place]) => place <= limit || b === marked);
    const body = el("tbody", {}, ...shown.map(([b, place]) => this.row(a, b, place)));
    const rest = restRow(near.length - shown.length, 9, () => this.fill(a, size));
    const head = el("tr", {}, heading("", "number"), heading("b"), ...numberHeadings(), heading("facts", "number"));
    this.table.replaceChildren(...[el("thead", {}, head), body, rest].filter(Boolean));
    document.getElementById("near-to").replaceChildren("a = ", relationName(a), " ", facts(a));
  }

  row(a, b, position) {
    const button = el("button", { type: "button", className: "plain" }, relationName(b));
    button.addEventListener("click", () => this.onPin(a, b));
    const row = el(
      "tr",
      {},
      number(count(position), "rank"),
      el("td", { className: "wide" }, button),
      ...numberCells(a, b),
      el("td", { className: "number" }, marked(b, count(support[b]))),
    );
    this.rows.set(b, row);
    return row;
  }
}

class PairTable {
  constructor({ onPin }) {
    this.onPin = onPin;
    this.table = document.getElementById("pairs-table");
    this.kinds = {
      duplicates: [
        "Near-duplicates",
        "Both directions are small: probably two names for one relation. Weak evidence last.",
      ],
      kinds: ["a is a kind of b", "Small one way and large the other: what a says, b says too. Weak evidence last."],
      closest: ["Closest of all", "The pairs with the smallest max KL, whatever they read."],
    };
    const choices = document.getElementById("choices");
    for (const [kind, [title]] of Object.entries(this.kinds)) {
      const total = kind === "closest" ? report.pairs[kind].rows.length : report.pairs[kind].total;
      const button = el(
        "button",
        { type: "button", "aria-pressed": "false" },
        title,
        el("span", { className: "total" }, count(total)),
      );
      button.dataset.kind = kind;
      button.addEventListener("click", () => this.show(kind));
      choices.append(button);
    }
    this.show(["duplicates", "kinds"].find((kind) => report.pairs[kind].total) || "closest");
  }

  show(kind, limit = FIRST) {
    for (const button of document.getElementById("choices").children)
      button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    const { rows, total } = report.pairs[kind];
    const cut = kind !== "closest" && rows.length < total ? ` The first ${count(rows.length)} of ${count(total)}.` : "";
    document.getElementById("pairs-note").textContent = rows.length ? this.kinds[kind][1] + cut : "None here.";
    const head = el(
      "tr",
      {},
      heading("a"),
      heading("b"),
      ...numberHeadings(),
      heading("facts", "number", "Of a and of b"),
      evidence.size ? heading("in common", "number", "Pairs of head and tail that both relations hold") : null,
    );
    const body = el("tbody", {}, ...rows.slice(0, limit).flatMap((pair) => this.row(...pair)));
    const rest = restRow(rows.length - limit, 10, () => this.show(kind, rows.length));
    this.table.replaceChildren(...[rows.length ? el("thead", {}, head) : null, body, rest].filter(Boolean));
  }

  row(a, b) {
    const pinning = (r) => {
      const button = el("button", { type: "button", className: "plain" }, relationName(r));
      button.addEventListener("click", () => this.onPin(a, b));
      return el("td", { className: "wide" }, button);
    };
    const row = el(
      "tr",
      {},
      pinning(a),
      pinning(b),
      ...numberCells(a, b),
      el("td", { className: "number" }, marked(a, count(support[a])), ", ", marked(b, count(support[b]))),
    );
    if (!evidence.size) return [row];
    const found = evidence.get(at(a, b));
    if (!found || !found.examples.length) {
      row.append(number(found ? count(found.shared) : ""));
      return [row];
    }
    const detail = el("tr", { className: "detail", hidden: true }, el("td", { colspan: 10 }, evidenceList(found)));
    const button = el("button", { type: "button", className: "more", "aria-expanded": "false" }, count(found.shared));
    button.addEventListener("click", () => {
      detail.hidden = !detail.hidden;
      button.setAttribute("aria-expanded", String(!detail.hidden));
    });
    row.append(el("td", { className: "number" }, button));
    return [row, detail];
  }
}
