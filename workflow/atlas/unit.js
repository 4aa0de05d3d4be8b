// One unit: its pictures, its partners in every other net, and its cluster.
"use strict";

const ways = () => [
  ...run.measures.map((measure) => ({ id: measure.name, label: capitalised(measure.label), note: `${axisOf(measure)} (${measure.source})` })),
  { id: "map", label: "Sparse map", note: "weights that predict it together" },
];
const SMALL_ONES = 4;
const MEMBERS = 12;

const netName = (net) => element("span", { class: "net", style: `--net:${run.colors[net]}` }, net);
const netAndUnit = ({ net, number }) => `unit ${number} of ${net}`;

/** A link that shows a unit; its net joins the pair if it is not in it. */
function unitLink(unit, changes, ...content) {
  const next = { ...state, ...changes, unit };
  if (unit.net !== next.a && unit.net !== next.b) Object.assign(next, { a: unit.net, b: state.unit.net, page: 0 });
  return element("a", { href: hashOf(next), "data-unit": `${unit.net}.${unit.number}` }, ...content);
}

const narrow = () => document.getElementById("unit").clientWidth < 450;

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
  const facts = await load(`${layer}/${net}`);
  const others = facing(net, layer);
  // The other net of the pair comes first.
  others.sort((p, q) => [state.a, state.b].includes(q) - [state.a, state.b].includes(p));
  const related = await Promise.all(others.map((other) => relation(layer, net, other)));
  const compared = state.with && state.with.net !== net ? await comparison(state) : null;
  if (!current(state)) return;
  const units = unitsOf(layer, net);
  const dead = facts.dead.data[number] === 1;
  const values = facts.value.data.subarray(9 * number, 9 * number + 9);
  const [field] = facts.receptive_field.data;
  const best = related[0].get(mainMeasure(), "semi_value")[number];
  const step = (by, arrow, words) => {
    const link = unitLink({ net, number: (number + by + units) % units }, { with: null },
      element("span", { "aria-hidden": "true" }, arrow), element("span", { class: "hidden" }, words));
    link.dataset.step = by;
    return link;
  };
  // Pictures with few pixels need less space.
  const pictures = layerOf(layer).nets[net].pictures;
  const side = Math.min(Math.floor((panel.clientWidth - 62) / 2), 290, Math.max(190, pictures ? 18 * pictures.side : 0));

  const described = [
    ["Mean activation", `${facts.mean.data[number].toPrecision(3)}, rank ${facts.rank.data[number]} of ${units}`],
    ["Strongest", dead || Number.isNaN(values[0]) ? "never fires" : values[0].toPrecision(3)],
    ["Receptive field", field ? `${field} × ${field} pixels` : "not measured"],
    ["Match", dead ? "none: it is dead" : `${best >= UNMATCHED ? "matched" : "unmatched"} in ${others[0]} (best correlation ${digits(best, 2)})`],
  ];
  const lowest = facts.weakest_value ? facts.weakest_value.data[9 * number] : NaN;
  if (lowest < 0) described.splice(2, 0, ["Most negative", lowest.toPrecision(3)]);
  const row = (captions) => element("div", { class: "large" }, ...Object.entries(captions).map(
    ([kind, caption]) => element("figure", { style: `width: ${side}px` }, picture(layer, net, number, kind, side), element("figcaption", {}, caption))));
  const shows = Array.from(facts.image.data.subarray(9 * number, 9 * number + 9)).filter((_, rank) => values[rank] > 0);
  if (run.classes.length && shows.length) described.push(["Classes of its images", tally(shows.map((image) => run.classes[run.labels[image]]))]);

  panel.replaceChildren(
    element("div", { class: "unit-head" },
      element("h2", {}, netName(net), ` ${layer}, unit ${number}`),
      element("span", { class: "steps" }, step(-1, "←", "Previous unit"), step(1, "→", "Next unit"))),
    compared || "",
    row({ patches: "What excites it most", deconv: "What it responds to in them (deconvolution)" }),
    lowest < 0 ? row({ "weakest-patches": "What makes it most negative", "weakest-deconv": "What it responds to in them (deconvolution)" }) : "",
    element("dl", { class: "facts" }, ...described.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text)))),
    ...(dead ? [element("p", {}, "A dead unit never changes, so it correlates with nothing.")]
      : others.map((other, n) => partnersIn(state, other, related[n]))),
    dead ? "" : clusterOf(state, others[0], related[0]),
  );
}

/** Count values, the most frequent first: "7 (6), 9 (3)". */
function tally(names) {
  const counts = new Map();
  names.forEach((name) => counts.set(name, (counts.get(name) || 0) + 1));
  return [...counts].sort((p, q) => q[1] - p[1]).map(([name, count]) => `${name} (${count})`).join(", ");
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
  const [loss, weights] = [related.get("map", "loss")[number], related.get("map", "weights")[number]];
  return element("section", { class: "partners", "data-net": other },
    element("h3", {}, "Partners in ", netName(other)),
    element("div", { class: "ways" }, ...partners),
    element("p", { class: "small-print" },
      ...(own < 0 ? ["No partner of its own in the one-to-one matching"] : ["One-to-one: ", unitLink({ net: other, number: own }, { with: null }, `unit ${own}`), ` (${digits(related.get(mainMeasure(), "matching_value")[number])})`]),
      `. ${weights} unit${weights === 1 ? "" : "s"} together predict it with a loss of ${digits(loss)} (0 is perfect, 0.5 is no better than predicting its mean).`));
}

function clusterOf(state, other, related) {
  const { net, number } = state.unit;
  const [mine, theirs] = [related.get("leaf"), related.ofOther("leaf")];
  const leaf = mine[number];
  const members = (of, labels) => {
    const found = counted(labels.length).filter((unit) => labels[unit] === leaf);
    return element("div", { class: "members" }, netName(of), ` ${found.length} unit${found.length === 1 ? "" : "s"}`,
      element("div", { class: "rest" }, ...found.slice(0, MEMBERS).map((unit) => card(state.layer, { net: of, number: unit }, "", netAndUnit({ net: of, number: unit }), 44))),
      found.length > MEMBERS ? element("p", { class: "small-print" }, `and ${found.length - MEMBERS} more`) : null);
  };
  return element("section", { class: "cluster" },
    element("h3", {}, `Cluster ${related.get("cluster")[number]}, leaf ${leaf}`),
    element("p", { class: "small-print" }, `Units of ${net} and ${other} that correlate among themselves (spectral clustering of both nets together). A cluster with units of both is a subspace that both learned.`),
    members(net, mine), members(other, theirs));
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
