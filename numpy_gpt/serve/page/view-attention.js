// Attention: thumbnails of all heads, and one head as a heat map over the text.

import { el, explain, menu, replaceChildren } from "./dom.js";
import { blueTint, css, onThemeChange, sequential, sequentialTable } from "./colours.js";
import { HeatMap } from "./heatmap.js";
import { legend } from "./legend.js";
import { fromBase64, located, percent, shown } from "./tokens.js";

const GAP = 3; // pixels between thumbnails
const chosen = { layer: 0, head: 0 };

export const attention = { name: "Attention", render };

let table = sequentialTable();
onThemeChange(() => (table = sequentialTable()));

const probability = (byte) => (byte / 255) ** 2;

async function render(inside, show) {
  const { thumbnails, layers, heads, size } = await inside.ask("attention");
  chosen.layer = Math.min(chosen.layer, layers - 1);
  chosen.head = Math.min(chosen.head, heads - 1);
  const grid = new Grid(fromBase64(thumbnails), { layers, heads, size }, choose);
  const detail = el("p", { className: "detail", "aria-live": "polite" });
  const place = el("div", { className: "map" });
  const options = (n) => Array.from({ length: n }, (_, i) => [i, i]);
  const menus = el("div", { className: "menus" });
  const drawn = show(
    explain(
      "Each token reads from the tokens before it. A row shows how a token divides its attention. " +
        "Point at a row to see its lines on the text.",
    ),
    menus,
    el(
      "div",
      { className: "side" },
      el("div", {}, grid.element),
      el(
        "div",
        {},
        place,
        detail,
        legend("0", "1, on a square-root scale", (value) => css(sequential(value))),
      ),
    ),
  );
  if (!drawn) return;
  choose(chosen.layer, chosen.head);

  function choose(layer, head) {
    Object.assign(chosen, { layer: Number(layer), head: Number(head) });
    replaceChildren(
      menus,
      menu("Layer", options(layers), chosen.layer, (value) => choose(value, chosen.head)),
      menu("Head", options(heads), chosen.head, (value) => choose(chosen.layer, value)),
    );
    grid.draw();
    const map = new Head(inside, detail);
    place.replaceChildren(map.map.element);
  }
}

// All heads on one canvas: a row per layer, a column per head.
class Grid {
  constructor(pixels, { layers, heads, size }, choose) {
    Object.assign(this, { pixels, layers, heads, size });
    this.cell = Math.max(12, Math.min(64, Math.floor(300 / heads)));
    this.element = el("canvas", {
      className: "grid",
      role: "img",
      "aria-label":
        `Attention of all ${layers * heads} heads: a row per layer, a column per head. ` +
        "Choose one with Layer and Head.",
    });
    this.element.addEventListener("click", ({ offsetX, offsetY }) => {
      const [head, layer] = [offsetX, offsetY].map((at) => Math.floor(at / (this.cell + GAP)));
      if (layer < layers && head < heads) choose(layer, head);
    });
    this.element.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      const [head, layer] = [offsetX, offsetY].map((at) => Math.floor(at / (this.cell + GAP)));
      this.element.title = `layer ${layer}, head ${head}`;
    });
  }

  draw() {
    const scale = devicePixelRatio;
    const step = this.cell + GAP;
    const [width, height] = [this.heads * step + GAP, this.layers * step + GAP];
    Object.assign(this.element, { width: width * scale, height: height * scale });
    Object.assign(this.element.style, { width: `${width}px`, height: `${height}px` });
    const context = this.element.getContext("2d");
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    for (let layer = 0; layer < this.layers; layer++) {
      for (let head = 0; head < this.heads; head++) {
        context.drawImage(this.picture(layer, head), head * step + GAP, layer * step + GAP, this.cell, this.cell);
      }
    }
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--second");
    context.lineWidth = 2;
    context.strokeRect(chosen.head * step + GAP - 1, chosen.layer * step + GAP - 1, this.cell + 2, this.cell + 2);
  }

  picture(layer, head) {
    const { size } = this;
    const picture = el("canvas", { width: size, height: size });
    const data = new ImageData(size, size);
    const first = (layer * this.heads + head) * size * size;
    for (let i = 0; i < size * size; i++) data.data.set([...table[this.pixels[first + i]], 255], 4 * i);
    picture.getContext("2d").putImageData(data, 0, 0);
    return picture;
  }
}

// The heat map of the chosen head. The rows that are visible are loaded.
class Head {
  constructor(inside, detail) {
    Object.assign(this, { inside, detail });
    const { layer, head } = chosen;
    const T = (this.T = inside.tokens.length);
    this.rows = new Array(T);
    const labels = inside.tokens.map(shown);
    this.map = new HeatMap({
      rows: T,
      columns: T,
      rowLabels: labels,
      columnLabels: labels,
      label: `Attention of layer ${layer}, head ${head}: a row per reading token. The arrow keys move over it.`,
      load: async (first, count) => {
        const bytes = await inside.askForBytes("head", { layer, head, first, count });
        for (let i = 0; i < count; i++) this.rows[first + i] = bytes.subarray(i * T, (i + 1) * T);
        if (first <= this.row() && this.row() < first + count) this.show(this.row(), null);
      },
      failed: (error) => inside.fail(error),
      colour: (row, column) => table[this.rows[row][column]],
      over: (row, column) => this.show(row, column),
      choose: (row) => inside.select(row),
    });
    inside.onSelect = () => this.show(this.row(), null);
    inside.hover = (index) => this.show(index === null ? this.row() : Math.min(index, T - 1), null);
  }

  // Return the row of the selected token; that of the last token if the next one is selected.
  row() {
    return Math.min(this.inside.selected, this.T - 1);
  }

  show(row, column) {
    const bytes = this.rows[row];
    if (!bytes) return;
    const { tokens, strip } = this.inside;
    const probabilities = [...bytes.subarray(0, row + 1)].map(probability);
    const meaning = `Colour and lines: attention of ${located(tokens, row)} in layer ${chosen.layer}, head ${chosen.head}`;
    strip.colour(
      (i) => Math.sqrt(probabilities[i] ?? 0),
      blueTint,
      legend(`${meaning}, from 0`, "to 1, on a square-root scale.", blueTint),
    );
    strip.lines(row, probabilities);
    const best = column ?? probabilities.indexOf(Math.max(...probabilities));
    const share = percent(probabilities[best] ?? 0);
    const sentence = `${located(tokens, row)} gives ${share} of its attention to ${located(tokens, best)}`;
    this.detail.textContent = column === null ? `${sentence}, its largest share.` : `${sentence}.`;
  }
}
