// Direct logit attribution: the parts of the difference between the logits of two tokens.

import { el, explain, figure, header, menu, table } from "./dom.js";
import { css, diverging, ink } from "./colours.js";
import { choices } from "./choices.js";
import { legend } from "./legend.js";
import { located, number, quoted } from "./tokens.js";

export const attribution = { name: "Attribution", predicts: true, render };

async function render(inside, show, target, other) {
  const position = inside.position();
  const options = await choices(inside, position);
  const chosen = { position, target: target ?? inside.tokens[position + 1]?.id ?? options[0].id };
  chosen.other = [other, ...options.map(({ id }) => id)].find((id) => id !== undefined && id !== chosen.target);
  const answer = await inside.ask("attribution", chosen);
  const list = [...options, answer.target, answer.other].map((token) => [token.id, quoted(token)]);
  const unique = [...new Map(list)];
  const choose = (...tokens) => inside.render(...tokens.map(Number));
  const sizes = [
    ...answer.heads.flat(),
    ...answer.mlps,
    ...answer.attention_biases,
    ...rest(answer).map(([, value]) => value),
  ];
  const largest = Math.max(...sizes.map(Math.abs)) || 1;
  show(
    explain(
      `After ${located(inside.tokens, position)}, the logit of ${quoted(answer.target)} minus that of ` +
        `${quoted(answer.other)} is ${number(answer.difference)}. ` +
        "It is the sum of these parts: orange raises it, blue lowers it.",
    ),
    el(
      "div",
      { className: "menus" },
      menu("Token", unique, answer.target.id, (value) => choose(value, answer.other.id)),
      menu("against", unique, answer.other.id, (value) => choose(answer.target.id, value)),
    ),
    parts(answer, largest),
    others(answer, largest),
    legend(number(-largest), number(largest), colour, -1),
    explain(answer.note),
  );
}

const colour = (value) => css(diverging(value));

const rest = ({ token_embedding, position_embedding, final_bias }) => [
  ["Token embedding", token_embedding],
  ["Position embedding", position_embedding],
  ["Bias of the final LayerNorm", final_bias],
];

function parts({ heads, mlps, attention_biases }, largest) {
  const names = [...heads[0].map((_, i) => `Head ${i}`), "Attention bias", "MLP"];
  const rows = heads.map((row, i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, `Layer ${i}`),
      ...[...row, attention_biases[i], mlps[i]].map((value) => cell(value, largest)),
    ),
  );
  return table("parts", header("", ...names), rows);
}

// Return a table of the parts that belong to no layer.
function others(answer, largest) {
  const list = rest(answer);
  const names = list.map(([name]) => name);
  return table("parts", header(...names), [el("tr", {}, ...list.map(([, value]) => cell(value, largest)))]);
}

function cell(value, largest) {
  const background = diverging(value / largest);
  const node = figure(value.toFixed(2).replace("-", "−"));
  node.style.backgroundColor = css(background);
  node.style.color = ink(background);
  return node;
}
