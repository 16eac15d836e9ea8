// A heat map on a canvas. It draws only the visible cells and loads only the visible rows.

import { el } from "./dom.js";

const BLOCK = 128; // rows that are loaded at once
const TALLEST = 520; // pixels
const LABELLED = 11; // pixels of a cell from which labels fit
const LETTER = 7; // pixels of a letter of a label
const LONGEST = 14; // letters of a label
const SMALLEST = 1; // pixels of a cell without zoom
const LARGEST = 22;

export class HeatMap {
  // options: rows, columns, rowLabels, columnLabels, label, rowHeight (default: square cells), load(first, count) that
  // resolves when those rows have values (optional), failed(error) of load, colour(row, column) -> [r, g, b],
  // over(row, column), choose(row, column)
  constructor(options) {
    Object.assign(this, options);
    this.zoom = 1;
    this.cursor = null;
    this.requested = new Set(); // blocks of rows
    this.loaded = 0; // of these blocks
    this.image = el("canvas", { width: this.columns, height: this.rows });
    this.canvas = el("canvas", { role: "img", "aria-label": this.label });
    this.spacer = el("div", { className: "spacer" });
    this.viewport = el(
      "div",
      { className: "viewport", tabIndex: 0, role: "application", "aria-label": this.label, "aria-busy": "true" },
      this.canvas,
      this.spacer,
    );
    const [out, closer] = [this.button("−", "Zoom out", 0.5), this.button("+", "Zoom in", 2)];
    this.element = el("div", { className: "heatmap" }, el("div", { className: "zoom" }, out, closer), this.viewport);
    this.viewport.addEventListener("scroll", () => this.draw());
    this.viewport.addEventListener("pointermove", (event) => this.point(this.cell(event)));
    this.viewport.addEventListener("click", (event) => this.pick(this.cell(event)));
    this.viewport.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.element);
  }

  button(text, label, factor) {
    const button = el("button", { className: "icon", "aria-label": label, title: label }, text);
    button.addEventListener("click", () => {
      this.zoom = Math.min(Math.max(this.zoom * factor, 1), 32);
      this.resize();
    });
    return button;
  }

  resize() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.left = gutter(this.rowLabels);
    this.cellWidth = this.fit(width - this.left);
    if (!this.rowHeight && this.cellWidth < LABELLED) {
      this.left = 0;
      this.cellWidth = this.fit(width);
    }
    this.cellHeight = this.rowHeight ?? this.cellWidth;
    this.top = this.cellWidth >= LABELLED ? gutter(this.columnLabels) : 0;
    const [wide, tall] = [this.left + this.columns * this.cellWidth, this.top + this.rows * this.cellHeight];
    Object.assign(this.spacer.style, { width: `${wide}px`, height: `${tall}px` });
    Object.assign(this.viewport.style, { width: `${Math.min(width, wide)}px`, height: `${Math.min(TALLEST, tall)}px` });
    this.draw();
  }

  // Return the width of a cell. Without zoom, all columns fit, and all rows too if the cells are squares. But a cell
  // has at least a pixel.
  fit(width) {
    const height = this.rowHeight ? Infinity : TALLEST - gutter(this.columnLabels);
    return Math.max(SMALLEST, Math.min(LARGEST, width / this.columns, height / this.rows)) * this.zoom;
  }

  // Return the range of visible rows or columns.
  visible(scroll, size, cell, n) {
    return [Math.max(0, Math.floor(scroll / cell)), Math.min(n, Math.ceil((scroll + size) / cell))];
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  paint() {
    const { clientWidth: width, clientHeight: height, scrollLeft, scrollTop } = this.viewport;
    if (!width) return;
    const scale = devicePixelRatio;
    Object.assign(this.canvas, { width: width * scale, height: height * scale });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const [r0, r1] = this.visible(scrollTop, height - this.top, this.cellHeight, this.rows);
    const [c0, c1] = this.visible(scrollLeft, width - this.left, this.cellWidth, this.columns);
    this.request(r0, r1);
    this.paintCells(context, r0, r1, c0, c1, width, height);
    this.paintLabels(context, r0, r1, c0, c1);
    if (this.loaded === this.requested.size) this.viewport.removeAttribute("aria-busy");
  }

  x(column) {
    return this.left + column * this.cellWidth - this.viewport.scrollLeft;
  }

  y(row) {
    return this.top + row * this.cellHeight - this.viewport.scrollTop;
  }

  paintCells(context, r0, r1, c0, c1, width, height) {
    context.save();
    context.beginPath();
    context.rect(this.left, this.top, width, height);
    context.clip();
    context.imageSmoothingEnabled = false;
    const target = [this.x(c0), this.y(r0), (c1 - c0) * this.cellWidth, (r1 - r0) * this.cellHeight];
    if (r1 > r0 && c1 > c0) context.drawImage(this.image, c0, r0, c1 - c0, r1 - r0, ...target);
    if (this.cursor) {
      context.strokeStyle = getComputedStyle(this.viewport).color;
      const [row, column] = this.cursor;
      context.strokeRect(this.x(0), this.y(row), this.columns * this.cellWidth, this.cellHeight);
      context.lineWidth = 2;
      context.strokeRect(this.x(column), this.y(row), this.cellWidth, this.cellHeight);
    }
    context.restore();
  }

  paintLabels(context, r0, r1, c0, c1) {
    context.fillStyle = getComputedStyle(this.viewport).color;
    context.font = "11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
    context.textBaseline = "middle";
    context.textAlign = "right";
    if (this.left) {
      for (let row = r0; row < r1; row++) {
        const y = this.y(row) + this.cellHeight / 2;
        if (y > this.top) context.fillText(short(this.rowLabels[row]), this.left - 6, y);
      }
    }
    context.textAlign = "left";
    for (let column = c0; this.top && column < c1; column++) {
      const x = this.x(column) + this.cellWidth / 2;
      if (x < this.left) continue;
      context.save();
      context.translate(x, this.top - 6);
      context.rotate(-Math.PI / 2);
      context.fillText(short(this.columnLabels[column]), 0, 0);
      context.restore();
    }
  }

  // Load the blocks of rows that are visible for the first time.
  request(first, last) {
    for (let block = Math.floor(first / BLOCK); block * BLOCK < last; block++) {
      if (!this.requested.has(block)) this.loadBlock(block);
    }
  }

  async loadBlock(block) {
    const row = block * BLOCK;
    const n = Math.min(BLOCK, this.rows - row);
    this.requested.add(block);
    this.viewport.setAttribute("aria-busy", "true");
    try {
      await this.load?.(row, n);
      this.fill(row, n);
      this.loaded++;
    } catch (error) {
      this.failed(error);
      return;
    }
    this.draw();
  }

  // Write the colours of rows into the image, which has one pixel per cell.
  fill(first, n) {
    const data = new ImageData(this.columns, n);
    for (let i = 0; i < n * this.columns; i++) {
      const rgb = this.colour(first + Math.floor(i / this.columns), i % this.columns);
      data.data.set(rgb, 4 * i);
      data.data[4 * i + 3] = 255;
    }
    this.image.getContext("2d").putImageData(data, 0, first);
  }

  cell(event) {
    const box = this.viewport.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - this.top + this.viewport.scrollTop) / this.cellHeight);
    const column = Math.floor((event.clientX - box.left - this.left + this.viewport.scrollLeft) / this.cellWidth);
    return row >= 0 && row < this.rows && column >= 0 && column < this.columns ? [row, column] : null;
  }

  point(cell) {
    if (!cell || (this.cursor && cell.every((n, i) => n === this.cursor[i]))) return;
    this.cursor = cell;
    this.over(...cell);
    this.draw();
  }

  pick(cell) {
    if (cell) this.choose?.(...cell);
  }

  key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter") this.pick(this.cursor);
    if (!steps[event.key]) return;
    event.preventDefault();
    const [row, column] = this.cursor ?? [0, 0];
    const inside = (n, most) => Math.min(Math.max(n, 0), most - 1);
    const [down, right] = steps[event.key];
    this.point([inside(row + down, this.rows), inside(column + right, this.columns)]);
    this.reveal();
  }

  // Scroll so that the cursor's cell is visible.
  reveal() {
    const [row, column] = this.cursor;
    const { viewport: view } = this;
    const near = (scroll, size, at, cell) => Math.max(Math.min(scroll, at), at + cell - size);
    view.scrollTop = near(view.scrollTop, view.clientHeight - this.top, row * this.cellHeight, this.cellHeight);
    view.scrollLeft = near(view.scrollLeft, view.clientWidth - this.left, column * this.cellWidth, this.cellWidth);
  }
}

const gutter = (labels) => 12 + LETTER * Math.max(...labels.map((label) => Math.min(label.length, LONGEST)));

const short = (text) => (text.length > LONGEST ? text.slice(0, LONGEST - 1) + "…" : text);
