// Backward: the gradient of a token's log-probability at every tensor, and gradient times input over the text.

import { el, explain, menu } from "./dom.js";
import { css, sequential, tint } from "./colours.js";
import { choices } from "./choices.js";
import { HeatMap } from "./heatmap.js";
import { legend } from "./legend.js";
import { fromBase64, located, number, quoted, shown } from "./tokens.js";

const ROW = 15; // pixels

export const backward = { name: "Backward", predicts: true, render };

async function render(inside, show, target) {
  const position = inside.position();
  const options = await choices(inside, position);
  const answer = await inside.ask("backward", { position, ...(target !== undefined && { target }) });
  const norms = new Float32Array(fromBase64(answer.norms).buffer);
  const list = [...new Map([...options, answer.target].map((token) => [token.id, quoted(token)]))];
  const detail = el("p", { className: "detail", "aria-live": "polite" });
  const map = heatMap(inside, answer, norms, position + 1, detail);
  const drawn = show(
    explain(
      `The log-probability of ${quoted(answer.target)} after ${located(inside.tokens, position)} is ` +
        `${number(answer.logprob)}. The map shows how strongly it depends on each tensor at each token: the norm of its gradient. ` +
        "The text above shows gradient times input: orange tokens raise the log-probability, blue ones lower it.",
    ),
    el(
      "div",
      { className: "menus" },
      menu("Target", list, answer.target.id, (value) => inside.render(Number(value))),
    ),
    map.element,
    detail,
    legend("least", "largest gradient, on a logarithmic scale", (value) => css(sequential(value))),
  );
  if (!drawn) return;
  const largest = Math.max(...answer.times_input.map(Math.abs)) || 1;
  inside.strip.colour(
    (i) => (answer.times_input[i] ?? 0) / largest,
    tint,
    legend(`Colour: gradient times input, from ${number(-largest)}`, `to ${number(largest)}.`, tint, -1),
  );
  inside.hover = (i) => {
    const value = answer.times_input[i];
    if (value !== undefined)
      detail.textContent = `Gradient times input of ${located(inside.tokens, i)}: ${number(value)}`;
  };
}

function heatMap(inside, { tensors }, norms, T, detail) {
  const logs = norms.map((value) => Math.log(value)); // of 0: -Infinity
  const finite = logs.filter(Number.isFinite);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const low = Math.max(
    finite.reduce((a, b) => Math.min(a, b), Infinity),
    high - Math.log(1e4),
  );
  return new HeatMap({
    rows: tensors.length,
    columns: T,
    rowLabels: tensors,
    columnLabels: inside.tokens.slice(0, T).map(shown),
    rowHeight: ROW,
    label:
      "Gradient of each tensor at each token: a row per tensor, in the order of the forward. " +
      "The arrow keys move over it.",
    colour: (row, column) => sequential((logs[row * T + column] - low) / (high - low || 1)),
    over: (row, column) => {
      const norm = number(norms[row * T + column]);
      detail.textContent = `Gradient at ${tensors[row]}, ${located(inside.tokens, column)}: ${norm}`;
    },
    choose: (row, column) => inside.select(column),
  });
}
