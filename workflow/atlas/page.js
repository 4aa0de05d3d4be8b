// The state of the page is its address: #layer=conv1&a=net1&b=net2&view=curve&unit=net1.5 ...
"use strict";

let state = null;

const current = (asked) => asked === state;
const darkNow = () => getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";

function fault(error) {
  const box = document.getElementById("fault");
  box.hidden = false;
  box.textContent = error.message;
  console.error(error);
}

/** Read the state from an address; missing or invalid parts take their defaults. */
function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const among = (name, values) => (values.includes(given.get(name)) ? given.get(name) : values[0]);
  const a = among("a", run.nets.filter((net) => facing(net).length));
  const b = among("b", facing(a));
  const layer = among("layer", layersOf(a, b));
  const unitFrom = (name) => {
    const [, net, number] = (given.get(name) || "").match(/^(.+)\.(\d+)$/) || [];
    return [a, b].includes(net) && Number(number) < unitsOf(layer, net) ? { net, number: Number(number) } : null;
  };
  const sorts = ["-semi", ...columns().flatMap(({ id }) => [id, `-${id}`])];
  return {
    layer, a, b, view: among("view", ["curve", "matrix", "units", ...(mergingOf(a, b) ? ["merging"] : [])]), unit: unitFrom("unit"), with: unitFrom("with"),
    order: among("order", ["matched", ...Object.keys(ORDERS)]), filter: among("filter", Object.keys(FILTERS)),
    sort: among("sort", sorts), find: given.get("find") || "", page: Number(given.get("page")?.match(/^\d{1,6}$/)) || 0,
  };
}

const DEFAULTS = { view: "curve", order: "matched", filter: "all", sort: "-semi", find: "", page: 0 };

function hashOf(next) {
  const parts = Object.entries(next).filter(([name, value]) => value !== null && value !== DEFAULTS[name]);
  const text = parts.map(([name, value]) => `${name}=${encodeURIComponent(value.net ? `${value.net}.${value.number}` : value)}`);
  return `#${text.join("&")}`;
}

/** Change the state; another selection of units begins at its first page. */
function go(changes, options) {
  visit(hashOf({ ...state, page: changes.unit ? state.page : 0, ...changes }), options);
}

/** Go to an address and, unless `replace`, add it to the history; focus the first element that matches `keep`. */
function visit(next, { replace = false, show = false, keep = [] } = {}) {
  if (replace) history.replaceState(null, "", next);
  else if (next !== location.hash) history.pushState(null, "", next);
  const done = render();
  const asked = state;
  done.then(() => {
    if (!current(asked)) return;
    const panel = document.getElementById("unit");
    if (show) panel.scrollTop = 0;
    if (show && window.matchMedia("(max-width: 60rem)").matches) panel.scrollIntoView();
    keep.map((selector) => document.querySelector(selector)).find(Boolean)?.focus({ preventScroll: true });
  });
}

/** Follow a link to a unit: scroll it into view on a phone, and move the keyboard focus there. */
function follow(link) {
  const row = link.closest("tr");
  const { unit, step } = link.dataset;
  const keep = row ? `#units tr[data-unit="${row.dataset.unit}"] a[data-unit="${unit}"]`
    : step ? `#unit [data-step="${step}"]` : "#unit";
  visit(link.hash, { show: !step, keep: [keep] });
}

async function render() {
  const asked = parse(location.hash);
  state = asked;
  document.getElementById("fault").hidden = true;
  try {
    await choose(asked);
    if (current(asked)) await show();
  } catch (error) {
    fault(error);
  }
}

/** Choose the best matched unit if the address names none. */
async function choose(asked) {
  if (asked.unit) return;
  const related = await relation(asked.layer, asked.a, asked.b);
  asked.unit = { net: asked.a, number: ranked(related.get(mainMeasure(), "semi_value"))[0] };
  if (current(asked)) history.replaceState(null, "", hashOf(asked));
}

