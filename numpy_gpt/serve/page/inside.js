// Look inside: the tokens of the text, and views of what the model computes for them.

import { $, el, fail, replaceChildren, roving, selectTab } from "./dom.js";
import { post, postForBytes, tokenize } from "./api.js";
import { onThemeChange } from "./colours.js";
import { Strip } from "./strip.js";
import { bytes, count, percent, quoted } from "./tokens.js";
import { attention } from "./view-attention.js";
import { attribution } from "./view-attribution.js";
import { backward } from "./view-backward.js";
import { candidates } from "./view-candidates.js";
import { compare } from "./view-compare.js";
import { diagram } from "./view-diagram.js";
import { lens } from "./view-lens.js";

const PAUSE = 500; // ms without a change of the text, after which it is computed again

// Each view is {name, render(inside, show)}. render calls show(...nodes), which returns false if another view has been
// chosen meanwhile. A view may then set inside.hover, which is called with the token under the pointer or null, and
// inside.onSelect, which is called instead of render when another token is selected.
const VIEWS = { candidates, attention, lens, attribution, backward, diagram, compare };

export class Inside {
  constructor({ settings, model, text }) {
    Object.assign(this, { settings, model, text });
    this.view = candidates;
    this.shownText = null;
    this.strip = new Strip({ select: (index) => this.select(index), hover: (index) => this.hover?.(index) });
    this.panel = $("view");
    for (const [id, { name }] of Object.entries(VIEWS)) $("views").append(this.tab(id, name));
    roving($("views"), '[role="tab"]:not([hidden])', (tab) => tab.click());
    $("inside-close").addEventListener("click", () => this.toggle());
    $("inside-refresh").addEventListener("click", () => this.refresh());
    onThemeChange(() => this.isOpen() && this.tokens && this.render());
  }

  tab(id, name) {
    const tab = el(
      "button",
      { role: "tab", id: `view-${id}`, "aria-controls": "view", hidden: id === "compare" },
      name,
    );
    tab.addEventListener("click", () => this.show(id));
    return tab;
  }

  isOpen() {
    return !$("inside").hidden;
  }

  async toggle() {
    const open = !this.isOpen();
    $("inside").hidden = !open;
    for (const id of ["look", "chat-look"]) $(id).setAttribute("aria-expanded", open);
    if (!open) return;
    $("inside-title").focus({ preventScroll: true });
    $("inside").scrollIntoView({
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
    });
    await this.refresh();
  }

  // The text or the settings have changed: show them after a pause.
  outdated() {
    clearTimeout(this.timer);
    if (this.isOpen()) this.timer = setTimeout(() => this.update(), PAUSE);
  }

  update() {
    try {
      if (this.text() === this.shownText) this.render();
      else this.refresh();
    } catch (error) {
      fail(error); // the template of the chat can't be filled
    }
  }

  async refresh() {
    fail(null);
    try {
      this.shownText = this.text();
      const { context, backend } = await this.model;
      $("view-compare").hidden = backend !== "torch";
      this.ids = (await tokenize(this.shownText, context)).last;
      this.answers = new Map();
      this.onSelect = null;
      if (!this.ids.length) return this.empty();
      const { tokens, surprisal, ...sizes } = await this.ask("tokens");
      Object.assign(this, { tokens, surprisal, ...sizes });
      this.strip.show(tokens, surprisal);
      this.summary();
      this.select(tokens.length);
    } catch (error) {
      fail(error);
    }
  }

  empty() {
    this.tokens = null;
    $("strip").replaceChildren();
    this.panel.replaceChildren();
    $("token-detail").textContent = "";
    $("inside-summary").textContent = "Write a text first.";
  }

  summary() {
    const bits = this.surprisal.filter((value) => value !== null);
    const mean = bits.reduce((sum, value) => sum + value, 0) / bits.length;
    const size = `${count(this.tokens.length)} of ${count(this.context)} tokens`;
    $("inside-summary").textContent = bits.length
      ? `${size}, ${mean.toFixed(2)} bits of surprisal per token on average`
      : size;
  }

  // Return the server's answer for a view of the text; equal requests are sent once.
  ask(view, options = {}) {
    const key = JSON.stringify([view, options]);
    const { answers } = this;
    if (!answers.has(key)) answers.set(key, post("/inspect", { view, prompt: this.ids, ...options }));
    answers.get(key).catch(() => answers.delete(key));
    return answers.get(key);
  }

  askForBytes(view, options) {
    return postForBytes("/inspect", { view, prompt: this.ids, ...options });
  }

  select(index) {
    this.selected = index;
    this.strip.select(index);
    this.describe();
    if (this.onSelect) this.onSelect();
    else this.render();
  }

  // Return the last position that the model reads to predict the selected token. No position predicts the first token:
  // 0 stands for it too.
  position() {
    return Math.max(0, this.selected - 1);
  }

  describe() {
    const token = this.tokens[this.selected];
    const bits = this.surprisal[this.selected];
    const parts = token
      ? [`Token ${this.selected}: ${quoted(token)}`, `id ${token.id}`, bytes(token)]
      : ["The next token, after the end of the text"];
    if (token && bits !== null) parts.push(`probability ${percent(2 ** -bits)}`, `surprisal ${bits.toFixed(2)} bits`);
    $("token-detail").textContent = parts.join(" · ");
  }

  show(id) {
    this.view = VIEWS[id];
    selectTab($("views"), $(`view-${id}`));
    this.panel.setAttribute("aria-labelledby", `view-${id}`);
    this.panel.replaceChildren();
    this.render();
  }

  async render() {
    if (!this.tokens) return;
    const { view } = this;
    selectTab($("views"), $(`view-${Object.keys(VIEWS).find((id) => VIEWS[id] === view)}`));
    this.hover = this.onSelect = null;
    this.strip.showSurprisal();
    const turn = (this.turn = {}); // a later render makes this one stale
    this.panel.setAttribute("aria-busy", "true");
    try {
      await view.render(this, (...children) => {
        if (this.turn === turn) replaceChildren(this.panel, ...children);
        return this.turn === turn;
      });
      fail(null);
    } catch (error) {
      if (this.turn === turn) fail(error);
    }
    if (this.turn === turn) this.panel.removeAttribute("aria-busy");
  }
}
