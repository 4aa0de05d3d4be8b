// Figure 3: the matched correlations of each unit, from best to worst, as points that lead to units.
"use strict";

/** Units from best to worst semi-match; ties keep their order. */
function ranked(semi) {
  return Array.from(semi.keys()).sort((i, j) => semi[j] - semi[i] || i - j);
}

/** The curve that is drawn: its units in order, what it says of a rank, and the rank chosen. */
const curve = { key: "", order: [], say: () => "", mark: () => {}, nearest: () => 0, chosen: -1 };

async function showCurve(state) {
  const related = await relation(state.layer, state.a, state.b);
  const { dead } = await load(`${state.layer}/${state.a}`);
  if (!current(state)) return;
  const of = (name) => related.maybe(mainMeasure(), name);
  const [semi, matching, best, alone, ends] = [of("semi_value"), of("matching_value"), of("semi"), of("matching"), ["low", "high"].map(of)];
  const chance = chanceOfUnits(state.layer, state.a, state.b);
  const box = document.getElementById("plot");
  const width = Math.max(280, box.clientWidth);
  const key = [state.layer, state.a, state.b, width].join();
  if (key === curve.key) return chooseRank(state);
  const order = ranked(semi);
  const height = Math.round(Math.min(400, Math.max(240, width * 0.55)));
  const margin = { left: 54, right: 10, top: 10, bottom: 38 };
  const low = Math.floor(Math.min(0, ...semi, ...matching.filter((value) => !Number.isNaN(value))) * 5) / 5;
  const x = (rank) => margin.left + ((rank + 0.5) * (width - margin.left - margin.right)) / order.length;
  const y = (value) => margin.top + ((1 - value) * (height - margin.top - margin.bottom)) / (1 - low);
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  const across = (value, name) => svg("line", { class: name, x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) });
  for (let value = low; value < 1.01; value += 0.2) {
    plot.append(across(value, "grid"), svg("text", { class: "tick", x: margin.left - 6, y: y(value) + 4, "text-anchor": "end" },
      digits(Math.abs(value) < 0.01 ? 0 : value, 1)));
  }
  plot.append(across(unmatchedBelow(), "half"), ...(chance ? [across(chance.level, "by-chance")] : []),
    svg("text", { class: "tick", x: (width + margin.left) / 2, y: height - 6, "text-anchor": "middle" },
      `rank of the unit of ${state.a} by its best correlation`),
    svg("text", { class: "tick", transform: `translate(13 ${(height - margin.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, run.measures[0].label));
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].find((s) => order.length / s <= 8) || 5000;
  // Ranks count from 1.
  for (const rank of new Set([1, ...counted(Math.floor(order.length / step)).map((n) => (n + 1) * step)])) {
    if (rank === 1 || x(rank - 1) - x(0) > 24) plot.append(svg("text", { class: "tick", x: x(rank - 1), y: height - 22, "text-anchor": "middle" }, String(rank)));
  }
  // All points of a kind are one line of dots, which thousands of elements would be slower than.
  const size = Math.min(1, Math.sqrt(250 / order.length));
  const dots = (name, radius, values) => svg("path", {
    class: `dots ${name}`, "stroke-width": 2 * radius,
    d: order.map((unit, rank) => (Number.isNaN(values[unit]) ? "" : `M${x(rank).toFixed(1)} ${y(values[unit]).toFixed(1)}h0`)).join(""),
  });
  const ring = svg("g", { class: "ring" });
  plot.append(...(order.length < 500 ? [dots("semi-edge", 1.5 + 4.5 * size, semi)] : []), dots("semi", 1 + 4.5 * size, semi), dots("matching", 0.8 + 2 * size, matching), ring);
  box.replaceChildren(plot);
  document.getElementById("curve-key").replaceChildren(
    element("span", { class: "line half" }), `below ${unmatchedBelow()} a unit is unmatched`,
    ...(chance ? [element("span", { class: "line by-chance" }), `at ${digits(chance.level, 2)} and below it is at chance: one unit in twenty reaches that with ${chance.words}`] : []));
  Object.assign(curve, {
    key, order,
    say: (rank) => {
      const unit = order[rank];
      if (dead.data[unit]) return `Unit ${unit}, rank ${rank + 1}: dead, so it correlates with nothing`;
      const one = alone[unit] < 0 ? "without a partner one to one" : `one to one ${alone[unit]}, ${digits(matching[unit])}`;
      return `Unit ${unit}, rank ${rank + 1}: best partner ${best[unit]}, ${withInterval(semi[unit], ends[0]?.[unit], ends[1]?.[unit], 3)}; ${one}`;
    },
    mark: (rank) => {
      const line = svg("line", { x1: x(rank), x2: x(rank), y1: margin.top, y2: height - margin.bottom });
      ring.replaceChildren(line, svg("circle", { cx: x(rank), cy: y(semi[order[rank]]), r: 4 + 4.5 * size }));
    },
    nearest: (event) => {
      const bounds = plot.getBoundingClientRect();
      const at = ((event.clientX - bounds.left) * width) / bounds.width;
      return Math.floor(((at - margin.left) * order.length) / (width - margin.left - margin.right));
    },
    place: (rank) => [x(rank), y(semi[order[rank]])],
  });
  box.setAttribute("aria-valuemax", order.length);
  chooseRank(state);
}

/** Mark the chosen unit, if it is of the first net. */
function chooseRank(state) {
  curve.chosen = state.unit.net === state.a ? curve.order.indexOf(state.unit.number) : -1;
  pointAtRank(Math.max(0, curve.chosen), curve.chosen >= 0);
}

/** Mark a rank, describe it, and show its unit beside the words. */
function pointAtRank(rank, marked = true) {
  const at = Math.max(0, Math.min(curve.order.length - 1, rank));
  const box = document.getElementById("plot");
  box.setAttribute("aria-valuenow", at + 1);
  box.setAttribute("aria-valuetext", curve.say(at));
  const readout = document.getElementById("curve-readout");
  if (!marked) {
    document.querySelector("#plot .ring").replaceChildren();
    return readout.replaceChildren();
  }
  curve.mark(at);
  readout.replaceChildren(picture(state.layer, state.a, curve.order[at], "patches", 36), ` ${curve.say(at)}`);
  return at;
}

function wireCurve() {
  const box = document.getElementById("plot");
  let at = 0;
  box.addEventListener("pointermove", (event) => { at = pointAtRank(curve.nearest(event)); });
  box.addEventListener("pointerleave", () => pointAtRank(Math.max(0, curve.chosen), curve.chosen >= 0));
  box.addEventListener("focus", () => { at = pointAtRank(Math.max(0, curve.chosen)); });
  const open = (rank, options) => go({ unit: { net: state.a, number: curve.order[rank] }, with: null }, options);
  box.addEventListener("click", (event) => open(pointAtRank(curve.nearest(event)), { show: true }));
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
    if (event.key in moves) at = pointAtRank(at + moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") open(at, { keep: ["#unit"] });
    else return;
    event.preventDefault();
  });
}