function mark(link, chosen) {
  if (chosen) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

async function show() {
  const chosen = `Unit ${state.unit.number} of ${state.unit.net}, ${state.layer}`;
  document.title = `${chosen}: atlas of ${run.run}`;
  document.getElementById("unit").setAttribute("aria-label", chosen);
  document.getElementById("chosen").textContent = chosen;
  document.getElementById("a").value = state.a;
  document.getElementById("b").value = state.b;
  document.querySelectorAll(".net-a").forEach((e) => e.replaceChildren(netName(state.a)));
  document.querySelectorAll(".net-b").forEach((e) => e.replaceChildren(netName(state.b)));
  for (const link of document.querySelectorAll("#layers a")) {
    const layer = link.dataset.layer;
    link.href = hashOf({ ...state, layer, unit: null, with: null, page: 0 });
    mark(link, layer === state.layer);
    const there = layersOf(state.a, state.b).includes(layer);
    link.setAttribute("aria-disabled", !there);
    if (there) link.removeAttribute("title");
    else {
      link.removeAttribute("href");
      link.title = `${state.a} and ${state.b} are not compared in ${layer}`;
    }
    // Not all layers fit on a phone.
    if (layer === state.layer) link.parentNode.scrollLeft = link.offsetLeft - link.parentNode.offsetLeft - 60;
  }
  for (const link of document.querySelectorAll("[data-view]")) {
    link.href = hashOf({ ...state, view: link.dataset.view });
    mark(link, link.dataset.view === state.view);
    if (link.dataset.view === "merging") link.hidden = !mergingOf(state.a, state.b);
    document.getElementById(link.dataset.view).hidden = link.dataset.view !== state.view;
  }
  const views = { curve: showCurve, matrix: showMatrix, units: showTable, merging: showMerging };
  await Promise.all([summarise(state), views[state.view](state), showUnit(state)]);
}

const percent = (share) => `${Math.round(100 * share)}%`;

async function summarise(state) {
  const related = await relation(state.layer, state.a, state.b);
  const facts = await load(`${state.layer}/${state.a}`);
  if (!current(state)) return;
  const pair = pairOf(state.a, state.b);
  const { sentence } = layerOf(state.layer).pairs[pair.name].chance[pair.side] || {};
  const chance = document.getElementById("chance");
  chance.hidden = !sentence;
  // The sentence begins with the layer, which the summary has named.
  chance.textContent = sentence ? `Mean [95% interval] and chance: ${sentence.slice(state.layer.length + 2)}.` : "";
  const all = related.get(mainMeasure(), "semi_value");
  const semi = all.filter((_, unit) => !facts.dead.data[unit]);
  if (!semi.length) return document.getElementById("summary").replaceChildren(element("b", {}, state.layer), `: all ${all.length} units of ${state.a} are dead.`);
  const mean = semi.reduce((sum, value) => sum + value, 0) / semi.length;
  const unmatched = semi.filter((value) => value < UNMATCHED).length / semi.length;
  const dead = all.length - semi.length;
  const paper = run.paper_unmatched[state.layer];
  document.getElementById("summary").replaceChildren(
    element("b", {}, state.layer), `: ${all.length} units of ${state.a}${dead ? ` (${dead} dead, not counted)` : ""}; their best partners in ${state.b} correlate `,
    element("b", {}, digits(mean, 2)), " on average, and ", element("b", {}, percent(unmatched)), ` have none above 0.5${paper ? ` (in the paper's nets ${percent(paper)})` : ""}.`);
}

/** Set the theme: that of the system, light, or dark. */
function theme(choice) {
  const root = document.documentElement;
  if (choice === "auto") delete root.dataset.theme;
  else root.dataset.theme = choice;
  const words = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  document.getElementById("theme").textContent = words[choice];
  try {
    localStorage.setItem("theme", choice);
  } catch {
    // Where files may store nothing, the theme lasts for this visit only.
  }
  if (shown.matrix) paint();
}

function storedTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

async function start() {
  run = await load("run");
  document.getElementById("run").textContent = run.run;
  document.getElementById("paper-unmatched").textContent = Object.entries(run.paper_unmatched)
    .map(([layer, share]) => `${percent(share)} of ${layer}`).join(", ");
  for (const id of ["a", "b"]) {
    document.getElementById(id).append(...run.nets.filter((net) => facing(net).length).map((net) => element("option", { value: net }, net)));
    document.getElementById(id).onchange = (event) => {
      const other = id === "a" ? "b" : "a";
      const net = event.target.value;
      const kept = state[other] === net ? state[id] : state[other];
      // A net that is not compared with the one chosen gives way to one that is.
      go({ [id]: net, [other]: facing(net).includes(kept) ? kept : facing(net)[0], with: null });
    };
  }
  document.getElementById("swap").onclick = () => go({ a: state.b, b: state.a });
  document.getElementById("layers").append(...run.layers.map(({ name }) => element("a", { "data-layer": name }, name)));
  const themes = ["auto", "light", "dark"];
  let choice = themes.includes(storedTheme()) ? storedTheme() : "auto";
  document.getElementById("theme").onclick = () => {
    choice = themes[(themes.indexOf(choice) + 1) % 3];
    theme(choice);
  };
  theme(choice);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(choice));
  for (const link of document.querySelectorAll("[data-skip]")) {
    link.onclick = (event) => {
      event.preventDefault();
      document.getElementById(link.dataset.skip).focus();
    };
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-unit]") || event.target.closest("#units tbody tr")?.querySelector("a[data-unit]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    follow(link);
  });
  wireMatrix();
  wireTable();
  window.addEventListener("hashchange", render);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      render();
    }
  });
  await render();
  document.body.dataset.ready = "";
}

start().catch(fault);
