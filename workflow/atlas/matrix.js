// The correlation matrix on a canvas, with orders, zoom, and a cross-hair for pointer and keyboard.
"use strict";

const ORDERS = {
  original: "Rows and columns are in the order of training, which has no meaning.",
  matched: "Columns are permuted so that each unit's partner in the one-to-one matching lies on the diagonal.",
  best: "Columns are matched, with the best matched units first: the diagonal fades where features are no longer shared.",
  clusters: "Rows and columns follow the spectral clusters of both nets; lines separate the clusters.",
};
const shown = { key: "", matrix: null, rows: [], columns: [], cuts: null, x: 0, y: 0, cells: 1, at: null };

/** Colours for −100 … 100 as 32-bit pixels, from orange through none to blue. */
function palette() {
  const dark = darkNow();
  const stops = dark
    ? [[255, 222, 184], [190, 104, 26], [24, 27, 33], [30, 112, 172], [220, 240, 255]]
    : [[150, 62, 0], [240, 178, 106], [255, 255, 255], [112, 176, 220], [6, 62, 118]];
  const colors = new Uint32Array(2 * run.steps + 1);
  colors.forEach((_, i) => {
    const at = (i / (colors.length - 1)) * (stops.length - 1);
    const [from, part] = [Math.min(Math.floor(at), stops.length - 2), at - Math.min(Math.floor(at), stops.length - 2)];
    const [r, g, b] = stops[from].map((c, k) => Math.round(c + part * (stops[from + 1][k] - c)));
    colors[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  });
  return colors;
}

/** The units in the order of rows and of columns, and the ends of clusters. */
async function ordered(state, rows, columns) {
  const related = await relation(state.layer, state.a, state.b);
  const partner = related.get(mainMeasure(), "completed");
  if (state.order === "matched" || state.order === "best") {
    const value = related.get(mainMeasure(), "matching_value");
    const first = counted(rows);
    const worth = (i) => (Number.isNaN(value[i]) ? -2 : value[i]);
    if (state.order === "best") first.sort((i, j) => worth(j) - worth(i) || i - j);
    const placed = first.map((i) => partner[i]).filter((j) => j >= 0);
    const rest = new Set(counted(columns));
    placed.forEach((j) => rest.delete(j));
    // Remaining units come last, in rows too, so that they do not shift the diagonal.
    first.sort((i, j) => (partner[i] < 0) - (partner[j] < 0));
    // A line before the units that one net has more than the other.
    const cuts = rows === columns ? null : [rows, columns].map((number) => (number > placed.length ? [placed.length] : []));
    return { rows: first, columns: [...placed, ...rest], cuts, apart: true };
  }
  if (state.order === "clusters") {
    const sides = [["get", rows], ["ofOther", columns]].map(([side, units]) => {
      const [leaf, cluster] = [related[side]("leaf"), related[side]("cluster")];
      const order = counted(units).sort((i, j) => leaf[i] - leaf[j] || i - j);
      return { order, cuts: counted(units).filter((n) => n && cluster[order[n]] !== cluster[order[n - 1]]) };
    });
    return { rows: sides[0].order, columns: sides[1].order, cuts: sides.map((side) => side.cuts) };
  }
  return { rows: counted(rows), columns: counted(columns), cuts: null };
}

async function showMatrix(state) {
  document.getElementById("order").value = state.order;
  const [high, wide] = [state.a, state.b].map((net) => unitsOf(state.layer, net));
  const over = high === wide || !["matched", "best"].includes(state.order) ? ""
    : ` Behind the line are the ${Math.abs(high - wide)} further units of ${high > wide ? state.a : state.b}.`;
  document.getElementById("order-words").textContent = ORDERS[state.order] + over;
  const key = [state.layer, state.a, state.b].join();
  document.getElementById("loading").hidden = shown.matrix !== null && shown.key.startsWith(`${key},`);
  const matrix = await matrixOf(state.layer, state.a, state.b);
  const order = await ordered(state, matrix.rows, matrix.columns);
  if (!current(state)) return;
  if (shown.key !== `${key},${state.order}`) {
    Object.assign(shown, { key: `${key},${state.order}`, at: null });
    fit(matrix);
  }
  Object.assign(shown, { matrix, apart: false }, order);
  document.getElementById("loading").hidden = true;
  // The chosen cell, or that of the chosen unit and its best partner.
  const related = await relation(state.layer, state.a, state.b);
  if (!current(state)) return;
  const { unit, with: other } = state;
  const first = unit.net === state.a;
  const best = related[first ? "get" : "ofOther"](mainMeasure(), "semi");
  const partner = other && other.net !== unit.net ? other.number : best[unit.number];
  const [row, column] = first ? [unit.number, partner] : [partner, unit.number];
  shown.at = { row: shown.rows.indexOf(row), column: shown.columns.indexOf(column) };
  resize();
  paint();
  point(shown.at.row, shown.at.column);
}

function fit(matrix) {
  Object.assign(shown, { x: 0, y: 0, cells: Math.max(matrix.rows, matrix.columns) });
}

function resize() {
  const box = document.getElementById("cells");
  const size = Math.round(box.clientWidth * (window.devicePixelRatio || 1));
  for (const canvas of box.querySelectorAll("canvas")) canvas.width = canvas.height = size;
}

/** Draw the cells from (x, y); a pixel that covers several shows the largest absolute value. */
function paint() {
  const canvas = document.getElementById("pixels");
  const { matrix, rows, columns, x, y, cells, cuts, apart } = shown;
  const size = canvas.width;
  if (!size || !matrix) return;
  // A finger scrolls the page if the whole matrix is in view, and otherwise moves the matrix.
  canvas.parentNode.style.touchAction = fitted() ? "pan-y" : "none";
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  const colors = palette();
  const ends = (start, number) => [Math.max(0, Math.floor(start)), Math.min(number, Math.ceil(start + cells))];
  const [top, bottom] = ends(y, rows.length);
  const [left, right] = ends(x, columns.length);
  const pixel = (place, start) => Math.max(0, Math.min(size, Math.round(((place - start) * size) / cells)));
  if (cells >= size) {
    const largest = new Int8Array(size * size);
    const inside = new Uint8Array(size * size);
    const across = counted(right - left).map((n) => Math.min(size - 1, Math.floor(((left + n - x) * size) / cells)));
    for (let row = top; row < bottom; row++) {
      const from = rows[row] * matrix.columns;
      const line = Math.min(size - 1, Math.max(0, Math.floor(((row - y) * size) / cells))) * size;
      for (let n = 0; n < across.length; n++) {
        const value = matrix.data[from + columns[left + n]];
        const place = line + Math.max(0, across[n]);
        inside[place] = 1;
        if (Math.abs(value) > Math.abs(largest[place])) largest[place] = value;
      }
    }
    for (let i = 0; i < pixels.length; i++) if (inside[i]) pixels[i] = colors[largest[i] + run.steps];
  } else {
    for (let row = top; row < bottom; row++) {
      const from = rows[row] * matrix.columns;
      const [first, last] = [pixel(row, y), pixel(row + 1, y)];
      for (let column = left; column < right; column++) {
        const color = colors[matrix.data[from + columns[column]] + run.steps];
        const [start, stop] = [pixel(column, x), pixel(column + 1, x)];
        for (let line = first; line < last; line++) pixels.fill(color, line * size + start, line * size + stop);
      }
    }
  }
  context.putImageData(image, 0, 0);
  if (cuts) {
    // Clusters have the colour that they have in figure S5.
    context.fillStyle = !apart ? "#ff7f0e" : darkNow() ? "#fff" : "#000";
    context.globalAlpha = apart ? 1 : 0.75;
    const thin = Math.max(1, Math.round((window.devicePixelRatio || 1) * (apart ? 3 : 0.8)));
    cuts[0].forEach((row) => context.fillRect(0, pixel(row, y), pixel(columns.length, x), thin));
    cuts[1].forEach((column) => context.fillRect(pixel(column, x), 0, thin, pixel(rows.length, y)));
    context.globalAlpha = 1;
  }
  const scale = document.getElementById("scale").getContext("2d");
  const strip = scale.createImageData(colors.length, 1);
  new Uint32Array(strip.data.buffer).set(colors);
  scale.putImageData(strip, 0, 0);
  paintCross();
}

function paintCross() {
  const canvas = document.getElementById("cross");
  const { at, x, y, cells } = shown;
  const size = canvas.width;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, size, size);
  if (!at) return;
  const cell = size / cells;
  const [left, top, side] = [(at.column - x) * cell, (at.row - y) * cell, Math.max(cell, 6)];
  context.strokeStyle = darkNow() ? "#fff" : "#000";
  context.globalAlpha = 0.35;
  context.lineWidth = Math.max(1, Math.round(window.devicePixelRatio || 1));
  context.beginPath();
  context.moveTo(0, top + cell / 2);
  context.lineTo(size, top + cell / 2);
  context.moveTo(left + cell / 2, 0);
  context.lineTo(left + cell / 2, size);
  context.stroke();
  context.globalAlpha = 1;
  // Black and white lines are visible on any colour.
  const thin = context.lineWidth;
  for (const [color, width] of [["#000", 4 * thin], ["#fff", 2 * thin]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.strokeRect(left + (cell - side) / 2, top + (cell - side) / 2, side, side);
  }
}

/** True if the address asks for the matrix that is drawn; another one may be loading. */
const settled = () => shown.matrix !== null && shown.key === [state.layer, state.a, state.b, state.order].join();

/** Put the cross-hair on a cell and describe the cell. */
function point(row, column) {
  const { matrix, rows, columns } = shown;
  shown.at = {
    row: Math.max(0, Math.min(rows.length - 1, row)),
    column: Math.max(0, Math.min(columns.length - 1, column)),
  };
  const [i, j] = [rows[shown.at.row], columns[shown.at.column]];
  const value = matrix.data[i * matrix.columns + j] / run.steps;
  document.getElementById("matrix-readout").textContent =
    `Unit ${i} of ${state.a}, unit ${j} of ${state.b}: correlation ${digits(value, 2)}`;
  paintCross();
}

const fitted = () => shown.cells >= Math.max(shown.rows.length, shown.columns.length);

function zoom(factor, at = [0.5, 0.5]) {
  const most = Math.max(shown.rows.length, shown.columns.length);
  const cells = Math.max(Math.min(4, most), Math.min(most, shown.cells * factor));
  place(shown.x + at[0] * (shown.cells - cells), shown.y + at[1] * (shown.cells - cells), cells);
}

function place(x, y, cells = shown.cells) {
  const keep = (start, number) => Math.max(0, Math.min(start, Math.max(0, number - cells)));
  Object.assign(shown, { x: keep(x, shown.columns.length), y: keep(y, shown.rows.length), cells });
  requestAnimationFrame(paint);
}

function openCell() {
  const { at, rows, columns } = shown;
  if (!at || !settled()) return;
  go({ unit: { net: state.a, number: rows[at.row] }, with: { net: state.b, number: columns[at.column] } }, { show: true });
}

function wireMatrix() {
  const box = document.getElementById("cells");
  const fingers = new Map();
  let moved = 0;
  const share = (event) => {
    const bounds = box.getBoundingClientRect();
    return [(event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height];
  };
  const pointAt = (event) => {
    const [right, down] = share(event);
    const [row, column] = [Math.floor(shown.y + down * shown.cells), Math.floor(shown.x + right * shown.cells)];
    const inside = row < shown.rows.length && column < shown.columns.length;
    if (!settled() || !inside) return false;
    point(row, column);
    return true;
  };
  const spread = () => {
    const [p, q] = fingers.values();
    return Math.hypot(p[0] - q[0], p[1] - q[1]);
  };
  box.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, share(event));
    moved = 0;
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) {
      pointAt(event);
      return;
    }
    const [before, now] = [fingers.get(event.pointerId), share(event)];
    const apart = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, now);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (fingers.size === 2) zoom(apart / Math.max(spread(), 0.01), now);
    else if (moved > 0.01) place(shown.x - (now[0] - before[0]) * shown.cells, shown.y - (now[1] - before[1]) * shown.cells);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    box.addEventListener(name, (event) => {
      const click = name === "pointerup" && fingers.size === 1 && moved <= 0.01;
      fingers.delete(event.pointerId);
      if (click && pointAt(event)) openCell();
    });
  }
  box.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && fitted()) return; // scrolls the page
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, share(event));
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    if (!settled() || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) {
      const at = shown.at || { row: Math.floor(shown.y), column: Math.floor(shown.x) };
      const far = event.shiftKey ? 10 : 1;
      point(at.row + far * moves[event.key][0], at.column + far * moves[event.key][1]);
      const { row, column } = shown.at;
      const follow = (start, n) => (n < start ? n : n + 1 > start + shown.cells ? n + 1 - shown.cells : start);
      place(follow(shown.x, column), follow(shown.y, row));
    } else if (event.key === "Enter") openCell();
    else if (event.key === "+" || event.key === "=") zoomToCross(0.7);
    else if (event.key === "-") zoomToCross(1.4);
    else if (event.key === "0") zoom(Infinity);
    else return;
    event.preventDefault();
  });
  document.getElementById("zoom-in").onclick = () => zoomToCross(0.6);
  document.getElementById("zoom-out").onclick = () => zoomToCross(1.6);
  document.getElementById("zoom-fit").onclick = () => zoom(Infinity);
  document.getElementById("order").onchange = (event) => go({ order: event.target.value });
}

/** Zoom around the cross-hair if it is in view, otherwise around the centre. */
function zoomToCross(factor) {
  const { at, x, y, cells } = shown;
  const place = at ? [(at.column + 0.5 - x) / cells, (at.row + 0.5 - y) / cells] : [0.5, 0.5];
  zoom(factor, place.every((p) => p >= 0 && p <= 1) ? place : [0.5, 0.5]);
}
