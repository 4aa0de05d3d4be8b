// One unit: its pictures, its partners in every other net, its activations, and its cluster.
"use strict";

const ways = () => [
  ...run.measures.map((measure) => ({ id: measure.name, label: capitalised(measure.label), note: `${axisOf(measure)} (${measure.source})` })),
  { id: "map", label: "Sparse map", note: "weights that predict it together" },
];
const SMALL_ONES = 4;

const netName = (net) => element("span", { class: "net", style: `--net:${run.colors[net]}` }, net);
const netAndUnit = ({ net, number }) => `unit ${number} of ${net}`;

/** A link that shows a unit; its net joins the pair if it is not in it. */
function unitLink(unit, changes, ...content) {
  const next = () => {
    const made = { ...state, ...changes, unit };
    return unit.net === made.a || unit.net === made.b ? made : { ...made, a: unit.net, b: state.unit.net, page: 0 };
  };
  return linkTo(next, { "data-unit": `${unit.net}.${unit.number}` }, ...content);
}

const narrow = () => widths.unit < 450;
// The unit that the panel shows, and all else that it depends on.
let panelKey = "";

function card(layer, unit, value, label, side) {
  const small = side < 60;
  return unitLink(unit, { with: null },
    element("span", { class: small ? "card small" : "card" },
      picture(layer, unit.net, unit.number, "patches", side),
      small ? null : picture(layer, unit.net, unit.number, "deconv", side),
      element("span", { class: "words" }, `${small ? "" : "unit "}${unit.number} `, element("b", {}, value)),
      element("span", { class: "hidden" }, ` ${label}`)));
}

async function showUnit(state) {
  const panel = document.getElementById("unit");
  const { net, number } = state.unit;
  const { layer } = state;
  const key = [layer, state.a, state.b, net, number, state.with?.net, state.with?.number, widths.unit, darkNow()].join();
  if (key === panelKey) return refreshLinks(panel);
  const facts = await load(`${layer}/${net}`);
  // The other net of the pair; what is known of all others stands in one table.
  const other = net === state.a ? state.b : state.a;
  const related = await relation(layer, net, other);
  const training = related.about.training ? await load(`${layer}/training/${related.pair.name}`) : null;
  const compared = state.with && state.with.net !== net ? await comparison(state) : null;
  if (!current(state)) return;
  const dead = facts.dead.data[number] === 1;
  const lowest = facts.weakest_value ? facts.weakest_value.data[9 * number] : NaN;
  const pictures = layerOf(layer).nets[net].pictures;
  // Pictures with few pixels need less space.
  const side = Math.min(Math.floor((widths.unit - 62) / 2), 290, Math.max(190, pictures ? 18 * pictures.side : 0));
  const pictured = dead || facts.picture.data[number] >= 0;
  const row = (captions) => element("div", { class: "large" }, ...Object.entries(captions).map(
    ([kind, caption]) => element("figure", { style: `width: ${side}px` }, picture(layer, net, number, kind, side), element("figcaption", {}, caption))));
  const partner = { net: other, number: related.get(mainMeasure(), "semi")[number] };
  const parts = [
    element("div", { class: "unit-head" },
      element("h2", {}, netName(net), ` ${layer}, unit ${number}`),
      element("span", { class: "steps" }, step(state, -1, "←", "Previous unit"), step(state, 1, "→", "Next unit"))),
    compared,
    !pictured ? element("p", { class: "small-print" }, "This run made no pictures of this unit.") : row({ patches: "What excites it most", deconv: "What it responds to in them (deconvolution)" }),
    pictured && lowest < 0 ? row({ "weakest-patches": "What makes it most negative", "weakest-deconv": "What it responds to in them (deconvolution)" }) : null,
    wholeImages(layer, state.unit, facts),
    factsOf(state, other, related, facts, lowest),
    ...(dead ? [element("p", {}, "A dead unit never changes, so it correlates with nothing.")] : [
      partnersIn(state, other, related),
      partnersInAll(state, facts),
      scatterOf(state, partner),
      networkOf(state, other, related),
      clusterOf(state, other, related),
      training && overTraining(state, other, related, training),
    ]),
    element("p", {}, element("button", { type: "button", id: "download", onclick: () => download(state, other, related, facts) }, "Download the data of this unit (JSON)")),
  ];
  panel.replaceChildren(...parts.filter(Boolean));
  panelKey = key;
}

