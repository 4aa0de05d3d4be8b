// Figure 3: the matched correlations of each unit, from best to worst, as points that link to units.
"use strict";

const NS = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Units from best to worst semi-match; ties keep their order. */
function ranked(semi) {
  return Array.from(semi.keys()).sort((i, j) => semi[j] - semi[i] || i - j);
}

async function showCurve(state) {
  const related = await relation(state.layer, state.a, state.b);
  const { dead } = await load(`${state.layer}/${state.a}`);
  if (!current(state)) return;
  const [semi, matching] = ["semi", "matching"].map((m) => related.get(mainMeasure(), `${m}_value`));
  const [best, alone] = ["semi", "matching"].map((m) => related.get(mainMeasure(), m));
  const order = ranked(semi);
  const box = document.getElementById("plot");
  const width = Math.max(280, box.clientWidth);
  const height = Math.round(Math.min(400, Math.max(240, width * 0.55)));
  const margin = { left: 40, right: 10, top: 10, bottom: 38 };
  let low = 0;
  for (const value of [...semi, ...matching]) if (value < low) low = value;
  low = Math.floor(low * 5) / 5;
  const x = (rank) => margin.left + ((rank + 0.5) * (width - margin.left - margin.right)) / order.length;
  const y = (value) => margin.top + ((1 - value) * (height - margin.top - margin.bottom)) / (1 - low);
  const size = Math.min(1, Math.sqrt(250 / order.length));
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  for (let value = low; value < 1.01; value += 0.2) {
    const at = y(value);
    plot.append(
      svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: at, y2: at }),
      svg("text", { class: "tick", x: margin.left - 6, y: at + 4, "text-anchor": "end" },
        digits(Math.abs(value) < 0.01 ? 0 : value, 1)),
    );
  }
  const half = y(UNMATCHED);
  plot.append(
    svg("line", { class: "half", x1: margin.left, x2: width - margin.right, y1: half, y2: half }),
    svg("text", { class: "tick", x: margin.left + 4, y: half + 14 }, "unmatched below"),
    svg("text", { class: "tick", x: (width + margin.left) / 2, y: height - 6, "text-anchor": "middle" },
      `unit of ${state.a}, sorted by its best correlation`),
  );
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].find((s) => order.length / s <= 8) || 5000;
  for (let rank = 0; rank < order.length; rank += step) {
    plot.append(svg("text", { class: "tick", x: x(rank), y: height - 22, "text-anchor": "middle" }, String(rank)));
  }
  const say = (rank) => {
    const unit = order[rank];
    if (dead.data[unit]) return `Unit ${unit}, rank ${rank}: dead, so it correlates with nothing`;
    const one = alone[unit] < 0 ? "no partner of its own"
      : `partner of its own ${alone[unit]}, ${digits(matching[unit])}`;
    return `Unit ${unit}, rank ${rank}: best partner ${best[unit]}, ${digits(semi[unit])}; ${one}`;
  };
  const points = svg("g", { role: "listbox", "aria-label": "Units from best to worst matched", "aria-orientation": "horizontal" });
  const alones = svg("g", { class: "matching", "aria-hidden": "true" });
  const light = svg("g", { class: "semi", role: "presentation" });
  order.forEach((unit, rank) => {
    light.append(svg("circle", {
      cx: x(rank), cy: y(semi[unit]), r: 1 + 4.5 * size, role: "option", tabindex: -1, "data-rank": rank,
      "data-unit": unit, "aria-label": say(rank), "aria-selected": false,
    }));
    if (!Number.isNaN(matching[unit])) {
      alones.append(svg("circle", { cx: x(rank), cy: y(matching[unit]), r: 0.8 + 2 * size }));
    }
  });
  points.append(light, alones);
  const ring = svg("g", { class: "ring", "aria-hidden": "true" });
  plot.append(ring, points);
  box.replaceChildren(plot);

  const circles = light.children;
  const readout = document.getElementById("curve-readout");
  let chosen = state.unit.net === state.a ? order.indexOf(state.unit.number) : -1;
  const mark = (rank) => {
    const unit = order[rank];
    const line = svg("line", { x1: x(rank), x2: x(rank), y1: margin.top, y2: height - margin.bottom });
    ring.replaceChildren(line, svg("circle", { cx: x(rank), cy: y(semi[unit]), r: 4 + 4.5 * size }));
  };
  const choose = (rank, focus) => {
    circles[Math.max(0, chosen)].setAttribute("tabindex", -1);
    circles[Math.max(0, chosen)].setAttribute("aria-selected", false);
    chosen = Math.max(0, Math.min(order.length - 1, rank));
    circles[chosen].setAttribute("tabindex", 0);
    mark(chosen);
    readout.textContent = say(chosen);
    if (focus) circles[chosen].focus();
  };
  if (chosen >= 0) {
    choose(chosen, false);
    circles[chosen].setAttribute("aria-selected", true);
  } else {
    circles[0].setAttribute("tabindex", 0);
    readout.textContent = "";
  }
  const nearest = (event) => {
    const bounds = plot.getBoundingClientRect();
    const at = ((event.clientX - bounds.left) * width) / bounds.width;
    const rank = Math.floor(((at - margin.left) * order.length) / (width - margin.left - margin.right));
    return Math.max(0, Math.min(order.length - 1, rank));
  };
  plot.addEventListener("pointermove", (event) => {
    const rank = nearest(event);
    mark(rank);
    readout.textContent = say(rank);
  });
  plot.addEventListener("pointerleave", () => {
    if (chosen >= 0) choose(chosen, false);
    else ring.replaceChildren();
  });
  plot.addEventListener("click", (event) => {
    go({ unit: { net: state.a, number: order[nearest(event)] }, with: null }, { show: true });
  });
  points.addEventListener("focusin", (event) => choose(Number(event.target.dataset.rank), false));
  points.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
    if (event.key in moves) choose(chosen + moves[event.key], true);
    else if (event.key === "Enter" || event.key === " ") {
      go({ unit: { net: state.a, number: order[chosen] }, with: null }, { keep: ["#unit"] });
    } else return;
    event.preventDefault();
  });
}
