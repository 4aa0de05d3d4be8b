// The shared core: groups of one unit of each net that are best partners of each other.
"use strict";

async function showCore(state) {
  const { core: nets } = layerOf(state.layer);
  const { unit, weakest, mean, closed } = await load(`${state.layer}/shared/core`);
  if (!current(state)) return;
  const groups = closed.data.length;
  const agreeing = closed.data.reduce((sum, agree) => sum + agree, 0);
  document.getElementById("core-count").textContent = `${plural(groups, "group")}, in ${agreeing} of which all agree`;
  document.querySelector("#core thead").replaceChildren(element("tr", {},
    ...nets.map((net) => element("th", { scope: "col" }, netName(net))),
    element("th", { scope: "col", title: "Lowest correlation of any two of them that are best partners" }, "Weakest"),
    element("th", { scope: "col", title: "Mean correlation of those that are best partners" }, "Mean"),
    element("th", { scope: "col", title: "Whether every two of them are each other's best partners" }, "All agree")));
  const { first, last, pages } = pageOf(state.page, groups);
  const rows = counted(last - first).map((n) => {
    const group = first + n;
    const cells = nets.map((net, place) => {
      const number = unit.data[group * nets.length + place];
      return element("td", {}, card(state.layer, { net, number }, "", netAndUnit({ net, number }), 44));
    });
    return element("tr", {}, ...cells, element("td", {}, digits(weakest.data[group], 2)),
      element("td", {}, digits(mean.data[group], 2)), element("td", {}, closed.data[group] ? "yes" : "no"));
  });
  document.querySelector("#core tbody").replaceChildren(...rows);
  document.getElementById("core-pages").replaceChildren(...pages("core-pages", ".core-box"));
}