/** A link to the unit before or after this one. */
function step(state, by, arrow, words) {
  const { net, number } = state.unit;
  const units = unitsOf(state.layer, net);
  const link = unitLink({ net, number: (number + by + units) % units }, { with: null },
    element("span", { "aria-hidden": "true" }, arrow), element("span", { class: "hidden" }, words));
  link.dataset.step = by;
  return link;
}

/** Numbers of a unit, each with what it would be by chance. */
function factsOf(state, other, related, facts, lowest) {
  const { net, number } = state.unit;
  const { layer } = state;
  const dead = facts.dead.data[number] === 1;
  const strongest = facts.value.data[9 * number];
  const [field] = facts.receptive_field.data;
  const counts = countClasses(facts, number);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  const described = [
    ["Mean activation", `${brief(facts.mean.data[number])}, rank ${facts.rank.data[number]} of ${unitsOf(layer, net)}`],
    ["Strongest activation", dead || Number.isNaN(strongest) ? "never fires" : brief(strongest)],
    lowest < 0 && ["Most negative", brief(lowest)],
    ["Receptive field", field ? `${field} × ${field} pixels` : "not measured"],
    counts.length && ["Classes of its images", counts.map(([name, count]) => `${name} (${percent(count / total)})`).join(", ")],
    [`Match in ${other}`, dead ? "none: it is dead" : matchOf(state, other, related), "wide"],
  ].filter(Boolean);
  return element("dl", { class: "facts" }, ...described.map(([name, text, wide]) => element("div", { class: wide }, element("dt", {}, name), element("dd", {}, text))));
}

/** How well a unit is matched, with its interval and beside chance. */
function matchOf(state, other, related) {
  const { net, number } = state.unit;
  const [best, low, high] = ["semi_value", "low", "high"].map((name) => related.maybe(mainMeasure(), name)?.[number]);
  const chance = chanceOfUnits(state.layer, net, other);
  const matched = best >= unmatchedBelow();
  const atChance = chance && best <= chance.level ? `, ${matched ? "but" : "and"} at chance` : "";
  const beside = chance ? `; by chance (${chance.words}) ${digits(chance.mean, 2)} on average, and above ${digits(chance.level, 2)} in one unit of twenty` : "";
  return `${matched ? "matched" : "unmatched"}${atChance}: best correlation ${withInterval(best, low, high)}${beside}`;
}

/** Best partners of the unit in another net, by each measure. */
function partnersIn(state, other, related) {
  const { number } = state.unit;
  const own = related.get(mainMeasure(), "matching")[number];
  const partners = ways().map((way) => {
    const found = related.partners(way.id, number);
    const shown = found.map((p, n) => card(state.layer, { net: other, number: p.unit },
      digits(p.value, n ? 2 : 3), `${way.label}, ${netAndUnit({ net: other, number: p.unit })}`, n ? 44 : narrow() ? 60 : 76));
    const [first, ...rest] = shown;
    return element("div", { class: "way", "data-measure": way.id }, element("h4", { title: way.note }, way.label),
      first || element("p", { class: "none" }, "none"),
      element("div", { class: "rest" }, ...rest.slice(0, SMALL_ONES)),
      rest.length > SMALL_ONES ? element("details", {}, element("summary", {}, `${rest.length - SMALL_ONES} more`),
        element("div", { class: "rest" }, ...rest.slice(SMALL_ONES))) : null);
  });
  return element("section", { class: "partners", "data-net": other },
    element("h3", {}, "Partners in ", netName(other)),
    element("div", { class: "ways" }, ...partners),
    element("p", { class: "small-print" },
      ...(own < 0 ? ["The one-to-one matching leaves it without a partner."] : ["Partner in the one-to-one matching: ", unitLink({ net: other, number: own }, { with: null }, `unit ${own}`), ` (${digits(related.get(mainMeasure(), "matching_value")[number])}).`])));
}

