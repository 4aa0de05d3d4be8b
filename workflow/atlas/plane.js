// The units of both nets in the plane: those which correlate lie close. Partners are joined under the
// pointer, and a line drawn around units lists them.
"use strict";

const plane = { key: "", units: [], listed: [], at: null, line: [], joined: null, context: null, side: 0 };

async function showMap(state) {
  const pair = pairOf(state.a, state.b);
  const [{ a, b }, related] = await Promise.all([
    load(`${state.layer}/plane/${pair.name}`), relation(state.layer, state.a, state.b)]);
  if (!current(state)) return;
  const key = [state.layer, state.a, state.b].join();
  const side = Math.max(240, Math.min(widths.views - 44, window.innerHeight - 420));
  if (plane.key !== `${key},${side}`) {
    layPlane(state, related, key, side, pair.turned ? [b, a] : [a, b]);
  }
  plane.at = plane.places.get(`${state.unit.net}.${state.unit.number}`) || null;
  paintPlane();
  describePlane();
  listUnits();
}

/** Take up the units of another layer or pair, on a canvas of a size. */
function layPlane(state, related, key, side, [mine, theirs]) {
  if (!plane.key.startsWith(`${key},`)) Object.assign(plane, { listed: [], line: [] });
  const of = (net, { data }) => counted(data.length / 2)
    .map((number) => ({ net, number, x: data[2 * number], y: data[2 * number + 1] }))
    .filter(({ x }) => !Number.isNaN(x));
  const units = [...of(state.a, mine), ...of(state.b, theirs)];
  const places = new Map(units.map((unit) => [`${unit.net}.${unit.number}`, unit]));
  const partner = ({ net, number }) => {
    const side = net === state.a ? "get" : "ofOther";
    const [other, value] = ["semi", "semi_value"].map((name) => related[side](mainMeasure(), name)[number]);
    return { unit: places.get(`${net === state.a ? state.b : state.a}.${other}`), value };
  };
  const box = document.getElementById("plane");
  const { canvas, context } = drawing(side, side, { "aria-hidden": "true" });
  box.replaceChildren(canvas);
  box.style.width = box.style.height = `${side}px`;
  Object.assign(plane, { key: `${key},${side}`, side, units, places, partner, context });
}

const inPlane = ({ x, y }) => [12 + x * (plane.side - 24), 12 + (1 - y) * (plane.side - 24)];

function paintPlane() {
  const { context, units, side, at, line, listed } = plane;
  context.clearRect(0, 0, side, side);
  const radius = Math.max(1.6, Math.min(5, 90 / Math.sqrt(units.length)));
  const chosen = new Set(listed);
  const disc = (unit, size) => {
    context.beginPath();
    context.arc(...inPlane(unit), size, 0, 2 * Math.PI);
    context.fill();
  };
  for (const net of [state.a, state.b]) {
    context.fillStyle = run.colors[net];
    for (const unit of units) {
      if (unit.net !== net) continue;
      context.globalAlpha = chosen.size && !chosen.has(unit) ? 0.25 : 0.85;
      disc(unit, radius);
    }
  }
  context.globalAlpha = 1;
  context.strokeStyle = context.fillStyle = colorOf("text");
  if (at) {
    const { unit: other } = plane.partner(at);
    context.lineWidth = 1.5;
    if (other) {
      context.beginPath();
      context.moveTo(...inPlane(at));
      context.lineTo(...inPlane(other));
      context.stroke();
    }
    for (const unit of [at, other].filter(Boolean)) {
      context.fillStyle = run.colors[unit.net];
      disc(unit, radius + 3);
      context.stroke();
    }
  }
  if (line.length > 1) {
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    line.forEach((point) => context.lineTo(...point));
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }
}

function describePlane() {
  const { at } = plane;
  const readout = document.getElementById("map-readout");
  if (!at) return readout.replaceChildren("Point at a unit to see its best partner.");
  const { unit: other, value } = plane.partner(at);
  readout.replaceChildren(
    picture(state.layer, at.net, at.number, "patches", 44), ` Unit ${at.number} of ${at.net}`,
    ...(other ? [`, best partner ${other.number} of ${other.net}: ${digits(value, 2)} `, picture(state.layer, other.net, other.number, "patches", 44)] : ""));
}

/** The unit nearest to a point, if it is near enough. */
function nearestInPlane([x, y], reach = 20) {
  let found = null;
  let least = reach ** 2;
  for (const unit of plane.units) {
    const [left, top] = inPlane(unit);
    const square = (left - x) ** 2 + (top - y) ** 2;
    if (square < least) [found, least] = [unit, square];
  }
  return found;
}

function inside([x, y], line) {
  let found = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [line[i], line[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) found = !found;
  }
  return found;
}

const MOST_LISTED = 120;

function listUnits() {
  const { listed } = plane;
  const list = document.getElementById("map-list");
  if (!listed.length) return list.replaceChildren();
  const shown = listed.slice(0, MOST_LISTED);
  const of = (net) => listed.filter((unit) => unit.net === net).length;
  const rest = listed.length - shown.length;
  list.replaceChildren(
    element("p", { class: "small-print" }, `${plural(listed.length, "unit")}: ${of(state.a)} of ${state.a}, ${of(state.b)} of ${state.b}. `,
      element("button", { type: "button", onclick: () => choosePlane([]) }, "Clear")),
    element("div", { class: "rest" }, ...shown.map((unit) => card(state.layer, unit, unit.net, "", 44))),
    rest > 0 ? element("p", { class: "small-print" }, `and ${rest} more`) : "");
}

function choosePlane(listed) {
  plane.listed = listed;
  paintPlane();
  listUnits();
}

function wireMap() {
  const box = document.getElementById("plane");
  const place = (event) => {
    const bounds = box.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  };
  let drawn = false;
  const point = (unit) => {
    plane.at = unit;
    paintPlane();
    describePlane();
  };
  box.addEventListener("pointerdown", (event) => {
    drawn = true;
    plane.line = [place(event)];
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (drawn) {
      plane.line.push(place(event));
      paintPlane();
    } else {
      const unit = nearestInPlane(place(event));
      if (unit && unit !== plane.at) point(unit);
    }
  });
  box.addEventListener("pointerup", (event) => {
    drawn = false;
    const [line, [x, y]] = [plane.line, place(event)];
    const length = line.reduce((most, [left, top]) => Math.max(most, Math.hypot(left - x, top - y)), 0);
    plane.line = [];
    if (length > 12) return choosePlane(plane.units.filter((unit) => inside(inPlane(unit), line)));
    const unit = nearestInPlane([x, y]);
    if (unit) go({ unit: { net: unit.net, number: unit.number }, with: null }, { show: true });
    else paintPlane();
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !plane.units.length) return;
    const { units, at } = plane;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) point(units[(Math.max(0, units.indexOf(at)) + step + units.length) % units.length]);
    else if (event.key === "p" && at) point(plane.partner(at).unit || at);
    else if (event.key === "Enter" && at) go({ unit: { net: at.net, number: at.number }, with: null }, { keep: ["#unit"] });
    else return;
    event.preventDefault();
  });
  document.getElementById("nearest").onclick = () => {
    if (!plane.at) return;
    const [x, y] = inPlane(plane.at);
    const away = (unit) => Math.hypot(inPlane(unit)[0] - x, inPlane(unit)[1] - y);
    choosePlane([...plane.units].sort((p, q) => away(p) - away(q)).slice(0, 24));
  };
}
