// The page: what all views share, and how the state is shown.
"use strict";

const darkNow = () => getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";

const SHOW = {
  overview: showOverview, gallery: showGallery, map: showMap, curve: showCurve, matrix: showMatrix,
  units: showTable, core: showCore, merging: showMerging, search: showSearch,
};

function mark(link, chosen) {
  if (chosen) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

// Widths in pixels of the two halves of the page. They are read before anything is drawn, since reading
// them afterwards would lay out the page once more.
const widths = { views: 0, unit: 0 };

async function show() {
  const beside = BESIDE_UNIT.includes(state.view);
  document.body.dataset.view = state.view;
  document.body.classList.toggle("alone", !beside);
  for (const id of Object.keys(widths)) widths[id] = document.getElementById(id).clientWidth;
  const chosen = beside ? `Unit ${state.unit.number} of ${state.unit.net}, ${state.layer}` : "";
  document.title = `${chosen ? `${chosen}: ` : ""}atlas of ${run.run}`;
  document.getElementById("unit").setAttribute("aria-label", chosen || "Unit");
  document.getElementById("chosen").textContent = chosen;
  document.getElementById("a").value = state.a;
  document.getElementById("b").value = state.b;
  document.querySelectorAll(".net-a").forEach((e) => e.replaceChildren(netName(state.a)));
  document.querySelectorAll(".net-b").forEach((e) => e.replaceChildren(netName(state.b)));
  showLayers();
  showTabs();
  const parts = [SHOW[state.view](state)];
  if (beside) parts.push(summarise(state), showUnit(state));
  for (const id of ["summary", "chance"]) document.getElementById(id).hidden = !beside;
  await Promise.all(parts);
}

let shownLayer = null;

/** Links to the layers; from a page without a layer they lead to the curve. */
function showLayers() {
  const view = BESIDE_UNIT.includes(state.view) ? state.view : "curve";
  const there = layersOf(state.a, state.b);
  for (const link of document.querySelectorAll("#layers a")) {
    const { layer } = link.dataset;
    const compared = there.includes(layer);
    mark(link, layer === state.layer && BESIDE_UNIT.includes(state.view));
    link.setAttribute("aria-disabled", !compared);
    if (compared) {
      link.removeAttribute("title");
      const to = viewsOf(layer, state.a, state.b).includes(view) ? view : "curve";
      link.href = hashOf({ ...state, layer, view: to, unit: null, with: null, page: 0 });
    } else {
      link.removeAttribute("href");
      link.title = `${state.a} and ${state.b} are not compared in ${layer}`;
    }
    // Not all layers fit on a phone.
    if (layer === state.layer && layer !== shownLayer) link.parentNode.scrollLeft = link.offsetLeft - link.parentNode.offsetLeft - 60;
  }
  shownLayer = state.layer;
}

function showTabs() {
  const there = viewsOf(state.layer, state.a, state.b);
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.localName !== "a") continue;
    const { view } = link.dataset;
    link.href = hashOf({ ...state, view, page: 0 });
    mark(link, view === state.view);
    link.hidden = !there.includes(view) || (view === "search" && state.view !== view);
  }
  for (const section of document.querySelectorAll("#views > section")) section.hidden = section.id !== state.view;
  // The gallery and the table share their filters; moving these takes the keyboard from them.
  const [place, filters] = [document.querySelector(`#${state.view} .filters-here`), document.getElementById("filters")];
  if (place && filters.parentNode !== place) place.append(filters, document.getElementById("count"));
}

async function summarise(state) {
  const related = await relation(state.layer, state.a, state.b);
  const facts = await load(`${state.layer}/${state.a}`);
  if (!current(state)) return;
  const { sentence } = related.about.chance[related.pair.side] || {};
  const chance = document.getElementById("chance");
  chance.hidden = !sentence;
  // The sentence begins with the layer, which the summary has named.
  chance.textContent = sentence ? `Mean [95% interval] and chance: ${sentence.slice(state.layer.length + 2)}.` : "";
  const all = related.get(mainMeasure(), "semi_value");
  const semi = all.filter((_, unit) => !facts.dead.data[unit]);
  if (!semi.length) return document.getElementById("summary").replaceChildren(element("b", {}, state.layer), `: all ${all.length} units of ${state.a} are dead.`);
  const mean = semi.reduce((sum, value) => sum + value, 0) / semi.length;
  const unmatched = semi.filter((value) => value < unmatchedBelow()).length / semi.length;
  const dead = all.length - semi.length;
  const paper = run.paper_unmatched[state.layer];
  document.getElementById("summary").replaceChildren(
    element("b", {}, state.layer), `: ${all.length} units of ${state.a}${dead ? ` (${dead} dead, not counted)` : ""}; their best partners in ${state.b} correlate `,
    element("b", {}, digits(mean, 2)), " on average, and ", element("b", {}, percent(unmatched)), ` have none above ${unmatchedBelow()}${paper ? ` (in the paper's nets ${percent(paper)})` : ""}.`);
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
  if (state) render();
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
  document.title = `Atlas of ${run.run}`;
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
  document.getElementById("home").onclick = (event) => {
    event.preventDefault();
    go({ view: "overview" });
  };
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
  for (const wire of [wireOverview, wireFilters, wireGallery, wireMap, wireCurve, wireMatrix, wireSearch]) wire();
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