/** Best partners in all other nets, side by side. */
function partnersInAll(state, facts) {
  const { net, number } = state.unit;
  const others = facing(net, state.layer);
  if (others.length < 2) return null;
  const rows = others.map((other) => {
    const place = number * run.nets.length + run.nets.indexOf(other);
    const partner = facts.best.data[place];
    const chance = chanceOfUnits(state.layer, net, other);
    const pair = { a: net, b: other, with: null };
    return element("tr", { "data-in": other }, element("th", { scope: "row" }, linkTo(() => ({ ...state, ...pair }), { title: `Compare ${net} with ${other}` }, netName(other))),
      ...(partner < 0 ? [element("td", { colspan: 4 }, "none")] : [
        element("td", {}, unitLink({ net: other, number: partner }, { ...pair }, picture(state.layer, other, partner, "patches", 36), ` ${partner}`)),
        element("td", {}, digits(facts.best_value.data[place], 2)),
        element("td", {}, chance ? digits(chance.level, 2) : "not known"),
        element("td", {}, facts.mutual.data[place] ? "yes" : "no")]));
  });
  const shared = others.every((other) => facts.mutual.data[number * run.nets.length + run.nets.indexOf(other)]);
  return element("section", { class: "in-all" }, element("h3", {}, "Best partners in all nets"),
    element("div", { class: "table-box plain", tabindex: 0, role: "region", "aria-label": "Best partners in all nets" }, element("table", {}, element("thead", {}, element("tr", {},
      ...["Net", "Partner", capitalised(run.measures[0].label), "Chance (95%)", "Mutual"].map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows))),
    shared ? element("p", { class: "small-print" }, "It has a mutual best partner in every other net: it is in the ", linkTo(() => ({ ...state, view: "core" }), {}, "shared core"), ".") : "");
}

/** The best partner at each epoch that was observed. */
function overTraining(state, other, related, training) {
  const { pair } = related;
  const units = unitsOf(state.layer, state.unit.net);
  const of = (name, row) => training[`${pair.side}/${name}`].data[row * units + state.unit.number];
  const rows = Array.from(training.epoch.data, (epoch, row) => element("tr", {}, element("th", { scope: "row" }, String(Number(epoch.toPrecision(4)))),
    element("td", {}, of("partner", row) < 0 ? "none" : card(state.layer, { net: other, number: of("partner", row) }, digits(of("value", row), 2), `at epoch ${epoch}`, 44))));
  return element("section", { class: "training" }, element("h3", {}, "Best partner over training in ", netName(other)),
    element("p", { class: "small-print" }, "Pictures are those of the trained units."),
    element("div", { class: "table-box plain", tabindex: 0, role: "region", "aria-label": "Best partner over training" }, element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Epoch"), element("th", { scope: "col" }, "Partner"))), element("tbody", {}, ...rows))));
}

/** Save what is known of a unit as a file. */
function download(state, other, related, facts) {
  const { net, number } = state.unit;
  const known = (values) => Array.from(values, (value) => (Number.isNaN(value) ? null : value));
  const of = (name) => known(facts[name].data.subarray(9 * number, 9 * number + 9));
  const row = number * run.nets.length;
  const data = {
    run: run.run, layer: state.layer, net, unit: number,
    mean: facts.mean.data[number], std: facts.std.data[number], rank: facts.rank.data[number], dead: facts.dead.data[number] === 1,
    images: of("image"), values: of("value"), classes: run.classes.length ? of("image").map((image) => run.classes[run.labels[image]]) : [],
    best: Object.fromEntries(facing(net, state.layer).map((name) => [name, {
      partner: facts.best.data[row + run.nets.indexOf(name)], correlation: known([facts.best_value.data[row + run.nets.indexOf(name)]])[0],
      mutual: facts.mutual.data[row + run.nets.indexOf(name)] === 1,
    }])),
    partners: { net: other, ...Object.fromEntries(ways().map(({ id }) => [id, related.partners(id, number)])) },
    interval: ["low", "high"].map((end) => related.maybe(mainMeasure(), end)?.[number] ?? null),
    chance: chanceOfUnits(state.layer, net, other),
    cluster: related.get("cluster")[number], leaf: related.get("leaf")[number],
  };
  const address = URL.createObjectURL(new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }));
  element("a", { href: address, download: `${run.run}-${state.layer}-${net}-${number}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Two units side by side, once a cell of the matrix has been chosen. */
async function comparison(state) {
  const pair = [state.unit, state.with];
  const matrix = await matrixOf(state.layer, state.a, state.b);
  const [row, column] = state.unit.net === state.a ? pair : [...pair].reverse();
  if (row.net !== state.a || column.net !== state.b) return null;
  const value = matrix.data[row.number * matrix.columns + column.number] / run.steps;
  return element("section", { class: "compared", "aria-label": "The chosen cell" },
    ...pair.map((unit) => element("div", {}, element("h3", {}, netName(unit.net)), card(state.layer, unit, "", netAndUnit(unit), narrow() ? 56 : 64))).flatMap(
      (box, n) => n ? [element("span", { class: "versus" }, element("b", {}, digits(value, 2)), run.measures[0].label), box] : [box]));
}
