// The sparse map of a unit as a small graph: the units of another net that predict it, with the signs
// and sizes of their weights.
"use strict";

const NETWORK = { row: 50, wide: 170 };

function networkOf(state, other, related) {
  const { unit, layer } = state;
  const sources = related.partners("map", unit.number);
  const [loss, weights] = [related.get("map", "loss")[unit.number], related.get("map", "weights")[unit.number]];
  const height = Math.max(1, sources.length) * NETWORK.row;
  const most = Math.max(1e-9, ...sources.map(({ value }) => Math.abs(value)));
  const lines = svg("svg", { width: NETWORK.wide, height, viewBox: `0 0 ${NETWORK.wide} ${height}`, "aria-hidden": "true" },
    ...sources.flatMap(({ value }, n) => {
      const y = (n + 0.5) * NETWORK.row;
      const middle = NETWORK.wide / 2;
      return [
        svg("path", {
          class: value < 0 ? "edge negative" : "edge", "stroke-width": 1 + 6 * Math.abs(value) / most,
          d: `M 0 ${y} C ${middle} ${y} ${middle} ${height / 2} ${NETWORK.wide} ${height / 2}`,
        }),
        svg("text", { class: "weight", x: 8, y: y - 8 }, `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`),
      ];
    }));
  const drawn = element("div", { class: "network" },
    element("div", { class: "sources" }, ...sources.map(({ unit: number, value }) => element("div", { class: "source" },
      card(layer, { net: other, number }, "", `${netAndUnit({ net: other, number })}, weight ${digits(value, 2)}`, 34)))),
    lines, element("div", { class: "target" }, picture(layer, unit.net, unit.number, "patches", 64), element("span", { class: "small-print" }, `unit ${unit.number}`)));
  return element("section", { class: "map" }, element("h3", {}, "Predicted by a few units of ", netName(other), " (sparse map)"),
    sources.length ? drawn : element("p", { class: "none" }, "No unit has a weight."),
    element("p", { class: "small-print" }, `${plural(weights, "unit")} together predict it with a loss of ${digits(loss)} (0 is perfect, 0.5 is no better than predicting its mean)`,
      sources.length < weights ? `; the ${sources.length} with the largest weights are shown.` : ".",
      sources.some(({ value }) => value < 0) ? " Dashed: negative weights." : ""));
}
