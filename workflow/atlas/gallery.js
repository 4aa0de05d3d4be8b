// All units of a layer as tiles. Only those in view are on the page, so that thousands scroll smoothly.
"use strict";

const TILE = { width: 84, height: 104, picture: 64 };
const gallery = { rows: [], across: 1, layer: "", net: "", pictures: "patches", tiles: new Map(), key: "" };

async function showGallery(state) {
  const found = await chosenRows(state);
  if (!current(state)) return;
  fillFilters(state, found);
  const box = document.getElementById("tiles");
  const key = [state.layer, state.a, state.b, state.filter, state.class, state.sort, state.find].join();
  const pictures = layerOf(state.layer).nets[state.a].pictures?.filters ? state.pictures : "patches";
  const across = Math.max(1, Math.floor((box.clientWidth - 4) / TILE.width));
  if (gallery.key !== key) box.scrollTop = 0;
  if (gallery.key !== key || gallery.pictures !== pictures || gallery.across !== across) {
    gallery.tiles.forEach((tile) => tile.remove());
    gallery.tiles.clear();
  }
  Object.assign(gallery, { key, across, rows: found.rows, layer: state.layer, net: state.a, pictures });
  layTiles();
  for (const tile of gallery.tiles.values()) tile.classList.toggle("chosen", isChosen(gallery.rows[tile.dataset.place]));
}

/** Put the tiles that are in view on the page, and take the others off it. */
function layTiles() {
  const box = document.getElementById("tiles");
  const { rows, tiles } = gallery;
  const lines = Math.ceil(rows.length / gallery.across);
  const space = document.getElementById("tiles-space");
  space.style.height = `${lines * TILE.height}px`;
  const first = Math.max(0, Math.floor(box.scrollTop / TILE.height) - 1) * gallery.across;
  const last = Math.min(rows.length, (Math.ceil((box.scrollTop + box.clientHeight) / TILE.height) + 1) * gallery.across);
  for (const [place, tile] of tiles) {
    if (place >= first && place < last) continue;
    tile.remove();
    tiles.delete(place);
  }
  // In their order, which is also that of the keyboard.
  let before = null;
  for (let place = last - 1; place >= first; place--) {
    if (!tiles.has(place)) {
      tiles.set(place, tileOf(rows[place], place));
      space.insertBefore(tiles.get(place), before);
    }
    before = tiles.get(place);
  }
}

const isChosen = (row) => state.unit.net === gallery.net && state.unit.number === row.unit;

function tileOf(row, place) {
  const unit = { net: gallery.net, number: row.unit };
  const words = [`unit ${row.unit}`, row.dead ? "" : `best correlation ${digits(row.semi, 2)}`, STATUS[row.status], row.class && `mostly ${row.class}`];
  const tile = unitLink(unit, { with: null },
    picture(gallery.layer, unit.net, row.unit, gallery.pictures, TILE.picture),
    element("span", { class: "words", "aria-hidden": "true" }, `${row.unit} `, element("b", {}, row.dead ? "dead" : digits(row.semi, 2))),
    element("span", { class: "hidden" }, words.filter(Boolean).join(", ")));
  tile.className = `tile ${row.status}${isChosen(row) ? " chosen" : ""}`;
  tile.title = words.filter(Boolean).join(", ");
  tile.style.left = `${(place % gallery.across) * TILE.width}px`;
  tile.style.top = `${Math.floor(place / gallery.across) * TILE.height}px`;
  tile.dataset.place = place;
  return tile;
}

function wireGallery() {
  const box = document.getElementById("tiles");
  let asked = false;
  box.addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      layTiles();
    });
  }, { passive: true });
  box.addEventListener("keydown", (event) => {
    const from = Number(document.activeElement.dataset.place);
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: gallery.across, ArrowUp: -gallery.across, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || Number.isNaN(from) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(gallery.rows.length - 1, from + moves[event.key]));
    const top = Math.floor(to / gallery.across) * TILE.height;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + TILE.height > box.scrollTop + box.clientHeight) box.scrollTop = top + TILE.height - box.clientHeight;
    layTiles();
    gallery.tiles.get(to).focus({ preventScroll: true });
  });
}
