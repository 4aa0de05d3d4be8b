// Elements, and numbers as text.
"use strict";

/** Element with attributes and children. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const digits = (value, number = 3) => Number.isNaN(value) ? "none" : value.toFixed(number).replace("-", "−");

/** A number of any size, to three digits. */
const brief = (value) => value.toPrecision(3).replace("-", "−");

const NS = "http://www.w3.org/2000/svg";

/** The same for a drawing. */
function svg(tag, attributes, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${Math.round(100 * share)}%`;
const capitalised = (text) => text[0].toUpperCase() + text.slice(1);
const counted = (number) => Array.from({ length: number }, (_, i) => i);
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

/** A value with the ends of its interval, as far as they are known: "0.82 [0.79, 0.85]". */
function withInterval(value, low, high, number = 2) {
  const known = Number.isFinite(low) && Number.isFinite(high);
  return digits(value, number) + (known ? ` [${digits(low, number)}, ${digits(high, number)}]` : "");
}

/** A canvas of a size in CSS pixels, sharp on any screen, and its context in those pixels. */
function drawing(width, height, attributes = {}) {
  const ratio = window.devicePixelRatio || 1;
  const canvas = element("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio), ...attributes });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { canvas, context };
}

const colors = new Map();

/** Value of a colour of the style sheet in the present theme, for canvases. */
function colorOf(name) {
  const key = `${name} ${darkNow()}`;
  if (!colors.has(key)) {
    const probe = element("span", { style: `color: var(--${name})`, hidden: "" });
    document.body.append(probe);
    colors.set(key, getComputedStyle(probe).color);
    probe.remove();
  }
  return colors.get(key);
}
