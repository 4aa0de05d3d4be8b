// Table of all units of the first net, with sorting, filters, search by number, and pages.
"use strict";

const PAGE = 50;
const columns = () => [
  { id: "unit", label: "Unit", rising: true },
  { id: "semi", label: "Best partner", title: `${capitalised(axisOf(run.measures[0]))}, of the best partner (semi-matching)` },
  { id: "matching", label: "One-to-one", title: `${capitalised(axisOf(run.measures[0]))}, of its partner when no two units may share (matching)` },
  ...run.measures.slice(1).map((measure) => (
    { id: measure.name, kind: "other", label: capitalised(measure.label), title: `${capitalised(axisOf(measure))}, of its best partner by that measure` })),
  { id: "loss", label: "Map loss", title: "Loss of the sparse map that predicts it from the other net: 0 is perfect, 0.5 is no better than predicting its mean", rising: true },
  { id: "weights", label: "Weights", title: "Units of the other net from which the sparse map predicts it" },
  { id: "cluster", label: "Cluster", title: "Spectral cluster of both nets' units", rising: true },
  { id: "mean", label: "Activation", title: "Mean activation and its rank" },
];
async function rowsOf(state) {
  const related = await relation(state.layer, state.a, state.b);
  const facts = await load(`${state.layer}/${state.a}`);
  const best = related.get(mainMeasure(), "semi");
  const sharing = new Map();
  best.forEach((partner) => partner < 0 || sharing.set(partner, (sharing.get(partner) || 0) + 1));
  const of = (...names) => related.get(...names);
  return Array.from(best, (partner, unit) => ({
    unit, partner, shared: sharing.get(partner) > 1,
    semi: of(mainMeasure(), "semi_value")[unit],
    own: of(mainMeasure(), "matching")[unit],
    matching: of(mainMeasure(), "matching_value")[unit],
    ...Object.fromEntries(run.measures.slice(1).map(({ name }) => [name, of(name, "semi_value")[unit]])),
    others: Object.fromEntries(run.measures.slice(1).map(({ name }) => [name, of(name, "semi")[unit]])),
    loss: of("map", "loss")[unit], weights: of("map", "weights")[unit],
    cluster: of("cluster")[unit], dead: facts.dead.data[unit] === 1,
    mean: facts.mean.data[unit], rank: facts.rank.data[unit],
  }));
}

const FILTERS = {
  all: () => true,
  unmatched: (row) => !row.dead && row.semi < UNMATCHED,
  matched: (row) => row.semi >= UNMATCHED,
  shared: (row) => row.shared,
  dead: (row) => row.dead,
};

async function showTable(state) {
  const all = await rowsOf(state);
  if (!current(state)) return;
  document.getElementById("filter").value = state.filter;
  const find = document.getElementById("find");
  if (document.activeElement !== find) find.value = state.find;
  const [id, way] = [state.sort.replace("-", ""), state.sort.startsWith("-") ? -1 : 1];
  const value = (row) => (Number.isNaN(row[id]) ? Infinity * way : row[id]);
  const rows = all.filter(FILTERS[state.filter])
    .filter((row) => !state.find || String(row.unit) === state.find)
    .sort((p, q) => (value(p) === value(q) ? p.unit - q.unit : way * (value(p) - value(q))));
  document.getElementById("count").textContent = `${rows.length} of ${all.length} units`;

  const shownColumns = columns();
  const head = element("tr", {}, ...shownColumns.map((column) => {
    const sorted = id === column.id;
    const next = sorted ? (way > 0 ? "-" : "") : column.rising ? "" : "-";
    const button = element("button", {
      type: "button", title: column.title, onclick: () => go({ sort: next + column.id }, { keep: [`[data-sort="${column.id}"]`] }), "data-sort": column.id,
    }, column.label, element("span", { "aria-hidden": "true" }, sorted ? (way > 0 ? " ▲" : " ▼") : ""));
    return element("th", { scope: "col", class: `c-${column.kind || column.id}`, "aria-sort": sorted ? (way > 0 ? "ascending" : "descending") : null }, button);
  }));
  document.querySelector("#units thead").replaceChildren(head);

  const partner = (number, value, text) => number < 0 ? "none" : element("span", { class: "partner" },
    unitLink({ net: state.b, number }, { with: null }, String(number)),
    element("span", { class: "value" }, text),
    element("span", { class: "bar", style: `--part:${Math.max(0, value)}`, "aria-hidden": "true" }));
  const others = run.measures.slice(1).map(({ name }) => ({ name, most: Math.max(...all.map((row) => row[name]), 1e-9) }));
  const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
  const page = Math.min(state.page, last);
  const lines = rows.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
    const mine = { net: state.a, number: row.unit };
    const marks = row.dead ? " dead" : row.semi < UNMATCHED ? " unmatched" : "";
    const cells = {
      unit: [picture(state.layer, state.a, row.unit, "patches", 36), element("span", { class: "named" }, unitLink(mine, { with: null }, String(row.unit)), element("span", { class: "mark" }, marks))],
      semi: [row.dead ? "none" : partner(row.partner, row.semi, digits(row.semi)), row.shared ? element("span", { class: "mark shared", title: "other units have the same best partner" }, "shared") : ""],
      matching: [row.dead ? "none" : partner(row.own, row.matching, digits(row.matching))],
      ...Object.fromEntries(others.map(({ name, most }) => [name, [row.dead ? "none" : partner(row.others[name], row[name] / most, digits(row[name]))]])),
      loss: [digits(row.loss)], weights: [String(row.weights)], cluster: [String(row.cluster)],
      mean: [row.mean.toPrecision(3), element("span", { class: "mark" }, ` ${row.rank}.`)],
    };
    const chosen = state.unit.net === state.a && state.unit.number === row.unit;
    return element("tr", { class: `${chosen ? "chosen" : ""}${marks}`, "data-unit": row.unit },
      ...shownColumns.map((column, n) => element(n ? "td" : "th", { class: `c-${column.kind || column.id}`, scope: n ? null : "row" }, ...cells[column.id].filter((c) => c !== ""))));
  });
  document.querySelector("#units tbody").replaceChildren(...lines);

  const turn = (step, label) => element("button", {
    type: "button", "data-turn": step,
    onclick: () => {
      document.querySelector(".table-box").scrollTop = 0;
      go({ page: page + step }, { keep: [`#pages [data-turn="${step}"]:enabled`, "#pages button:enabled"] });
    },
    ...(page + step < 0 || page + step > last ? { disabled: "" } : {}),
  }, label);
  const pages = last > 0 ? [turn(-1, "← Previous"), `${page * PAGE + 1} to ${Math.min(rows.length, (page + 1) * PAGE)} of ${rows.length}`, turn(1, "Next →")] : [];
  document.getElementById("pages").replaceChildren(...pages);
}

function wireTable() {
  document.getElementById("filters").onsubmit = (event) => event.preventDefault();
  document.getElementById("filter").onchange = (event) => go({ filter: event.target.value });
  document.getElementById("find").oninput = (event) => go({ find: event.target.value.trim() }, { replace: true });
}
