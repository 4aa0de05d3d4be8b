// Nets between two nets: accuracy along the line between their weights, for each alignment.
"use strict";

// As in the figure merge: averaged, repaired, batch normalisation reset.
const DASHES = { averaged: "7 5", repaired: "none", "batch normalisation reset": "1 5" };

const mergingOf = (a, b) => run.merging[pairOf(a, b).name];
const ofCurve = ({ alignment }) => `curve ${alignment}`;
const dashOf = ({ how }) => ({ "stroke-dasharray": how ? DASHES[how] : "none" });

/** Values of a curve in the order from the first net to the second. */
const along = (values, turned) => (turned ? values.toReversed() : values);

function showMerging(state) {
  const { t, images, labelled, curves } = mergingOf(state.a, state.b);
  const { turned } = pairOf(state.a, state.b);
  const box = document.getElementById("merging-plot");
  const width = Math.max(280, box.clientWidth);
  const height = Math.round(Math.min(400, Math.max(240, width * 0.55)));
  const margin = { left: 46, right: 12, top: 10, bottom: 40 };
  const x = (value) => margin.left + value * (width - margin.left - margin.right);
  const y = (share) => margin.top + (1 - share) * (height - margin.top - margin.bottom);
  const what = labelled ? "accuracy (top-1)" : "agreement with the two nets";
  document.getElementById("merging-words").textContent = `Across: t; up: ${what} on ${images} images.`;
  const plot = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${what} of nets between ${state.a} and ${state.b}; the table below has the values`,
  });
  for (let share = 0; share < 1.01; share += 0.2) {
    const at = y(share);
    plot.append(
      svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: at, y2: at }),
      svg("text", { class: "tick", x: margin.left - 6, y: at + 4, "text-anchor": "end" }, percent(share)),
    );
  }
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    plot.append(svg("text", { class: "tick", x: x(value), y: height - 22, "text-anchor": "middle" }, String(value)));
  }
  plot.append(
    svg("text", { class: "tick", x: margin.left, y: height - 5 }, state.a),
    svg("text", { class: "tick", x: width - margin.right, y: height - 5, "text-anchor": "end" }, state.b),
  );
  const line = (values) => values.map((share, i) => `${x(t[i]).toFixed(1)},${y(share).toFixed(1)}`);
  for (const curve of curves) {
    const [share, low, high] = ["share", "low", "high"].map((key) => along(curve[key], turned));
    if (labelled) {
      const outline = [...line(low), ...line(high).reverse()].join(" ");
      plot.append(svg("polygon", { class: `band ${ofCurve(curve)}`, points: outline }));
    }
    plot.append(svg("polyline", { class: ofCurve(curve), ...dashOf(curve), points: line(share).join(" ") }));
  }
  const cursor = svg("line", { class: "cursor", y1: margin.top, y2: height - margin.bottom });
  plot.append(cursor);
  box.replaceChildren(plot);

  const hows = Object.keys(DASHES).filter((how) => curves.some((curve) => curve.how === how));
  const swatch = (curve) => svg("svg", { class: "swatch", width: 30, height: 8, "aria-hidden": "true" },
    svg("line", { class: curve.alignment ? ofCurve(curve) : "curve", ...dashOf(curve), x1: 1, x2: 29, y1: 4, y2: 4 }));
  const cells = new Map();
  const cell = (curve, options) => {
    const made = element("td", options);
    cells.set(made, along(curve.share, turned));
    return made;
  };
  const rows = [...new Set(curves.map(({ label }) => label))].map((label) => {
    const own = curves.filter((curve) => curve.label === label);
    const head = element("th", { scope: "row" }, swatch({ alignment: own[0].alignment, how: null }), label);
    if (!own[0].how) return element("tr", {}, head, cell(own[0], { colspan: hows.length }));
    const found = hows.map((how) => own.find((curve) => curve.how === how));
    return element("tr", {}, head, ...found.map((curve) => (curve ? cell(curve) : element("td"))));
  });
  const heads = hows.map((how) => element("th", { scope: "col" }, swatch({ how }), how.replace("sation", "\u00adsation")));
  document.querySelector("#merging thead").replaceChildren(element("tr", {}, element("td"), ...heads));
  document.querySelector("#merging tbody").replaceChildren(...rows);

  const slider = document.getElementById("t");
  slider.max = t.length - 1;
  const mark = (index) => {
    slider.value = index;
    const said = `t = ${Number(t[index].toFixed(3))}`;
    slider.setAttribute("aria-valuetext", said);
    document.getElementById("t-words").textContent = said;
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, x(t[index]));
    for (const [made, share] of cells) made.textContent = `${(100 * share[index]).toFixed(1)}%`;
  };
  mark(Math.floor(t.length / 2));
  slider.oninput = () => mark(Number(slider.value));
  const point = (event) => {
    const bounds = plot.getBoundingClientRect();
    const at = (((event.clientX - bounds.left) * width) / bounds.width - margin.left) / (width - margin.left - margin.right);
    mark(Math.max(0, Math.min(t.length - 1, Math.round(at * (t.length - 1)))));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
}
