// The cluster of a unit, as the branch of the tree of clusters in which it lies.
"use strict";

const MEMBERS = 12;

/** Leaves of a layer with their paths and the units of both nets in them. */
function leavesOf(related) {
  const { shape, data } = related.tree;
  const sides = [related.get("leaf"), related.ofOther("leaf")];
  const members = counted(shape[0]).map(() => [[], []]);
  sides.forEach((leaf, side) => leaf.forEach((number, unit) => members[number][side].push(unit)));
  return members.map(([mine, theirs], leaf) => ({
    leaf, mine, theirs, path: Array.from(data.subarray(leaf * shape[1], (leaf + 1) * shape[1])).filter((step) => step >= 0),
  }));
}

function clusterOf(state, other, related) {
  const { net, number } = state.unit;
  const leaf = related.get("leaf")[number];
  const leaves = leavesOf(related);
  const own = leaves[leaf];
  const branch = leaves.filter(({ path }) => path[0] === own.path[0]);
  return element("section", { class: "cluster" },
    element("h3", {}, `Cluster ${related.get("cluster")[number]}, leaf ${leaf}`),
    element("p", { class: "small-print" }, `Units of ${net} and ${other} that correlate among themselves (spectral clustering of both nets together). A cluster with units of both is a subspace that both learned.`),
    branch.length > 1 ? element("ul", { class: "tree" }, node(state, branch, 1, own.leaf, [net, other])) : "",
    members(state.layer, net, own.mine), members(state.layer, other, own.theirs));
}

/** A node of the tree and the branches below it. */
function node(state, leaves, depth, chosen, nets) {
  const [mine, theirs] = ["mine", "theirs"].map((side) => leaves.reduce((sum, each) => sum + each[side].length, 0));
  const bars = [mine, theirs].map((count, n) => element("span", { class: "units-bar", style: `--net: ${run.colors[nets[n]]}; --count: ${count}` }));
  const isLeaf = leaves.length === 1;
  const name = isLeaf ? `leaf ${leaves[0].leaf}` : depth === 1 ? `cluster ${leaves[0].path[0]}` : "branch";
  const first = isLeaf && (leaves[0].mine.length ? { net: nets[0], number: leaves[0].mine[0] } : { net: nets[1], number: leaves[0].theirs[0] });
  const label = first && leaves[0].leaf !== chosen ? unitLink(first, { with: null }, name) : element("span", {}, name);
  const head = element("span", { class: isLeaf && leaves[0].leaf === chosen ? "node here" : "node" }, label,
    element("span", { class: "units-bars", "aria-hidden": "true" }, ...bars), element("span", { class: "mark" }, `${mine} + ${theirs}`));
  if (isLeaf) return element("li", {}, head);
  const groups = new Map();
  for (const each of leaves) {
    const step = each.path[depth] ?? `leaf ${each.leaf}`;
    groups.set(step, [...(groups.get(step) || []), each]);
  }
  return element("li", {}, head, element("ul", {}, ...[...groups.values()].map((below) => node(state, below, depth + 1, chosen, nets))));
}

function members(layer, net, found) {
  return element("div", { class: "members" }, netName(net), ` ${plural(found.length, "unit")}`,
    element("div", { class: "rest" }, ...found.slice(0, MEMBERS).map((number) => card(layer, { net, number }, "", netAndUnit({ net, number }), 44))),
    found.length > MEMBERS ? element("p", { class: "small-print" }, `and ${found.length - MEMBERS} more`) : null);
}
