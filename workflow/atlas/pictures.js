// Pictures of units, cut from their sheets.
"use strict";

const KINDS = {
  patches: "image patches", deconv: "deconvolutions", filters: "filter",
  "weakest-patches": "image patches of the most negative activations", "weakest-deconv": "deconvolutions of the most negative activations",
};
// Side up to which the small sheets are sharp enough.
const SMALL = 70;
const sheets = new Map();

/** The sheet at a path; null if this copy of the atlas lacks it, as a release may. */
function sheetOf(path) {
  if (!sheets.has(path)) {
    sheets.set(path, new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => resolve(null);
      image.src = path;
    }));
  }
  return sheets.get(path);
}

/** A canvas with the pictures of a unit, `side` CSS pixels wide, drawn once it is visible. */
function picture(layer, net, unit, kind, side) {
  const label = `${kind === "filters" ? "" : "Nine "}${KINDS[kind]} of unit ${unit} of ${net}`;
  const box = element("span", { class: "picture", role: "img", "aria-label": label });
  box.style.width = box.style.height = `${side}px`;
  draw(box, layer, net, unit, kind, side).catch(fault);
  return box;
}

/** Where the picture of a unit lies: its sheet, and the numbers of its layout. */
function placeOf(about, kind, side) {
  if (kind === "filters") return { ...about.filters, kind, suffix: "png", across: 1 };
  const small = kind === "patches" && side <= SMALL;
  return { ...about, kind, across: 3, ...(small ? about.tiles : {}) };
}

async function draw(box, layer, net, unit, kind, side) {
  const facts = await load(`${layer}/${net}`);
  const place = facts.picture.data[unit];
  const about = layerOf(layer).nets[net].pictures;
  const lacking = place >= 0 && kind.endsWith("deconv") && about.undeconvolved;
  const why = facts.dead.data[unit] && kind !== "filters" ? "dead" : place < 0 ? "no picture" : lacking ? `no deconvolution: ${lacking}` : null;
  const withhold = (reason) => {
    box.setAttribute("aria-label", `Unit ${unit} of ${net}: ${reason}`);
    box.append(element("span", { class: "none" }, side > 50 ? reason : "–"));
  };
  if (why) return withhold(why);
  await seen(box);
  const at = placeOf(about, kind, side);
  const image = await sheetOf(`pictures/${net}/${layer}-${at.kind}-${Math.floor(place / at.units)}.${at.suffix}`);
  if (!image) return withhold(`no ${KINDS[kind]} in this copy of the atlas`);
  const canvas = element("canvas");
  const ratio = window.devicePixelRatio || 1;
  const size = Math.round(side * ratio);
  const gap = side > 100 ? Math.round(2 * ratio) : Math.max(1, Math.round(0.6 * ratio));
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !about.exact;
  context.imageSmoothingQuality = "high";
  const [left, top] = [place % at.columns, Math.floor((place % at.units) / at.columns)];
  const edge = (n) => Math.round(((size + gap) * n) / at.across);
  for (let rank = 0; rank < at.across ** 2; rank++) {
    const [row, column] = [Math.floor(rank / at.across), rank % at.across];
    context.drawImage(
      image,
      (at.across * left + column) * at.side, (at.across * top + row) * at.side, at.side, at.side,
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
