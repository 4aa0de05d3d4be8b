// Reads the files in data/. A page opened from the disk may load nothing but scripts, so each script
// calls receive() with an .npz file in base64, or, once, with the description of the run.
"use strict";

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

/** Correlation below which a unit is unmatched, as in section 4 of the paper. */
const unmatchedBelow = () => run.unmatched;
/** The measure by which units are matched and sorted: the first of the run. */
const mainMeasure = () => run.measures[0].name;
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
    pair,
    about: layerOf(layer).pairs[pair.name],
    get: (kind, name) => arrays[`${kind}/${pair.side}${name ? `/${name}` : ""}`].data,
    ofOther: (kind, name) => arrays[`${kind}/${far}${name ? `/${name}` : ""}`].data,
    /** The same if the run has it, otherwise undefined. */
    maybe: (kind, name) => arrays[`${kind}/${pair.side}/${name}`]?.data,
    /** The tree of clusters: {shape, data}, the path of each leaf. */
    tree: arrays.path,
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

/** Samples of the activation of a unit, or null if the run has none: Float32Array. */
async function samplesOf(layer, { net, number }) {
  if (layerOf(layer).nets[net].samples === undefined) return null;
  const file = Math.floor(number / run.units_in_a_file);
  const { sample, low, high } = await load(`${layer}/samples/${net}-${file}`);
  const row = number % run.units_in_a_file;
  const size = sample.shape[1];
  const step = (high.data[row] - low.data[row]) / 255;
  return Float32Array.from(sample.data.subarray(row * size, (row + 1) * size), (level) => low.data[row] + step * level);
}

/** Kind of chance that a unit's best partner is held against: {name, mean, level}, or null. */
function chanceOfUnits(layer, a, b, measure = mainMeasure()) {
  const kinds = layerOf(layer).pairs[pairOf(a, b).name].chance_of_units[measure] || {};
  const name = ["rotation", "images"].find((kind) => kind in kinds);
  return name ? { name, words: NULLS[name], mean: kinds[name][0], level: kinds[name][1] } : null;
}

const NULLS = {
  rotation: "rotated units", images: "shuffled images",
  untrained: "untrained nets", untrained_one: "one untrained net",
};
