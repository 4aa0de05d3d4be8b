// Activations of two units on sampled images, one against the other.
"use strict";

const SCATTER = { side: 260, margin: 46 };

/** Scatter of the chosen unit against its partner, or any other unit of the two nets. */
function scatterOf(state, partner) {
  const { layer, unit } = state;
  if (layerOf(layer).nets[unit.net].samples === undefined) return null;
  const other = state.with || (partner.number < 0 ? { net: partner.net, number: 0 } : partner);
  const box = element("div", { class: "scatter-box" });
  const net = element("select", { "aria-label": "Net of the other unit" }, ...[state.a, state.b].map((name) => element("option", { value: name }, name)));
  net.value = other.net;
  const number = element("input", { type: "number", min: 0, max: unitsOf(layer, other.net) - 1, value: other.number, "aria-label": "Number of the other unit" });
  const choose = () => go({ with: { net: net.value, number: Math.max(0, Math.min(unitsOf(layer, net.value) - 1, Math.round(Number(number.value)) || 0)) } });
  net.onchange = number.onchange = choose;
  const form = element("form", { class: "tools", onsubmit: (event) => { event.preventDefault(); choose(); } },
    element("span", {}, "Against unit"), number, element("span", {}, "of"), net,
    state.with ? element("button", { type: "button", onclick: () => go({ with: null }) }, "Best partner") : "");
  drawScatter(box, layer, unit, other).catch(fault);
  return element("section", { class: "scatter" }, element("h3", {}, "Activations on sampled images"), form, box);
}

async function drawScatter(box, layer, unit, other) {
  const { nets } = layerOf(layer);
  if (nets[unit.net].samples !== nets[other.net].samples) {
    box.replaceChildren(element("p", { class: "small-print" }, "The two nets were not sampled at the same places, as their maps have other sizes."));
    return;
  }
  const [x, y] = await Promise.all([unit, other].map((each) => samplesOf(layer, each)));
  const { side, margin } = SCATTER;
  const { canvas, context } = drawing(side, side, { role: "img" });
  const r = pearson(x, y);
  canvas.setAttribute("aria-label", `${netAndUnit(unit)} across, ${netAndUnit(other)} up, at ${x.length} samples`);
  const ends = [x, y].map((values) => [Math.min(0, ...values), Math.max(1e-9, ...values)]);
  const at = (value, axis) => margin + ((value - ends[axis][0]) / (ends[axis][1] - ends[axis][0])) * (side - margin - 10);
  context.fillStyle = colorOf("soft");
  context.strokeStyle = colorOf("line");
  context.strokeRect(margin - 4.5, 6.5, side - margin - 2, side - margin - 2);
  context.font = "11px system-ui, sans-serif";
  ends.forEach(([low, high], axis) => [low, high].forEach((value, end) => {
    const text = Number(value.toPrecision(2)).toString().replace("-", "−");
    context.textAlign = axis ? "right" : end ? "right" : "left";
    if (axis) context.fillText(text, margin - 8, end ? 16 : side - margin + 3);
    else context.fillText(text, end ? side - 6 : margin - 4, side - margin + 18);
  }));
  context.fillStyle = colorOf("accent");
  context.globalAlpha = 0.45;
  for (let i = 0; i < x.length; i++) {
    context.beginPath();
    context.arc(at(x[i], 0), side - at(y[i], 1), 2.2, 0, 2 * Math.PI);
    context.fill();
  }
  box.replaceChildren(canvas, element("p", { class: "small-print" }, "Across: ", netAndUnit(unit), element("br"), "Up: ", netAndUnit(other), element("br"),
    `Correlation of these ${x.length} samples: `, element("b", {}, digits(r, 2)), ", one of many draws from all positions of all images."));
}

/** Correlation of two arrays; 0 if one of them never varies. */
function pearson(x, y) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  let [xx, yy, xy] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    xx += (x[i] - mx) ** 2;
    yy += (y[i] - my) ** 2;
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xx && yy ? xy / Math.sqrt(xx * yy) : 0;
}
