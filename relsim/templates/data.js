// The numbers of the report, unpacked. `pack` in relsim/report.py says how they are stored.
const report = JSON.parse(document.getElementById("report-data").textContent);
const { relations, support, order, rule } = report;
const size = relations.length;
const NEAR_DUPLICATE = 1,
  A_KIND_OF_B = 2,
  B_KIND_OF_A = 3;

async function inflate(text) {
  const binary = atob(text);
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < packed.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const HALF = Float32Array.from({ length: 65536 }, (_, i) => {
  const sign = i >> 15 ? -1 : 1,
    exponent = (i >> 10) & 31,
    fraction = i & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
});

async function halves(text) {
  const raw = await inflate(text),
    n = raw.length / 2;
  const values = new Float32Array(n);
  for (let i = 0; i < n; i++) values[i] = HALF[raw[i] | (raw[n + i] << 8)];
  return values;
}

let kl, headPart, stderr, reading, ranked;

async function load() {
  [kl, headPart, stderr, reading] = await Promise.all([
    halves(report.kl),
    halves(report.head),
    halves(report.stderr),
    inflate(report.reading),
  ]);
  ranked = new Float32Array((size * (size - 1)) / 2);
  for (let a = 0, k = 0; a < size; a++) for (let b = a + 1; b < size; b++) ranked[k++] = distance(a, b);
  ranked.sort();
}

const at = (a, b) => a * size + b;
const distance = (a, b) => Math.max(kl[at(a, b)], kl[at(b, a)]);
const similarity = (a, b) => Math.exp(-distance(a, b));
const isWeak = (a) => support[a] < rule.weak;

/** The share of all pairs that lie strictly further apart than a and b. */
function closerThan(a, b) {
  const value = distance(a, b);
  if (Number.isNaN(value)) return NaN;
  let low = 0,
    high = ranked.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranked[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return (ranked.length - low) / ranked.length;
}

const evidence = new Map();
for (const [a, b, shared, examples] of report.evidence) {
  evidence.set(at(a, b), { shared, examples });
  evidence.set(at(b, a), { shared, examples });
}
