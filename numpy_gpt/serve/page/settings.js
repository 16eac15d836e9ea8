// Show the sampling settings, each with an explanation, and hold their values.

import { $, el } from "./dom.js";

const FIELDS = [
  [
    "temperature",
    "Temperature",
    0.8,
    0,
    2,
    0.05,
    "Higher values make unlikely tokens more frequent, and 0 always takes the likeliest.",
  ],
  ["top_k", "Top-k", 0, 0, 200, 1, "Only the k likeliest tokens can be drawn, and 0 turns this limit off."],
  [
    "top_p",
    "Top-p",
    0.95,
    0.01,
    1,
    0.01,
    "Only the likeliest tokens that together hold this share of the probability can be drawn.",
  ],
  ["max_tokens", "Length", 100, 1, 128, 1, "A continuation ends after this many tokens, if not before."],
];
const SEED = "The same text, settings and seed give the same continuation on every machine.";
const SEEDS = 2 ** 31;

export class Settings {
  constructor(changed) {
    this.changed = changed;
    this.inputs = {};
    $("controls").append(...FIELDS.map((field) => this.row(...field)), this.seedRow());
    this.newSeed();
  }

  row(name, label, value, min, max, step, explanation) {
    const attributes = { min, max, step, value };
    const number = el("input", { type: "number", id: name, ...attributes, "aria-describedby": `${name}-note` });
    const slider = el("input", {
      type: "range",
      id: `${name}-slider`,
      ...attributes,
      tabIndex: -1,
      "aria-hidden": "true",
    });
    number.addEventListener("input", () => {
      slider.value = number.value;
      this.changed();
    });
    number.addEventListener("change", () => this.set(name, number.value));
    slider.addEventListener("input", () => {
      number.value = slider.value;
      this.changed();
    });
    this.inputs[name] = { number, slider, standard: value };
    const note = el("p", { className: "note", id: `${name}-note` }, explanation);
    return el("div", { className: "field" }, el("label", { htmlFor: name }, label), number, slider, note);
  }

  seedRow() {
    this.seed = el("input", {
      type: "number",
      id: "seed",
      min: 0,
      max: SEEDS - 1,
      step: 1,
      "aria-describedby": "seed-note",
    });
    this.fixed = el("input", { type: "checkbox", id: "fixed" });
    this.seed.addEventListener("input", () => {
      this.fixed.checked = true;
      this.changed();
    });
    this.fixed.addEventListener("change", () => this.changed());
    const keep = el("label", { className: "check" }, this.fixed, "Keep this seed");
    const note = el("p", { className: "note", id: "seed-note" }, SEED);
    return el("div", { className: "field" }, el("label", { htmlFor: "seed" }, "Seed"), this.seed, keep, note);
  }

  // Limit the length to half of the context, so that the other half is left for the text.
  limit(context) {
    const { number, slider } = this.inputs.max_tokens;
    number.max = slider.max = Math.max(1, Math.floor(context / 2));
    this.set("max_tokens", number.value);
  }

  set(name, value) {
    if (name === "seed") this.seed.value = value;
    if (name === "fixed") this.fixed.checked = value !== "0";
    const field = this.inputs[name];
    if (!field) return;
    const { number, slider, standard } = field;
    const valid = value !== "" && Number.isFinite(Number(value)) ? Number(value) : standard;
    number.value = slider.value = Math.min(Math.max(valid, number.min), number.max);
    this.changed();
  }

  newSeed() {
    this.seed.value = Math.floor(Math.random() * SEEDS);
    this.changed();
  }

  // Return the options of the next run, with a new seed unless the seed is kept.
  next() {
    if (!this.fixed.checked || this.seed.value === "") this.newSeed();
    return this.values();
  }

  values() {
    const values = { seed: Number(this.seed.value) };
    for (const [name, { number, standard }] of Object.entries(this.inputs)) {
      values[name] = number.value === "" ? standard : Number(number.value);
    }
    return values;
  }
}
