// Show the sampling settings, each with an explanation, and hold their values.

import { $, el } from "./dom.js";

// far: the end of the slider, where the field allows more
const FIELDS = {
  temperature: { label: "Temperature", value: 0.8, min: 0, max: 2, step: 0.05 },
  top_k: { label: "Top-k", value: 0, min: 0, max: 1e6, step: 1, far: 200 },
  top_p: { label: "Top-p", value: 0.95, min: 0.01, max: 1, step: 0.01 },
  max_tokens: { label: "Length", value: 100, min: 1, max: 1e6, step: 1, far: 128 },
};
const NOTES = {
  temperature: "Higher values make unlikely tokens more frequent, and 0 always takes the likeliest.",
  top_k: "Only the k likeliest tokens can be drawn, and 0 turns this limit off.",
  top_p: "Only the likeliest tokens that together hold this share of the probability can be drawn.",
  max_tokens: "A continuation ends after this many tokens, if not before.",
};
const SEED = "The same text, settings and seed give the same continuation.";
const SEEDS = 2 ** 31; // of which one is drawn

export class Settings {
  constructor(changed) {
    this.changed = changed;
    this.inputs = {};
    $("controls").append(...Object.keys(FIELDS).map((name) => this.row(name)), this.seedRow());
    this.newSeed();
  }

  row(name) {
    const { label, value, min, max, step, far = max } = FIELDS[name];
    const number = el("input", { type: "number", id: name, min, max, step, value, "aria-describedby": `${name}-note` });
    const slider = el("input", { type: "range", min, max: far, step, value, tabIndex: -1, "aria-hidden": "true" });
    number.addEventListener("input", () => {
      slider.value = number.value;
      this.changed();
    });
    number.addEventListener("change", () => this.set(name, number.value));
    slider.addEventListener("input", () => {
      number.value = slider.value;
      this.changed();
    });
    this.inputs[name] = { number, slider };
    const note = el("p", { className: "note", id: `${name}-note` }, NOTES[name]);
    return el("div", { className: "field" }, el("label", { htmlFor: name }, label), number, slider, note);
  }

  seedRow() {
    this.seed = el("input", {
      type: "number",
      id: "seed",
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      step: 1,
      "aria-describedby": "seed-note",
    });
    this.fixed = el("input", { type: "checkbox", id: "fixed" });
    this.seed.addEventListener("input", () => {
      this.fixed.checked = true;
      this.changed();
    });
    this.seed.addEventListener("change", () => this.set("seed", this.seed.value));
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
    if (name === "seed") this.seed.value = corrected(this.seed, value, "");
    if (name === "fixed") this.fixed.checked = value !== "0";
    if (Object.hasOwn(this.inputs, name)) {
      const { number, slider } = this.inputs[name];
      number.value = slider.value = corrected(number, value, FIELDS[name].value);
    }
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
    const values = { seed: corrected(this.seed, this.seed.value, 0) };
    for (const [name, { number }] of Object.entries(this.inputs)) {
      values[name] = corrected(number, number.value, FIELDS[name].value);
    }
    return values;
  }
}

// Return the number nearest to a value that a field allows; another value if it is no number.
function corrected({ min, max, step }, value, otherwise) {
  const number = Number(value);
  if (value === "" || !Number.isFinite(number)) return otherwise;
  const nearest = Math.min(Math.max(number, min), max);
  return step === "1" ? Math.round(nearest) : nearest;
}
