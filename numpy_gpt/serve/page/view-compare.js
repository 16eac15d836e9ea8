// The difference between NumPy and PyTorch at each tensor, for this text.

import { el, explain, figure, header, scroller, svg, table } from "./dom.js";

const [LEFT, TOP, STEP, HEIGHT, BELOW] = [56, 12, 14, 220, 110]; // pixels
const FLOOR = 1e-9; // the smallest difference that is drawn at its place

export const compare = { name: "NumPy and PyTorch", render };

async function render(inside, show) {
  const { tensors, differences, dtype, device } = await inside.ask("compare");
  const largest = Math.max(...differences);
  const where = tensors[differences.indexOf(largest)];
  show(
    explain(
      `The same text through both packages, PyTorch in ${dtype} on ${device}: ` +
        `‖PyTorch − NumPy‖ / ‖NumPy‖ of each tensor. ` +
        `The largest is ${largest.toExponential(1)}, at ${where}.`,
    ),
    scroller("Chart", chart(tensors, differences)),
    el("details", {}, el("summary", {}, "As a table"), rows(tensors, differences)),
  );
}

function chart(tensors, differences) {
  const logs = differences.map((value) => Math.log10(Math.max(value, FLOOR)));
  const low = Math.floor(Math.min(...logs));
  const high = Math.max(low + 1, Math.ceil(Math.max(...logs)));
  const width = LEFT + tensors.length * STEP + 20;
  const y = (log) => TOP + ((high - log) / (high - low)) * HEIGHT;
  const picture = svg("svg", {
    class: "chart",
    width,
    height: TOP + HEIGHT + BELOW,
    role: "img",
    "aria-label": "Difference of each tensor on a logarithmic scale",
  });
  for (let power = low; power <= high; power++) {
    picture.append(svg("line", { x1: LEFT, x2: width, y1: y(power), y2: y(power), class: "rule" }));
    const label = 10 ** power === FLOOR ? `≤ ${FLOOR}` : `1e${power}`;
    picture.append(svg("text", { x: LEFT - 8, y: y(power) + 4, "text-anchor": "end" }, label));
  }
  tensors.forEach((name, i) => {
    const x = LEFT + (i + 0.5) * STEP;
    picture.append(
      svg(
        "circle",
        { cx: x, cy: y(logs[i]), r: 4, class: "dot" },
        svg("title", {}, `${name}: ${differences[i].toExponential(2)}`),
      ),
    );
    picture.append(
      svg("text", { transform: `translate(${x + 4} ${TOP + HEIGHT + 10}) rotate(-90)`, "text-anchor": "end" }, name),
    );
  });
  return picture;
}

function rows(tensors, differences) {
  const list = tensors.map((name, i) => {
    return el("tr", {}, el("th", { scope: "row", className: "code" }, name), figure(differences[i].toExponential(2)));
  });
  return table("", header("Tensor", "Difference"), list);
}
