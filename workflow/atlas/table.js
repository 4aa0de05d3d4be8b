// Table of the units of the first net: sorted by any column, a page at a time.
"use strict";

const columns = () => [
  { id: "unit", label: "Unit", rising: true },
  { id: "semi", label: "Best partner", title: `${capitalised(axisOf(run.measures[0]))}, of the best partner (semi-matching)` },
  { id: "matching", label: "One to one", title: `${capitalised(axisOf(run.measures[0]))}, of its partner when no two units may share (matching)` },
  ...run.measures.slice(1).map((measure) => (
    { id: measure.name, kind: "other", label: capitalised(measure.label), title: `${capitalised(axisOf(measure))}, of its best partner by that measure` })),
  { id: "loss", label: "Map loss", title: "Loss of the sparse map that predicts it from the other net: 0 is perfect, 0.5 is no better than predicting its mean", rising: true },
  { id: "weights", label: "Weights", title: "Units of the other net from which the sparse map predicts it" },
  { id: "cluster", label: "Cluster", title: "Spectral cluster of both nets' units", rising: true },
  { id: "mean", label: "Activation", title: "Mean activation, and its rank among the units" },
];

let tableKey = "";

/** Mark the row of the chosen unit. */
function markRow(state) {
  const number = state.unit.net === state.a ? String(state.unit.number) : null;
  for (const row of document.querySelectorAll("#units tbody tr")) row.classList.toggle("chosen", row.dataset.unit === number);
}

async function showTable(state) {
  const found = await chosenRows(state);
  if (!current(state)) return;
  fillFilters(state, found);
  const { all, rows } = found;
  const key = [found.key, state.page].join();
  if (key === tableKey) return markRow(state);
  const shownColumns = columns();
  const [id, way] = [state.sort.replace("-", ""), state.sort.startsWith("-") ? -1 : 1];
  const head = element("tr", {}, ...shownColumns.map((column) => {
    const sorted = id === column.id;
    const next = sorted ? (way > 0 ? "-" : "") : column.rising ? "" : "-";
    const button = element("button", {
      type: "button", title: column.title, onclick: () => go({ sort: next + column.id }, { keep: [`[data-sort="${column.id}"]`] }), "data-sort": column.id,
    }, column.label, element("span", { "aria-hidden": "true" }, sorted ? (way > 0 ? " ▲" : " ▼") : ""));
    return element("th", { scope: "col", class: `c-${column.kind || column.id}`, "aria-sort": sorted ? (way > 0 ? "ascending" : "descending") : null }, button);
  }));
  document.querySelector("#units thead").replaceChildren(head);
  const others = run.measures.slice(1).map(({ name }) => ({ name, most: Math.max(...all.map((row) => row[name]), 1e-9) }));
  const { first, last, pages } = pageOf(state.page, rows.length);
  const lines = rows.slice(first, last).map((row) => lineOf(state, row, shownColumns, others));
  document.querySelector("#units tbody").replaceChildren(...lines);
  document.getElementById("pages").replaceChildren(...pages("pages", "#units .table-box"));
  tableKey = key;
  markRow(state);
}

/** A row of the table. */
function lineOf(state, row, shownColumns, others) {
  const mine = { net: state.a, number: row.unit };
  const partner = (number, value, text, title = null) => number < 0 ? "none" : element("span", { class: "partner", title },
    unitLink({ net: state.b, number }, { with: null }, String(number)),
    element("span", { class: "value" }, text),
    element("span", { class: "bar", style: `--part:${Math.max(0, value)}`, "aria-hidden": "true" }));
  const interval = Number.isFinite(row.low) ? `${withInterval(row.semi, row.low, row.high)}, ${percent(run.level)} interval` : null;
  const stacked = (text, mark) => element("span", { class: "stacked" }, text, element("span", { class: "mark" }, mark));
  const cells = {
    unit: [picture(state.layer, state.a, row.unit, "patches", 36), stacked(unitLink(mine, { with: null }, String(row.unit)), STATUS[row.status])],
    semi: [row.dead ? "none" : partner(row.partner, row.semi, digits(row.semi), interval), row.shared ? element("span", { class: "mark shared", title: "other units have the same best partner" }, "shared") : ""],
    matching: [row.dead ? "none" : partner(row.own, row.matching, digits(row.matching))],
    ...Object.fromEntries(others.map(({ name, most }) => [name, [row.dead ? "none" : partner(row.others[name], row[name] / most, digits(row[name]))]])),
    loss: [digits(row.loss)], weights: [String(row.weights)], cluster: [String(row.cluster)],
    mean: [stacked(brief(row.mean), `rank ${row.rank}`)],
  };
  return element("tr", { class: row.status, "data-unit": row.unit },
    ...shownColumns.map((column, n) => element(n ? "td" : "th", { class: `c-${column.kind || column.id}`, scope: n ? null : "row" }, ...cells[column.id].filter((c) => c !== ""))));
}
