// Write: one editable text that the model continues.

import { $, el, takeTurns } from "./dom.js";
import { History } from "./history.js";
import { cutAt, edited } from "./ranges.js";
import { run, running, stop } from "./run.js";

const START = "Once upon a time";
const BOTTOM = 24; // pixels that stay free below the text while it grows

export class Write {
  constructor({ settings, model, changed }) {
    Object.assign(this, { settings, model, changed });
    this.box = $("text");
    this.ranges = [];
    this.history = new History(this.state());
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("beforeinput", (event) => this.beforeInput(event));
    this.box.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["select", "click", "keyup"]) this.box.addEventListener(name, () => this.buttons());
    $("continue").addEventListener("click", () => this.continue(this.box.value.length));
    $("from-cursor").addEventListener("click", () => this.continue(this.box.selectionStart));
    $("again").addEventListener("click", () => this.continue(this.lastStart()));
    $("undo").addEventListener("click", () => this.move(-1));
    $("redo").addEventListener("click", () => this.move(1));
    $("stop").addEventListener("click", stop);
  }

  state() {
    return { text: this.box.value, ranges: this.ranges, cursor: this.box.selectionStart };
  }

  // Show a text; the history starts with it.
  open(text = START, ranges = []) {
    this.show({ text, ranges, cursor: text.length });
    this.history = new History(this.state());
    this.buttons();
  }

  show({ text, ranges, cursor }) {
    this.box.value = text;
    this.ranges = ranges;
    this.box.setSelectionRange(cursor, cursor);
    this.paint();
  }

  typed() {
    this.ranges = edited(this.ranges, this.painted, this.box.value);
    this.record("type");
  }

  record(kind) {
    if (this.box.value !== this.history.state.text) this.history.record(this.state(), kind);
    this.paint();
    this.buttons();
    this.changed();
  }

  move(step) {
    if (running()) return;
    const state = this.history.move(step);
    if (!state) return;
    this.show(state);
    this.buttons();
    this.changed();
  }

  beforeInput(event) {
    if (running()) {
      event.preventDefault();
      stop();
    } else if (event.inputType === "historyUndo" || event.inputType === "historyRedo") {
      event.preventDefault(); // of a menu: the browser's own history lacks the continuations
      this.move(event.inputType === "historyUndo" ? -1 : 1);
    }
  }

  key(event) {
    const command = event.ctrlKey || event.metaKey;
    const letter = event.key.toLowerCase();
    if (command && event.key === "Enter") {
      event.preventDefault();
      this.continue(event.shiftKey ? this.box.selectionStart : this.box.value.length);
    } else if (command && (letter === "z" || letter === "y")) {
      event.preventDefault();
      this.move(letter === "y" || event.shiftKey ? 1 : -1);
    }
  }

  // Return where the last continuation starts, or null if the text doesn't end with it.
  lastStart() {
    const last = this.ranges.at(-1);
    return last && last[1] === this.box.value.length ? last[0] : null;
  }

  // Replace the text after a position by a continuation.
  async continue(from) {
    if (running() || from === null) return;
    const before = this.state();
    this.show({ text: before.text.slice(0, from), ranges: cutAt(before.ranges, from), cursor: from });
    this.ranges = [...this.ranges, [from, from]];
    const options = this.settings.next();
    const request = () => ({ prompt: this.box.value, ...options });
    const ended = run({ model: this.model, request, hint: $("hint") }, (piece) => this.append(piece));
    this.buttons();
    const reason = await ended;
    this.ranges = this.ranges.filter(([start, end]) => start < end);
    if (reason === "stop") $("hint").append("The model has ended the text.");
    if (reason === "failed" && this.box.value.length === from) this.show(before);
    this.record("run");
  }

  append(piece) {
    const follow = this.box.getBoundingClientRect().bottom < innerHeight + BOTTOM;
    const end = this.box.value.length;
    this.box.setRangeText(piece, end, end, this.box.selectionStart === end ? "end" : "preserve");
    this.ranges.at(-1)[1] = this.box.value.length;
    this.paint();
    if (follow) this.keepEndInView();
    this.changed();
  }

  keepEndInView() {
    const hidden = document.querySelector("#write .actions").getBoundingClientRect().bottom + BOTTOM - innerHeight;
    if (hidden > 0) scrollBy(0, hidden);
  }

  // Mark the parts that the model wrote, on a copy of the text behind the box. The copy also gives the box its height.
  paint() {
    const text = (this.painted = this.box.value);
    const parts = [];
    let at = 0;
    for (const [from, to] of this.ranges) {
      parts.push(text.slice(at, from), el("mark", {}, text.slice(from, to)));
      at = to;
    }
    $("marks").replaceChildren(...parts, text.slice(at) + "\n");
  }

  buttons() {
    const busy = running();
    if (busy) takeTurns($("stop"), $("continue"));
    else takeTurns($("continue"), $("stop"));
    $("from-cursor").disabled = busy || this.box.selectionStart === this.box.value.length;
    $("again").disabled = busy || this.lastStart() === null;
    $("undo").disabled = busy || !this.history.has(-1);
    $("redo").disabled = busy || !this.history.has(1);
  }
}
