// A sequential scale from near to far, even in OKLab lightness, so that it reads without hue and in print.
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const RAMPS = {
  light: ["#0d1b4c", "#1f4a94", "#2a83b0", "#62b5b5", "#acd9c4", "#dff0dc", "#f6f7ee"],
  dark: ["#fdf3b4", "#f7cf63", "#e3925a", "#b95f6e", "#7c4576", "#43325f", "#1f2130"],
};

const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const toGamma = (v) => (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);

function toLab(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => toLinear(parseInt(hex.slice(i, i + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function toRgb([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((v) => Math.round(255 * Math.min(1, Math.max(0, toGamma(Math.max(0, v))))));
}

/** 256 colours [r, g, b] from near to far; lightness is linear between the ends, whatever the stops. */
function ramp() {
  const stops = RAMPS[darkMode.matches ? "dark" : "light"].map(toLab);
  const first = stops[0][0],
    last = stops[stops.length - 1][0];
  return Array.from({ length: 256 }, (_, i) => {
    const L = first + ((last - first) * i) / 255;
    let k = 0;
    while (k < stops.length - 2 && (L - stops[k + 1][0]) * (last - first) > 0) k++;
    const t = (L - stops[k][0]) / (stops[k + 1][0] - stops[k][0]);
    return toRgb([L, 1, 2].map((v, j) => (j ? stops[k][j] + t * (stops[k + 1][j] - stops[k][j]) : v)));
  });
}

// The square root spreads the small divergences, where the duplicates are; beyond the 98th percentile all is far.
let farthest = 1;
const setFarthest = () => {
  let finite = ranked.length;
  while (finite && !Number.isFinite(ranked[finite - 1])) finite--;
  farthest = Math.max(1, ranked[Math.floor(0.98 * (finite - 1))] || 1);
};
const level = (value) => (value < farthest ? Math.round(255 * Math.sqrt(Math.max(0, value) / farthest)) : 255);
const cssVariable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
