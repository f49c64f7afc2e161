// Put the parts together.
function placeTooltip(tooltip, event) {
  const { offsetWidth: width, offsetHeight: height } = tooltip,
    gap = 16;
  const left = event.clientX + gap + width > innerWidth ? event.clientX - gap - width : event.clientX + gap;
  const top = event.clientY + gap + height > innerHeight ? event.clientY - gap - height : event.clientY + gap;
  tooltip.style.left = `${Math.max(4, left)}px`;
  tooltip.style.top = `${Math.max(4, top)}px`;
}

function showPair(a, b) {
  const found = evidence.get(at(a, b));
  const shared = found && [
    el(
      "p",
      { className: "shared" },
      `${count(found.shared)} ${found.shared === 1 ? "pair" : "pairs"} of head and tail in common`,
    ),
    found.examples.length ? evidenceList(found) : null,
  ];
  document.getElementById("pair").replaceChildren(...[...pairDetails(a, b), ...(shared || [])].filter(Boolean));
}

function drawLegend() {
  const canvas = document.getElementById("legend"),
    colours = ramp();
  Object.assign(canvas, { width: 256, height: 1 });
  const context = canvas.getContext("2d");
  for (let x = 0; x < 256; x++) {
    context.fillStyle = `rgb(${colours[x].join(" ")})`;
    context.fillRect(x, 0, 1, 1);
  }
  const ticks = [];
  for (const v of [0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]) {
    const gap = Math.sqrt(v / farthest) - Math.sqrt((ticks.at(-1) ?? -1) / farthest);
    if (!ticks.length || (gap > 0.08 && Math.sqrt(v / farthest) < 0.78)) ticks.push(v);
  }
  const nodes = [...ticks, farthest].map((v) => {
    const last = v === farthest;
    const node = el("span", {}, last ? `≥ ${nats(v)} nats` : String(v));
    node.style.left = `${100 * Math.sqrt(v / farthest)}%`;
    if (last) node.className = "last";
    return node;
  });
  document.getElementById("legend-ticks").replaceChildren(...nodes);
}

async function main() {
  await load();
  setFarthest();
  document.getElementById("content").hidden = false;
  const tooltip = document.getElementById("tooltip");
  const onPin = (a, b) => {
    map.pin(a, b);
    finder.select(a, b);
    showPair(a, b);
  };
  const onHover = (pair, event) => {
    tooltip.hidden = !pair || !event;
    if (pair) showPairInTooltip(pair);
    if (pair && event) placeTooltip(tooltip, event);
    else if (pair && pair[0] !== pair[1]) showPair(...pair);
  };
  let shown = null;
  const showPairInTooltip = ([a, b]) => {
    if (shown === at(a, b)) return;
    shown = at(a, b);
    tooltip.replaceChildren(...pairDetails(a, b).filter(Boolean));
  };
  const map = new HeatMap(document.getElementById("map"), { onHover, onPin });
  const finder = new Finder({ onPin });
  new PairTable({ onPin });
  drawLegend();
  onPin(...report.pairs.closest.rows[0]);
  document.getElementById("zoom-in").addEventListener("click", () => map.zoomPinned(1 / 1.5));
  document.getElementById("zoom-out").addEventListener("click", () => map.zoomPinned(1.5));
  document.getElementById("zoom-all").addEventListener("click", () => map.zoom(size));
  darkMode.addEventListener("change", () => {
    map.restyle();
    drawLegend();
  });
}

main().catch((error) => {
  const fault = document.getElementById("fault");
  fault.textContent = `This page could not be drawn (${error}). It needs a browser of 2023 or later.`;
  fault.hidden = false;
});
