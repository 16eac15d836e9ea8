// The strip of tokens above the views: each is coloured, and one is selected.

import { $, el, roving } from "./dom.js";
import { css, sequential, tint } from "./colours.js";
import { legend } from "./legend.js";
import { shown } from "./tokens.js";

const FULL = 10; // bits of surprisal at which the colour is strongest
const MARGIN = 12; // pixels around a token that is scrolled into view
const MOST_LINES = 48;
const WEAKEST_LINE = 0.015; // probability

export class Strip {
  // select(index) is called when a token is chosen, hover(index or null) when the pointer is over one.
  constructor({ select, hover }) {
    this.node = $("strip");
    this.items = [];
    this.node.addEventListener("click", (event) => this.withItem(event, select));
    this.node.addEventListener("pointerover", (event) => this.withItem(event, hover));
    this.node.addEventListener("pointerleave", () => hover(null));
    roving(this.node, '[role="option"]', (item) => select(Number(item.dataset.index)));
  }

  withItem(event, call) {
    const item = event.target.closest("[data-index]");
    if (item) call(Number(item.dataset.index));
  }

  show(tokens, surprisal) {
    this.tokens = tokens;
    this.surprisal = surprisal;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.items = tokens.map((token, i) => this.item(i, this.label(token, surprisal[i]), shown(token)));
    this.items.push(this.item(tokens.length, "next token", "next"));
    this.items.at(-1).classList.add("next");
    const breaks = this.items.flatMap((item, i) => (tokens[i]?.text?.endsWith("\n") ? [item, el("br")] : [item]));
    this.node.replaceChildren(...breaks, this.canvas);
    this.showSurprisal();
  }

  item(index, label, text) {
    return el(
      "span",
      { role: "option", className: "token", tabIndex: -1, "aria-label": label, dataset: { index } },
      text,
    );
  }

  label(token, bits) {
    return `${shown(token)}, id ${token.id}` + (bits === null ? "" : `, surprisal ${bits.toFixed(1)} bits`);
  }

  select(index) {
    this.items.forEach((item, i) => {
      item.setAttribute("aria-selected", i === index);
      item.tabIndex = i === index ? 0 : -1;
    });
    this.reveal(this.items[index]);
  }

  // Scroll the strip, but not the page.
  reveal({ offsetTop, offsetHeight }) {
    const { scrollTop, clientHeight } = this.node;
    if (offsetTop < scrollTop) this.node.scrollTop = offsetTop - MARGIN;
    if (offsetTop + offsetHeight > scrollTop + clientHeight)
      this.node.scrollTop = offsetTop + offsetHeight + MARGIN - clientHeight;
  }

  showSurprisal() {
    const value = (i) => (this.surprisal[i] ?? 0) / FULL;
    this.colour(value, tint, legend("Colour: surprisal, from 0", `to ${FULL} bits or more.`, tint));
  }

  // Colour each token by scale(value(index)), remove the lines, and show the legend of the colours.
  colour(value, scale, legend) {
    $("meaning").replaceChildren(legend);
    this.items.forEach((item, i) => (item.style.backgroundColor = i < this.tokens.length ? scale(value(i)) : ""));
    this.clear();
  }

  clear() {
    this.canvas.width = this.canvas.height = 0;
  }

  // Scroll to a token, and draw a line from it to each token that it attends to, as strong as the probability.
  lines(from, probabilities) {
    this.reveal(this.items[from]);
    const { scrollWidth, scrollHeight } = this.node;
    const scale = devicePixelRatio;
    Object.assign(this.canvas, { width: scrollWidth * scale, height: scrollHeight * scale });
    Object.assign(this.canvas.style, { width: `${scrollWidth}px`, height: `${scrollHeight}px` });
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const strongest = [...probabilities.keys()].filter((i) => i !== from && probabilities[i] > WEAKEST_LINE);
    strongest.sort((a, b) => probabilities[b] - probabilities[a]);
    for (const to of strongest.slice(0, MOST_LINES)) this.line(context, from, to, probabilities[to]);
  }

  line(context, from, to, probability) {
    const [[x0, y0], [x1, y1]] = [this.middle(from), this.middle(to)];
    const lift = y0 === y1 ? 6 + Math.min(20, Math.abs(x1 - x0) / 16) : 6;
    context.strokeStyle = css(sequential(0.7), 0.25 + 0.75 * probability);
    context.lineWidth = 0.75 + 4 * probability;
    context.beginPath();
    context.moveTo(x0, y0);
    context.quadraticCurveTo((x0 + x1) / 2, Math.min(y0, y1) - lift, x1, y1);
    context.stroke();
  }

  middle(index) {
    const { offsetLeft, offsetTop, offsetWidth } = this.items[index];
    return [offsetLeft + offsetWidth / 2, offsetTop + 2];
  }
}
