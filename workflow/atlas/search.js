// Search for units by their numbers, for classes, images, layers and nets by their names.
"use strict";

async function showSearch(state) {
  document.getElementById("q").value = state.q;
  const text = state.q.trim();
  const nets = run.nets.filter((net) => net in layerOf(state.layer).nets);
  const [units, images] = [unitsAsked(text, state.layer, nets), await imagesAsked(state, text, nets)];
  if (!current(state)) return;
  const has = (name) => text && name.toLowerCase().includes(text.toLowerCase());
  const classes = run.classes.filter(has);
  const layers = run.layers.map(({ name }) => name).filter(has);
  const found = [
    units.length ? element("section", {}, element("h3", {}, `Units of ${state.layer}`),
      element("div", { class: "rest" }, ...units.map((unit) => foundUnit(state, unit, 64)).filter(Boolean))) : null,
    ...images,
    classes.length ? element("section", {}, element("h3", {}, "Classes"), element("p", { class: "small-print" }, `Units of ${state.a} in ${state.layer} that mostly respond to:`),
      element("ul", { class: "found" }, ...classes.map((name) => element("li", {}, element("a", { href: hashOf({ ...state, view: "gallery", class: name, filter: "all", find: "" }) }, name))))) : null,
    layers.length ? element("section", {}, element("h3", {}, "Layers"),
      element("ul", { class: "found" }, ...layers.map((name) => element("li", {}, element("a", { href: hashOf({ ...state, view: "curve", layer: name, unit: null, with: null }) }, name))))) : null,
  ].filter(Boolean);
  const nothing = element("p", {}, text ? `Nothing in ${state.layer} is called ${text}.` : "Type the number of a unit, the name of a class, or the number of an image.");
  document.getElementById("found").replaceChildren(...(found.length ? found : [nothing]));
}

/** Units that a text names: "5", "unit 5", "net1.5". */
function unitsAsked(text, layer, nets) {
  const [, net, number] = text.match(/^(?:unit )?(?:(.+)\.)?(\d+)$/i) || [];
  return number === undefined ? [] : nets.filter((name) => !net || name === net)
    .map((name) => ({ net: name, number: Number(number) }))
    .filter((unit) => unit.number < unitsOf(layer, unit.net));
}

/** A link to a unit of any net, in the gallery; null if the net is compared with none there. */
function foundUnit(state, unit, side) {
  const others = facing(unit.net, state.layer);
  if (!others.length) return null;
  const pair = [state.a, state.b].includes(unit.net) ? {} : { a: unit.net, b: others.includes(state.b) ? state.b : others[0] };
  const next = { ...state, view: "gallery", filter: "all", class: "", find: "", with: null, unit, ...pair };
  return element("a", { href: hashOf(next), "data-unit": `${unit.net}.${unit.number}` },
    element("span", { class: side < 60 ? "card small" : "card" }, picture(state.layer, unit.net, unit.number, "patches", side),
      element("span", { class: "words" }, side < 60 ? String(unit.number) : netAndUnit(unit))));
}

/** The image that a text names, "image 12" or "12", and the units of a layer that it excites most. */
async function imagesAsked(state, text, nets) {
  const { layer } = state;
  const [, number] = text.match(/^(?:image )?(\d+)$/i) || [];
  if (number === undefined) return [];
  const image = Number(number);
  const facts = await Promise.all(nets.map((net) => load(`${layer}/${net}`)));
  const excited = nets.map((net, n) => ({ net, units: unitsExcited(facts[n], image) }));
  const net = nets.find((name) => hasWholes(name));
  if (!excited.some(({ units }) => units.length)) return [];
  const whole = net ? await wholeImage(net, image, 132) : "";
  const name = run.classes.length ? ` (${run.classes[run.labels[image]]})` : "";
  return [element("section", {}, element("h3", {}, `Image ${image}${name}`),
    element("div", { class: "image-found" }, whole, element("div", {}, ...excited.filter(({ units }) => units.length).map(({ net: of, units }) => element("div", { class: "members" },
      netName(of), `: among the nine strongest images of ${plural(units.length, "unit")} of ${layer}`,
      element("div", { class: "rest" }, ...units.slice(0, 40).map((number) => foundUnit(state, { net: of, number }, 44)).filter(Boolean)))))))];
}

/** Units that have an image among their strongest, the most excited first. */
function unitsExcited(facts, image) {
  const found = [];
  facts.image.data.forEach((shown, place) => {
    if (shown === image && facts.value.data[place] > 0) found.push({ unit: Math.floor(place / 9), rank: place % 9 });
  });
  return found.sort((p, q) => p.rank - q.rank || p.unit - q.unit).map(({ unit }) => unit);
}

function wireSearch() {
  document.getElementById("search-form").onsubmit = (event) => {
    event.preventDefault();
    go({ view: "search", q: document.getElementById("q").value.trim() }, { keep: ["#search"] });
  };
}
