// Returns faults of a page that need no tool to find: links and controls without a name, repeated ids,
// skipped levels of headings, and text that stands out too little from what it stands on.
const shown = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility());
const faults = [];
const fault = (words, e) => faults.push(`${words}: ${e.outerHTML.slice(0, 90)}`);

const named = (e) => (e.innerText || "").trim() || e.getAttribute("aria-label") || e.title ||
  e.labels?.length || e.getAttribute("aria-labelledby");
for (const e of shown) {
  if (!e.matches("a, button, select, input, [role=img], [tabindex='0']")) continue;
  if (!named(e)) fault("no name", e);
  if (e.matches("a:not([href])") && e.getAttribute("aria-disabled") !== "true") fault("no address", e);
}

const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
for (const id of ids.filter((id, n) => ids.indexOf(id) !== n)) faults.push(`repeated id: ${id}`);

let level = 0;
for (const heading of shown.filter((e) => e.matches("h1, h2, h3, h4"))) {
  const next = Number(heading.localName[1]);
  if (next > level + 1) fault(`h${next} after h${level}`, heading);
  level = next;
}

const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const paint = (color) => {
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (color) => color.reduce((sum, v, n) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][n], 0);
// The colour behind an element: those of all that it lies in, each painted over the last.
const ground = (e) => {
  const chain = [];
  for (let at = e; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
  paint("white");
  return chain.map(paint).at(-1);
};
for (const e of shown) {
  const text = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!text || e.closest("svg, .hidden, option, select, [aria-disabled=true], :disabled")) continue;
  const [on, ink] = [luminance(ground(e)), luminance(paint(getComputedStyle(e).color))];
  const ratio = (Math.max(on, ink) + 0.05) / (Math.min(on, ink) + 0.05);
  if (ratio < 4.5) fault(`contrast of ${ratio.toFixed(1)}`, e);
}
return faults;
