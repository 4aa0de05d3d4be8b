// The first page: what the run is, what it found, and how alike its layers are beyond chance.
"use strict";

function showOverview(state) {
  const { facts } = run;
  const described = [
    ["Nets", `${run.nets.length}, compared in ${plural(run.pairs.length, "pair")}`],
    ["Layers", String(run.layers.length)],
    facts.data && ["Data", `${facts.data}${facts.images ? `, ${facts.images} images` : ""}`],
    facts.date && ["Made", facts.date],
    facts.version && ["Version", `${facts.version}${facts.commit ? ` (${facts.commit.slice(0, 8)})` : ""}`],
  ].filter(Boolean);
  const links = Object.entries(facts.links || {}).map(([name, address]) => element("a", { href: address }, capitalised(name)));
  document.getElementById("run-facts").replaceChildren(
    ...described.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
    links.length ? element("div", {}, element("dt", {}, "Beside it"), element("dd", { class: "links" }, ...links)) : "");
  document.getElementById("run-nets").replaceChildren(...run.nets.map((net) => netFacts(net, facts.nets?.[net] || {})));
  document.getElementById("findings").replaceChildren(...run.findings.map(({ text, link }) => element("li", {}, text, " ",
    link.view === "overview" ? "" : element("a", { href: hashOf({ ...state, ...pairIn(link.layer), page: 0, unit: null, with: null, ...link }) }, "Show"))));
  document.getElementById("findings-box").hidden = !run.findings.length;
  return showSimilarity(state);
}

/** A net with its accuracy, as far as it is known. */
function netFacts(net, { top1, chance }) {
  const known = top1 !== undefined;
  const bar = known ? element("span", { class: "bar", style: `--part:${top1}`, "aria-hidden": "true" }) : "";
  const text = known ? `${(100 * top1).toFixed(1)}% correct` : "accuracy not measured";
  return element("li", {}, netName(net), bar, element("span", { class: "value" }, text,
    known && chance !== undefined ? element("span", { class: "mark" }, `, the most frequent class ${percent(chance)}`) : ""));
}

/** The pair shown, or another that has the layer. */
function pairIn(layer) {
  if (layersOf(state.a, state.b).includes(layer)) return {};
  const [a, b] = run.pairs.find((pair) => pair in (layerOf(layer)?.pairs || {})).split("-");
  return { a, b };
}

const nameOf = ({ name, of }) => [name, of].filter(Boolean).join(":");

/** Similarities of the run by one way and kind of chance. */
async function showSimilarity(state) {
  const box = document.getElementById("similarity");
  box.hidden = !run.ways.length;
  if (!run.ways.length) return;
  const rows = await load("similarity");
  if (!current(state)) return;
  const chosen = Math.max(0, run.ways.findIndex((way) => nameOf(way) === state.way));
  const nulls = Object.keys(NULLS).filter((null_) => rows[`null_${null_}`]?.data.some((value, row) => rows.way.data[row] === chosen && !Number.isNaN(value)));
  const against = nulls.includes(state.null) ? state.null : nulls[0] || "";
  const select = (id, options, value) => {
    document.getElementById(id).replaceChildren(...options.map(([name, label]) => element("option", { value: name }, label)));
    document.getElementById(id).value = value;
  };
  select("way", run.ways.map((way) => [nameOf(way), way.label]), nameOf(run.ways[chosen]));
  select("null", [...nulls.map((name) => [name, NULLS[name]]), ["none", "nothing: the value itself"]], state.null === "none" ? "none" : against);
  const shown = { rows, way: chosen, higher: run.ways[chosen].higher, against: state.null === "none" ? "" : against };
  const same = cellsOf(shown, (row) => rows.layer_a.data[row] === rows.layer_b.data[row], (row) => [rows.layer_a.data[row], rows.pair.data[row]]);
  const each = [...cellsOf(shown, () => true, (row) => [row]).values()].map(({ excess }) => Math.abs(excess));
  const most = Math.max(1e-9, ...each.filter((size) => !Number.isNaN(size)));
  document.getElementById("similarity-words").textContent = shown.against
    ? `Numbers are the excess over ${NULLS[shown.against]}; blue is more alike than chance, orange less. Colours end at ${digits(most, 2)}.`
    : `Numbers are the values themselves. Colours end at ${digits(most, 2)}.`;
  document.getElementById("similarity-map").replaceChildren(heatMap(same, {
    rows: run.layers.map(({ name }) => name), columns: run.pairs, corner: "Layer", shown, most,
    link: (layer, pair) => ({ view: "curve", layer, a: pair.split("-")[0], b: pair.split("-")[1], unit: null, with: null }),
  }));
  showAllLayers(state, shown, most);
}

