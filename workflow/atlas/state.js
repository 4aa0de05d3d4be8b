// The state of the page is its address: #layer=conv1&a=net1&b=net2&view=curve&unit=net1.5 ...
"use strict";

let state = null;
// Settles once what was asked for last is shown.
let rendering = null;

const current = (asked) => asked === state;

const VIEWS = ["overview", "gallery", "map", "curve", "matrix", "units", "core", "merging", "search"];
// Views beside which the chosen unit is shown.
const BESIDE_UNIT = ["gallery", "map", "curve", "matrix", "units", "core", "merging"];
const DEFAULTS = {
  view: "curve", order: "matched", filter: "all", sort: "-semi", find: "", page: 0,
  class: "", pictures: "patches", way: "", null: "", q: "",
};

/** Views that there are for two nets in a layer. */
function viewsOf(layer, a, b) {
  const about = layerOf(layer);
  const there = { map: about.pairs[pairOf(a, b).name].plane, core: about.core.length > 0, merging: Boolean(mergingOf(a, b)) };
  return VIEWS.filter((view) => there[view] ?? true);
}

/** Read the state from an address; `missing` says what the address names and the run lacks. */
function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const missing = [];
  const among = (name, values, fault) => {
    const value = given.get(name);
    if (values.includes(value)) return value;
    if (value !== null && fault) missing.push(fault(value));
    return values[0];
  };
  const noNet = (net) => `This run has no net ${net} to compare.`;
  const compared = run.nets.filter((net) => facing(net).length);
  const a = among("a", compared, noNet);
  const b = among("b", facing(a), (net) => (compared.includes(net) ? `${a} is not compared with ${net}.` : noNet(net)));
  const layer = among("layer", layersOf(a, b), (name) => (layerOf(name)
    ? `${a} and ${b} are not compared in ${name}.` : `This run has no layer ${name}.`));
  const view = hash.length > 1 ? among("view", ["curve", ...viewsOf(layer, a, b)], (name) => (VIEWS.includes(name)
    ? `There is no view ${name} of ${layer} in ${a} and ${b}.` : `There is no view ${name}.`)) : "overview";
  const unitFrom = (name) => {
    const [, net, number] = (given.get(name) || "").match(/^(.+)\.(\d+)$/) || [];
    if (!net || (given.has("layer") && given.get("layer") !== layer)) return null;
    if (![a, b].includes(net)) missing.push(run.nets.includes(net) ? `${net} is not one of the two nets.` : noNet(net));
    else if (Number(number) < unitsOf(layer, net)) return { net, number: Number(number) };
    else missing.push(`Unit ${number} of ${net} is not in this run: ${layer} has units 0 to ${unitsOf(layer, net) - 1}.`);
    return null;
  };
  const sorts = ["-semi", ...columns().flatMap(({ id }) => [id, `-${id}`])];
  return {
    layer, a, b, view, unit: unitFrom("unit"), with: unitFrom("with"),
    order: among("order", ["matched", ...Object.keys(ORDERS)]), filter: among("filter", Object.keys(FILTERS)),
    sort: among("sort", sorts), find: given.get("find") || "", page: Number(given.get("page")?.match(/^\d{1,6}$/)) || 0,
    class: among("class", ["", ...run.classes]), pictures: among("pictures", ["patches", "filters"]),
    way: given.get("way") || "", null: given.get("null") || "", q: given.get("q") || "",
    missing: [...new Set(missing)],
  };
}

/** The address of a state. */
function hashOf(next) {
  const parts = Object.entries(next).filter(([name, value]) => name !== "missing" && value !== null && value !== DEFAULTS[name]);
  const text = parts.map(([name, value]) => `${name}=${encodeURIComponent(value.net ? `${value.net}.${value.number}` : value)}`);
  return `#${text.join("&")}`;
}

/** A link to a state, which `make` derives from the one shown. It can follow changes of that, see refreshLinks. */
function linkTo(make, attributes, ...content) {
  const made = element("a", attributes, ...content);
  made.follow = () => { made.href = hashOf(make()); };
  made.follow();
  return made;
}

/** Let the links in a part of the page, which stays as it is, lead on from the present state. */
function refreshLinks(part) {
  for (const link of part.querySelectorAll("a")) link.follow?.();
}

/** Change the state; another selection of units begins at its first page. */
function go(changes, options) {
  const next = { ...state, page: changes.unit ? state.page : 0, ...changes };
  for (const name of ["unit", "with"]) if (next[name] && ![next.a, next.b].includes(next[name].net)) next[name] = null;
  visit(hashOf(next), options);
}

/** Go to an address and, unless `replace`, add it to the history; focus the first element that matches `keep`. */
function visit(next, { replace = false, show = false, keep = [] } = {}) {
  if (replace) history.replaceState(null, "", next);
  else if (next !== location.hash) history.pushState(null, "", next);
  rendering = render();
  const asked = state;
  rendering.then(() => {
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
  const keep = row && row.dataset.unit ? `#units tr[data-unit="${row.dataset.unit}"] a[data-unit="${unit}"]`
    : step ? `#unit [data-step="${step}"]`
      : link.closest("#gallery") ? `#gallery a[data-unit="${unit}"]` : "#unit";
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
  const notice = document.getElementById("notice");
  notice.hidden = !asked.missing.length;
  notice.textContent = asked.missing.join(" ");
  if (asked.unit || !BESIDE_UNIT.includes(asked.view)) return;
  const related = await relation(asked.layer, asked.a, asked.b);
  asked.unit = { net: asked.a, number: ranked(related.get(mainMeasure(), "semi_value"))[0] };
  if (asked.missing.length) notice.textContent += ` Instead this is unit ${asked.unit.number} of ${asked.a} in ${asked.layer}.`;
  if (current(asked)) history.replaceState(null, "", hashOf(asked));
}

/** Say what went wrong, above the views. */
function fault(error) {
  const box = document.getElementById("fault");
  box.hidden = false;
  box.textContent = error.message;
  console.error(error);
}
