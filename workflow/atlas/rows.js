// The units of the first net of a layer, with their partners in the second: what the gallery and the
// table show, how it is filtered, and how it is sorted.
"use strict";

const FILTERS = {
  all: () => true,
  matched: (row) => row.semi >= unmatchedBelow(),
  unmatched: (row) => !row.dead && row.semi < unmatchedBelow(),
  chance: (row) => row.status === "chance",
  shared: (row) => row.shared,
  mutual: (row) => row.mutual,
  dead: (row) => row.dead,
};
// What a unit is called, from the most to the least that is wrong with it.
const STATUS = { dead: "dead", chance: "at chance", unmatched: "unmatched", matched: "" };

const knownRows = new Map();

/** Rows of all units; those of the last few layers and pairs are kept. */
async function rowsOf({ layer, a, b }) {
  const key = [layer, a, b].join();
  if (!knownRows.has(key)) {
    if (knownRows.size > 3) knownRows.delete(knownRows.keys().next().value);
    knownRows.set(key, await readRows(layer, a, b));
  }
  return knownRows.get(key);
}

async function readRows(layer, a, b) {
  const [related, facts] = await Promise.all([relation(layer, a, b), load(`${layer}/${a}`)]);
  const of = (...names) => related.get(...names);
  const main = mainMeasure();
  const best = of(main, "semi");
  const chance = chanceOfUnits(layer, a, b);
  const sharing = new Map();
  best.forEach((partner) => partner < 0 || sharing.set(partner, (sharing.get(partner) || 0) + 1));
  const others = run.measures.slice(1).map(({ name }) => ({ name, value: of(name, "semi_value"), partner: of(name, "semi") }));
  const [semi, own, matching, mutual] = ["semi_value", "matching", "matching_value", "mutual"].map((name) => of(main, name));
  const [low, high] = ["low", "high"].map((end) => related.maybe(main, end));
  const [loss, weights, cluster] = [of("map", "loss"), of("map", "weights"), of("cluster")];
  return Array.from(best, (partner, unit) => {
    const dead = facts.dead.data[unit] === 1;
    const row = {
      unit, partner, dead, shared: sharing.get(partner) > 1, mutual: mutual[unit] === 1,
      semi: semi[unit], low: low?.[unit], high: high?.[unit], own: own[unit], matching: matching[unit],
      others: {}, loss: loss[unit], weights: weights[unit], cluster: cluster[unit],
      mean: facts.mean.data[unit], rank: facts.rank.data[unit], ...majority(facts, unit),
    };
    for (const { name, value, partner: theirs } of others) [row[name], row.others[name]] = [value[unit], theirs[unit]];
    row.status = dead ? "dead" : chance && row.semi <= chance.level ? "chance"
      : row.semi < unmatchedBelow() ? "unmatched" : "matched";
    return row;
  });
}

/** Class of most of a unit's strongest images, and the share of them. */
function majority(facts, unit) {
  const counts = countClasses(facts, unit);
  if (!counts.length) return { class: "", share: 0 };
  return { class: counts[0][0], share: counts[0][1] / counts.reduce((sum, [, count]) => sum + count, 0) };
}

/** Classes of a unit's strongest images with their numbers, the most frequent first. */
function countClasses(facts, unit) {
  if (!run.classes.length) return [];
  const counts = new Map();
  for (let i = 9 * unit; i < 9 * unit + 9; i++) {
    if (!(facts.value.data[i] > 0)) continue;
    const name = run.classes[run.labels[facts.image.data[i]]];
    counts.set(name, (counts.get(name) || 0) + 1);
  }
  return [...counts].sort((p, q) => q[1] - p[1]);
}

let lastChosen = { key: "" };

/** Rows that the address asks for, in its order: {all, rows}. */
async function chosenRows(state) {
  const key = [state.layer, state.a, state.b, state.filter, state.class, state.sort, state.find].join();
  if (lastChosen.key !== key) lastChosen = { key, ...(await chooseRows(state)) };
  return lastChosen;
}

async function chooseRows(state) {
  const all = await rowsOf(state);
  const [id, way] = [state.sort.replace("-", ""), state.sort.startsWith("-") ? -1 : 1];
  const value = (row) => (Number.isNaN(row[id]) ? Infinity * way : row[id]);
  const rows = all.filter(FILTERS[state.filter])
    .filter((row) => !state.class || row.class === state.class)
    .filter((row) => !state.find || String(row.unit) === state.find)
    .sort((p, q) => (value(p) === value(q) ? p.unit - q.unit : way * (value(p) - value(q))));
  return { all, rows };
}

/** Show in the form what the address asks for, and how many units that is. */
function fillFilters(state, { all, rows }) {
  for (const id of ["filter", "class", "sort", "pictures"]) document.getElementById(id).value = state[id];
  const chance = chanceOfUnits(state.layer, state.a, state.b);
  document.querySelector("#filter [value=chance]").hidden = !chance;
  document.getElementById("filters").dataset.view = state.view;
  const filters = layerOf(state.layer).nets[state.a].pictures?.filters;
  document.getElementById("pictures").parentNode.hidden = state.view !== "gallery" || !filters;
  const find = document.getElementById("find");
  if (document.activeElement !== find) find.value = state.find;
  document.getElementById("count").textContent = `${rows.length} of ${all.length} units`;
  document.getElementById("filter-words").textContent = chance
    ? `At chance: a best correlation of at most ${digits(chance.level, 2)}, which one in twenty units reaches with ${chance.words}.` : "";
}

function wireFilters() {
  const form = document.getElementById("filters");
  form.onsubmit = (event) => event.preventDefault();
  for (const id of ["filter", "class", "sort", "pictures"]) {
    document.getElementById(id).onchange = (event) => go({ [id]: event.target.value });
  }
  document.getElementById("find").oninput = (event) => go({ find: event.target.value.trim() }, { replace: true });
  const classes = document.getElementById("class");
  classes.append(...run.classes.map((name) => element("option", { value: name }, name)));
  classes.parentNode.hidden = !run.classes.length;
}