/** Means over directions of the rows of a way, by two keys: Map of "i,j" to numbers. */
function cellsOf({ rows, way, higher, against }, chosen, keys) {
  const cells = new Map();
  for (let row = 0; row < rows.way.data.length; row++) {
    if (rows.way.data[row] !== way || !chosen(row)) continue;
    const key = keys(row).join();
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(row);
  }
  for (const [key, found] of cells) {
    const mean = (name) => found.reduce((sum, row) => sum + (rows[name]?.data[row] ?? NaN), 0) / found.length;
    const nulls = Object.keys(NULLS).filter((name) => rows[`null_${name}`])
      .map((name) => ({ words: NULLS[name], mean: mean(`null_${name}`), p: Math.max(...found.map((row) => rows[`p_${name}`]?.data[row] ?? NaN)) }));
    const [value, low, high] = ["value", "low", "high"].map(mean);
    const chance = against ? mean(`null_${against}`) : NaN;
    cells.set(key, { value, low, high, nulls, excess: against ? (value - chance) * (higher ? 1 : -1) : value });
  }
  return cells;
}

/** What a cell says in full. */
function sayCell(words, { value, low, high, nulls, excess }, against) {
  const chance = nulls.filter(({ mean }) => !Number.isNaN(mean))
    .map(({ words: of, mean, p }) => `${of} ${digits(mean, 2)}${Number.isNaN(p) ? "" : ` (p = ${digits(p, 3)})`}`);
  return `${words}: ${withInterval(value, low, high)}${chance.length ? `; by chance ${chance.join(", ")}` : ""}${against ? `; excess ${digits(excess, 2)}` : ""}`;
}

const MOST_WRITTEN = 14;

/** A table of cells coloured by their excess over chance; each links to a view. */
function heatMap(cells, { rows, columns: across, corner, shown, most, link }) {
  const there = rows.map((_, i) => i).filter((i) => across.some((_, j) => cells.has(`${i},${j}`)));
  const written = across.length <= MOST_WRITTEN;
  const readout = document.getElementById("similarity-readout");
  const colors = palette();
  const cellOf = (i, j) => {
    const cell = cells.get(`${i},${j}`);
    if (!cell || Number.isNaN(cell.value)) return element("td", { class: "empty" }, element("span", { class: "hidden" }, "none"));
    const said = sayCell(`${rows[i]}, ${across[j]}`, cell, shown.against);
    const color = Number.isNaN(cell.excess) ? null : colors[Math.round(run.steps * (1 + Math.max(-1, Math.min(1, cell.excess / most))))];
    const target = link && link(rows[i], across[j]);
    const content = element(target ? "a" : "span", {
      href: target && hashOf({ ...state, page: 0, ...target }), title: said, "aria-label": said,
      style: color === null ? null : `background: ${cssOf(color)}; color: ${inkOn(color)}`,
      onpointerenter: () => { readout.textContent = said; }, onfocus: () => { readout.textContent = said; },
    }, written ? digits(cell.excess, 2) : "");
    return element("td", {}, content);
  };
  return element("table", { class: `heat${written ? "" : " dense"}` },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, corner), ...across.map((name) => element("th", { scope: "col" }, element("span", {}, name))))),
    element("tbody", {}, ...there.map((i) => element("tr", {}, element("th", { scope: "row" }, rows[i]), ...across.map((_, j) => cellOf(i, j))))));
}

const channels = (color) => [color & 255, (color >> 8) & 255, (color >> 16) & 255];
const cssOf = (color) => `rgb(${channels(color).join(" ")})`;

/** Black or white, whichever stands out more from a colour. */
function inkOn(color) {
  const [r, g, b] = channels(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

/** Every layer of one net with every layer of the other, where the run has compared them. */
function showAllLayers(state, shown, most) {
  const { rows } = shown;
  const pair = pairOf(state.a, state.b);
  const number = run.pairs.indexOf(pair.name);
  const [down, across] = pair.turned ? ["layer_b", "layer_a"] : ["layer_a", "layer_b"];
  const cells = cellsOf(shown, (row) => rows.pair.data[row] === number, (row) => [rows[down].data[row], rows[across].data[row]]);
  const box = document.getElementById("all-layers");
  box.hidden = ![...cells.keys()].some((key) => key.split(",")[0] !== key.split(",")[1]);
  if (box.hidden) return;
  const names = run.layers.map(({ name }) => name);
  const columns_ = names.map((_, j) => j).filter((j) => [...cells.keys()].some((key) => key.endsWith(`,${j}`)));
  const moved = new Map([...cells].map(([key, cell]) => [`${key.split(",")[0]},${columns_.indexOf(Number(key.split(",")[1]))}`, cell]));
  document.getElementById("all-layers-title").replaceChildren("Layers of ", netName(state.a), " (down) and of ", netName(state.b), " (across)");
  document.getElementById("all-layers-map").replaceChildren(heatMap(moved, {
    rows: names, columns: columns_.map((j) => names[j]), corner: "Layer", shown, most,
    link: (a, b) => (a === b && layersOf(state.a, state.b).includes(a) ? { view: "curve", layer: a, unit: null, with: null } : null),
  }));
}

function wireOverview() {
  for (const id of ["way", "null"]) document.getElementById(id).onchange = (event) => go({ [id]: event.target.value }, { keep: [`#${id}`] });
}
