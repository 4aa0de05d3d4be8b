// Whole images as a net sees them, with the receptive field of a unit outlined.
"use strict";

/** Whether the run has the whole images that excite units of a net. */
const hasWholes = (net) => run.wholes.nets[net] !== undefined && run.wholes.sheets[run.wholes.nets[net]].images > 0;

/** A whole image, `side` CSS pixels wide; `field` is {top, left, size} of what a unit sees of it. */
async function wholeImage(net, image, side, field = null) {
  const number = run.wholes.nets[net];
  const about = run.wholes.sheets[number];
  const { image: known } = await load(`whole-${number}`);
  const place = known.data.indexOf(image);
  const { canvas, context } = drawing(side, side, { role: "img", "aria-label": `Image ${image}${field ? " with the receptive field outlined" : ""}` });
  if (place < 0) return canvas;
  const sheet = await sheetOf(`pictures/whole-${number}-${Math.floor(place / about.images)}.webp`);
  if (!sheet) {
    context.fillStyle = "#888";
    context.fillText("not in this copy of the atlas", 4, side / 2, side - 8);
    return canvas;
  }
  const [x, y] = [place % about.columns, Math.floor((place % about.images) / about.columns)];
  context.imageSmoothingEnabled = about.view > 32;
  context.imageSmoothingQuality = "high";
  context.drawImage(sheet, x * about.side, y * about.side, about.side, about.side, 0, 0, side, side);
  if (field && field.size) outline(context, field, side / about.view, side);
  return canvas;
}

/** Outline a receptive field in black and white, which stand out from any picture. */
function outline(context, { top, left, size }, scale, side) {
  const [x0, x1, y0, y1] = [left, left + size, top, top + size].map((at) => Math.max(1, Math.min(side - 1, at * scale)));
  for (const [color, width] of [["#000", 3.5], ["#ffd400", 1.75]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}

/** The strongest images of a unit, whole, each with its class and the unit's activation in it. */
function wholeImages(layer, { net, number }, facts) {
  if (!hasWholes(net)) return null;
  const [field] = facts.receptive_field.data;
  const box = element("div", { class: "wholes" });
  return unfolding("whole", "Its images, whole, with the receptive field outlined", box, async () => {
    const shown = [];
    for (let i = 9 * number; i < 9 * number + 9; i++) {
      if (!(facts.value.data[i] > 0)) continue;
      const image = facts.image.data[i];
      const canvas = await wholeImage(net, image, 132, { top: facts.top.data[i], left: facts.left.data[i], size: field });
      const name = run.classes.length ? run.classes[run.labels[image]] : "";
      shown.push(element("figure", {},
        linkTo(() => ({ ...state, view: "search", q: `image ${image}` }), { title: "All units that this image excites" }, canvas),
        element("figcaption", {}, name ? `${name}, ` : "", `image ${image}: `, element("b", {}, brief(facts.value.data[i])))));
    }
    box.replaceChildren(...shown);
  });
}

const unfolded = new Set();

/** Details whose content is made once they are open; they stay open from one unit to the next. */
function unfolding(name, title, box, fill) {
  const details = element("details", { class: "part", "data-part": name }, element("summary", {}, title), box);
  let filled = false;
  const open = () => {
    if (!details.open || filled) return;
    filled = true;
    fill().catch(fault);
  };
  details.addEventListener("toggle", () => {
    unfolded[details.open ? "add" : "delete"](name);
    open();
  });
  if (unfolded.has(name)) {
    details.open = true;
    open();
  }
  return details;
}
