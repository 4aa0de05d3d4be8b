// Reads the files in data/. A page opened from the disk may load nothing but scripts, so each script
// calls receive() with an .npz file in base64, or, once, with the description of the run.
"use strict";

const UNMATCHED = 0.5; // as in section 4 of the paper
const waiting = new Map();
let run = null;

const broken = (name) => new Error(`data/${name}.js cannot be read: is the folder of the atlas complete? ` +
  "Copy all of it, or make it again by the same snakemake command with -R atlas.");

function receive(name, content) {
  const arrays = typeof content === "string" ? readNpz(fromBase64(content)) : content;
  waiting.get(name).resolve(arrays);
}

/** Arrays of data/<name>.js by name, each {shape, data}; every file is read once. */
function load(name) {
  if (!waiting.has(name)) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      // Has no effect if the script has called receive().
      script.onload = script.onerror = reject;
      document.head.append(script);
    }).catch(() => {
      waiting.delete(name);
      throw broken(name);
    });
    waiting.set(name, entry);
  }
  return waiting.get(name).promise;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** Arrays of an .npz file: a zip of .npy files, found through the directory at its end. */
async function readNpz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - 22;
  const arrays = {};
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [method, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true)];
    const [named, extra, note] = [28, 30, 32].map((o) => view.getUint16(at + o, true));
    const local = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + named));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const packed = bytes.subarray(start, start + size);
    arrays[name.replace(/\.npy$/, "")] = readNpy(method ? await inflate(packed) : packed.slice());
    at += 46 + named + extra + note;
  }
  return arrays;
}

async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const TYPES = { "<f4": Float32Array, "<i4": Int32Array, "|i1": Int8Array, "|u1": Uint8Array };

function readNpy(bytes) {
  const length = new DataView(bytes.buffer).getUint16(8, true);
  const header = new TextDecoder().decode(bytes.subarray(10, 10 + length));
  const type = TYPES[header.match(/'descr': '([^']+)'/)[1]];
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((n) => n.trim()).map(Number);
  return { shape, data: new type(bytes.buffer.slice(10 + length)) };
}

/** The measure by which units are matched and sorted: the first of the run. */
const mainMeasure = () => run.measures[0].name;
const capitalised = (text) => text[0].toUpperCase() + text.slice(1);
const axisOf = ({ label, unit }) => (unit ? `${label}, ${unit}` : label);

const layerOf = (name) => run.layers.find((layer) => layer.name === name);
const unitsOf = (layer, net) => layerOf(layer).nets[net].units;

/** Layers that two nets are compared in; none if they are no pair of the run. */
const layersOf = (a, b) => run.layers.filter(({ pairs }) => pairOf(a, b).name in pairs).map(({ name }) => name);
/** Nets that a net is compared with, in one layer or in any. */
const facing = (net, layer) => run.nets.filter((other) => other !== net &&
  (layer ? layersOf(net, other).includes(layer) : layersOf(net, other).length > 0));

/** A pair is stored once; `side` is the place of the first argument. */
function pairOf(net, other) {
  const turned = !run.pairs.includes(`${net}-${other}`);
  return { name: turned ? `${other}-${net}` : `${net}-${other}`, turned, side: turned ? "b" : "a" };
}

/** Facts that relate the units of a net to those of another: get(mainMeasure(), "semi")[unit]. */
async function relation(layer, net, other) {
  const pair = pairOf(net, other);
  const arrays = await load(`${layer}/${pair.name}`);
  const far = pair.side === "a" ? "b" : "a";
  return {
    get: (kind, name) => arrays[`${kind}/${pair.side}${name ? `/${name}` : ""}`].data,
    ofOther: (kind, name) => arrays[`${kind}/${far}${name ? `/${name}` : ""}`].data,
    /** Best partners of a unit, [{unit, value}, ...]. */
    partners(kind, unit) {
      const { shape, data } = arrays[`${kind}/${pair.side}/partner`];
      const values = arrays[`${kind}/${pair.side}/value`].data;
      const found = [];
      for (let i = unit * shape[1]; i < (unit + 1) * shape[1]; i++) {
        if (data[i] >= 0) found.push({ unit: data[i], value: values[i] });
      }
      return found;
    },
  };
}

const matrices = new Map();

/** Correlations in hundredths, one row for each unit of `a`: {rows, columns, data}. */
function matrixOf(layer, a, b) {
  const key = [layer, a, b].join();
  if (!matrices.has(key)) {
    // Keep only one matrix, since those of large layers are large.
    matrices.clear();
    const read = readMatrix(layer, a, b);
    matrices.set(key, read);
    read.catch(() => matrices.delete(key));
  }
  return matrices.get(key);
}

async function readMatrix(layer, a, b) {
  const pair = pairOf(a, b);
  const [first, second] = pair.name.split("-");
  const [rows, columns] = [unitsOf(layer, first), unitsOf(layer, second)];
  const step = layerOf(layer).pairs[pair.name].rows;
  const data = new Int8Array(rows * columns);
  for (let row = 0; row < rows; row += step) {
    const name = `${layer}/${pair.name}-${row / step}`;
    data.set((await load(name)).correlation.data, row * columns);
    waiting.delete(name);
  }
  if (!pair.turned) return { rows, columns, data };
  const turned = new Int8Array(data.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) turned[j * rows + i] = data[i * columns + j];
  }
  return { rows: columns, columns: rows, data: turned };
}

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
