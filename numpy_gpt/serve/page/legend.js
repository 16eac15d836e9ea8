// Colour bars that show the meaning of the colours of data.

import { el } from "./dom.js";

const STEPS = 10;

// Return a bar between the words for its ends: from the colour of a value, 0 or -1, to that of 1. scale(value) returns
// a CSS colour.
export function legend(low, high, scale, from = 0) {
  const bar = el("span", { className: "ramp", "aria-hidden": "true" });
  for (let i = 0; i <= STEPS; i++) {
    const step = el("i");
    step.style.backgroundColor = scale(from + ((1 - from) * i) / STEPS);
    bar.append(step);
  }
  return el("p", { className: "legend note" }, low, " ", bar, high);
}
