// A diagram of the model. Each box shows its tensor, its parameters and the lines of code that compute it.

import { el, explain, facts, figure, header, menu, replaceChildren, table } from "./dom.js";
import { located, number } from "./tokens.js";

const BRANCHES = [
  ["ln_1.out", "layernorm", "attn.qkv", "linear", "attn.ctx", "attention", "attn.out", "linear"],
  ["ln_2.out", "layernorm", "mlp.fc", "linear", "mlp.act", "gelu", "mlp.out", "linear"],
];
const SUMS = ["resid_mid", "resid_out"];
const chosen = { layer: 0, box: "emb" };

export const diagram = { name: "Diagram", render };

async function render(inside, show) {
  chosen.layer = Math.min(chosen.layer, inside.layers - 1);
  const detail = el("div", { className: "box-detail" });
  const flow = el("div", { className: "flow", role: "group", "aria-label": "Diagram of the model" });
  const draw = () => replaceChildren(flow, ...boxes(inside, choose, draw));
  draw();
  const drawn = show(
    explain(
      "The line is the residual stream. Each branch reads from it, and + adds the branch's result. " +
        "Choose a box or a + to see what it computes for the selected token.",
    ),
    el("div", { className: "side" }, flow, detail),
  );
  if (drawn) await choose(chosen.box);

  async function choose(box) {
    chosen.box = box;
    for (const node of flow.querySelectorAll("[data-box]")) node.setAttribute("aria-pressed", node.dataset.box === box);
    const position = Math.min(inside.selected, inside.tokens.length - 1);
    const answer = await inside.ask("diagram", { box, position });
    if (chosen.box === box) detail.replaceChildren(...describe(answer, located(inside.tokens, position)));
  }
}

function boxes(inside, choose, draw) {
  const { layers } = inside;
  const button = (box, op, name = box) => {
    const node = el(
      "button",
      { className: "box", dataset: { box }, "aria-pressed": chosen.box === box },
      el("b", {}, name),
      el("small", {}, op),
    );
    node.addEventListener("click", () => inside.attempt(() => choose(box)));
    return node;
  };
  const plus = (box) => {
    const node = button(box, "", "+");
    node.classList.add("sum");
    node.setAttribute("aria-label", `${box}, sum`);
    node.title = box;
    return node;
  };
  const prefix = `h.${chosen.layer}.`;
  const branch = (parts, sum) => {
    const row = el("div", { className: "branch" });
    for (let i = 0; i < parts.length; i += 2) row.append(button(prefix + parts[i], parts[i + 1], parts[i]));
    return [row, plus(prefix + sum)];
  };
  const options = Array.from({ length: layers }, (_, i) => [i, `${i}`]);
  const layer = menu("Layer", options, chosen.layer, (value) => {
    chosen.layer = Number(value);
    if (chosen.box.startsWith("h.")) chosen.box = chosen.box.replace(/^h\.\d+/, `h.${value}`);
    draw();
    inside.attempt(() => choose(chosen.box));
  });
  const block = el("div", { className: "block" }, layer, ...BRANCHES.flatMap((parts, i) => branch(parts, SUMS[i])));
  return [button("emb", "embedding"), block, button("ln_f.out", "layernorm"), button("logits", "unembedding")];
}

function describe({ box, op, shape, values, parameters, source, ...statistics }, token) {
  const numbers = [
    ["shape", `(${shape.join(", ")})`],
    ...["mean", "std", "min", "max"].map((name) => [name, number(statistics[name])]),
  ];
  return [
    el("h3", {}, el("code", {}, box), ` ${op}`),
    facts(numbers),
    el("h4", {}, `First values at ${token}`),
    el("p", { className: "values code" }, values.map(number).join("  ")),
    ...(parameters.length ? [el("h4", {}, "Parameters"), parameterTable(parameters)] : []),
    ...source.flatMap(code),
  ];
}

function parameterTable(parameters) {
  const rows = parameters.map(({ name, shape, mean, std, min, max }) => {
    const cells = [`(${shape.join(", ")})`, ...[mean, std, min, max].map(number)];
    return el("tr", {}, el("th", { scope: "row", className: "code" }, name), ...cells.map(figure));
  });
  return table("", header("", "shape", "mean", "std", "min", "max"), rows);
}

function code({ title, file, line, code }) {
  const lines = code.replace(/\n$/, "").split("\n");
  const pre = el("pre", { tabIndex: 0, role: "group", "aria-label": `${title}, ${file}` });
  lines.forEach((text, i) =>
    pre.append(el("span", { className: "line", "aria-hidden": "true" }, String(line + i)), text + "\n"),
  );
  return [el("h4", {}, title, " ", el("small", {}, `${file}, line ${line}`)), pre];
}
