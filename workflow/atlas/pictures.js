// Pictures of units, cut from their sheets.
"use strict";

const KINDS = {
  patches: "image patches", deconv: "deconvolutions",
  "weakest-patches": "image patches of the most negative activations", "weakest-deconv": "deconvolutions of the most negative activations",
};
const sheets = new Map();

function sheetOf(path) {
  if (!sheets.has(path)) {
    sheets.set(path, new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error(`${path} cannot be read: is the folder of the atlas complete?`));
      image.src = path;
    }));
  }
  return sheets.get(path);
}

/** A canvas with the nine pictures of a unit, `side` CSS pixels wide, drawn once it is visible. */
function picture(layer, net, unit, kind, side) {
  const label = `Nine ${KINDS[kind]} of unit ${unit} of ${net}`;
  const box = element("span", { class: "picture", role: "img", "aria-label": label });
  box.style.width = box.style.height = `${side}px`;
  draw(box, layer, net, unit, kind, side).catch(fault);
  return box;
}

async function draw(box, layer, net, unit, kind, side) {
  const facts = await load(`${layer}/${net}`);
  const place = facts.picture.data[unit];
  const about = layerOf(layer).nets[net].pictures;
  const fault = place >= 0 && kind.endsWith("deconv") && about.undeconvolved;
  const why = facts.dead.data[unit] ? "dead" : place < 0 ? "no picture" : fault ? `no deconvolution: ${fault}` : null;
  if (why) {
    box.setAttribute("aria-label", `Unit ${unit} of ${net}: ${why}`);
    box.append(element("span", { class: "none" }, side > 50 ? why : "–"));
    return;
  }
  await seen(box);
  const number = Math.floor(place / about.units);
  const image = await sheetOf(`pictures/${net}/${layer}-${kind}-${number}.${about.suffix}`);
  const canvas = element("canvas");
  const ratio = window.devicePixelRatio || 1;
  const size = Math.round(side * ratio);
  const gap = side > 100 ? Math.round(2 * ratio) : Math.max(1, Math.round(0.6 * ratio));
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !about.exact;
  context.imageSmoothingQuality = "high";
  const [left, top] = [place % about.columns, Math.floor((place % about.units) / about.columns)];
  const edge = (n) => Math.round(((size + gap) * n) / 3);
  for (let rank = 0; rank < 9; rank++) {
    const [row, column] = [Math.floor(rank / 3), rank % 3];
    context.drawImage(
      image,
      (3 * left + column) * about.side, (3 * top + row) * about.side, about.side, about.side,
      edge(column), edge(row), edge(column + 1) - gap - edge(column), edge(row + 1) - gap - edge(row),
    );
  }
  box.replaceChildren(canvas);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      entry.target.dispatchEvent(new Event("seen"));
    }
  }
}, { rootMargin: "200px" });

function seen(box) {
  return new Promise((resolve) => {
    box.addEventListener("seen", resolve, { once: true });
    watcher.observe(box);
  });
}
