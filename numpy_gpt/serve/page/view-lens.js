// Logit lens: the prediction after each layer, and the norms of the residual stream.

import { el, explain, figure, table } from "./dom.js";
import { blueTint } from "./colours.js";
import { located, number, percent, quoted, shown } from "./tokens.js";

export const lens = { name: "Logit lens", predicts: true, render };

async function render(inside, show) {
  const position = inside.position();
  const answer = await inside.ask("lens", { positions: [position] });
  const [{ best, of_final, settled, norms }] = answer.positions;
  const largest = Math.max(...norms);
  const rows = answer.layers.map((name, i) =>
    el(
      "tr",
      { className: i === settled ? "settled" : "" },
      el("th", { scope: "row" }, layerName(name)),
      ...best[i].map(prediction),
      figure(percent(of_final[i])),
      norm(norms[i], largest),
    ),
  );
  const final = best.at(-1)[0].token;
  const where = layerName(answer.layers[settled]).toLowerCase();
  show(
    explain(
      `The final LayerNorm and the unembedding, applied after every layer, show what the model would predict after ` +
        `${located(inside.tokens, position)}. From ${where} on, the best token is ${quoted(final)}.`,
    ),
    table("lens", head(final, best[0].length), rows),
  );
}

const layerName = (name) => (name === "embedding" ? "Embedding" : `Layer ${name}`);

function head(final, n) {
  const cells = [el("td"), el("th", { scope: "colgroup", colSpan: n }, "Best tokens, with their probability")];
  cells.push(
    el("th", { scope: "col" }, `Probability of ${quoted(final)}`),
    el("th", { scope: "col" }, "Norm of the residual stream"),
  );
  return el("tr", {}, ...cells);
}

function prediction({ token, probability }) {
  const cell = el("td", { className: "code", title: `id ${token.id}, ${percent(probability)}` }, shown(token));
  cell.append(el("small", {}, percent(probability)));
  cell.style.backgroundColor = blueTint(probability);
  return cell;
}

function norm(value, largest) {
  const bar = el("i", { className: "after" });
  bar.style.width = `${(8 * value) / largest}rem`;
  return el("td", { className: "track norm" }, bar, el("span", { className: "figure" }, number(value)));
}
