// Pages of long tables.
"use strict";

const PAGE = 50;

/** Rows of a page of `total`: {first, last, pages}, where pages(id, box) makes its buttons. */
function pageOf(asked, total) {
  const end = Math.max(0, Math.ceil(total / PAGE) - 1);
  const page = Math.min(asked, end);
  const [first, last] = [page * PAGE, Math.min(total, (page + 1) * PAGE)];
  const turn = (id, box, step, label) => element("button", {
    type: "button", "data-turn": step,
    onclick: () => {
      document.querySelector(box).scrollTop = 0;
      go({ page: page + step }, { keep: [`#${id} [data-turn="${step}"]:enabled`, `#${id} button:enabled`] });
    },
    ...(page + step < 0 || page + step > end ? { disabled: "" } : {}),
  }, label);
  const pages = (id, box) => (end > 0
    ? [turn(id, box, -1, "← Previous"), `${first + 1} to ${last} of ${total}`, turn(id, box, 1, "Next →")] : []);
  return { first, last, pages };
}
