// Look inside: the tokens of the text, and views of what the model computes for them.

import { $, el, explain, fail, replaceChildren, roving, selectTab } from "./dom.js";
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

// Each view is {name, predicts, render(inside, show, ...options)}. predicts is true if the view explains how the selected
// token is predicted. render calls show(...nodes), which returns false if a later render has begun. A view may then set
// inside.hover, which is called with the token under the pointer or null, and inside.onSelect, which is called instead
// of render when another token is selected. inside.render(...options) renders the view again.
const VIEWS = { candidates, attention, lens, attribution, backward, diagram, compare };
const BUTTONS = ["look", "chat-look"]; // in the two tabs
const FIRST = "The first token has no text before it, so nothing predicts it. Choose another token.";

export class Inside {
  constructor({ settings, model, text }) {
    Object.assign(this, { settings, model, text });
    this.strip = new Strip({ select: (index) => this.select(index), hover: (index) => this.hover?.(index) });
    this.panel = $("view");
    for (const [id, { name }] of Object.entries(VIEWS)) $("views").append(this.tab(id, name));
    roving($("views"), '[role="tab"]:not([hidden])', (tab) => tab.click());
    $("inside-close").addEventListener("click", () => this.toggle());
    $("inside-refresh").addEventListener("click", () => this.refresh());
    onThemeChange(() => this.isOpen() && this.render());
    this.clear();
    this.show("candidates");
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
    for (const id of BUTTONS) $(id).setAttribute("aria-expanded", open);
    if (!open) return BUTTONS.forEach((id) => $(id).focus()); // one of them is visible
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
    this.attempt(() => (this.text() === this.shownText ? this.render() : this.refresh()));
  }

  // The tab has changed, and with it the text.
  restart() {
    if (!this.isOpen()) return;
    this.clear();
    this.refresh();
  }

  // Compute the tokens of the text and show them. A later call cancels an earlier one.
  async refresh() {
    clearTimeout(this.timer);
    this.request?.abort();
    const { signal } = (this.request = new AbortController());
    await this.attempt(
      () => this.read(signal),
      () => !signal.aborted,
    );
  }

  async read(signal) {
    const text = this.text();
    const { context, backend } = await this.model();
    const { last: ids } = await tokenize(text, context, signal);
    const answer = ids.length ? await post("/inspect", { view: "tokens", prompt: ids }, signal) : { tokens: null };
    signal.throwIfAborted();
    $("view-compare").hidden = backend !== "torch";
    Object.assign(this, { shownText: text, ids, answers: new Map(), onSelect: null }, answer);
    if (this.tokens) this.showTokens();
    else this.clear("The text is empty.");
  }

  // Call an async function, and show its error if it is still current.
  async attempt(action, current = () => true) {
    this.fail(null);
    try {
      await action();
    } catch (error) {
      if (current()) this.fail(error);
    }
  }

  fail(error) {
    fail(error, "inside-alert");
  }

  showTokens() {
    this.strip.show(this.tokens, this.surprisal);
    this.summary();
    this.select(this.tokens.length);
  }

  clear(summary = "") {
    this.tokens = this.turn = this.shownText = null;
    for (const node of [$("strip"), $("meaning"), $("token-detail"), this.panel]) node.replaceChildren();
    this.panel.removeAttribute("aria-busy");
    $("inside-summary").textContent = summary;
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

  // Return the last position that the model reads to predict the selected token, which isn't the first.
  position() {
    return this.selected - 1;
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

  async render(...options) {
    if (!this.tokens) return;
    const { view } = this;
    const turn = (this.turn = {}); // a later render makes this one stale
    const show = (...children) => {
      if (this.turn !== turn) return false;
      this.strip.showSurprisal();
      replaceChildren(this.panel, ...children);
      return true;
    };
    this.hover = this.onSelect = null;
    this.panel.setAttribute("aria-busy", "true");
    const current = () => this.turn === turn;
    const unpredicted = view.predicts && this.selected === 0;
    await this.attempt(async () => (unpredicted ? show(explain(FIRST)) : view.render(this, show, ...options)), current);
    if (current()) this.panel.removeAttribute("aria-busy");
  }
}
