// Chat: a conversation in bubbles. A template turns it into the text that the model continues.

import { $, el, fail, takeTurns } from "./dom.js";
import { run, running, stop } from "./run.js";
import { PRESETS, compose, stopString } from "./template.js";

export class Chat {
  constructor({ settings, model, changed }) {
    Object.assign(this, { settings, model, changed });
    this.turns = [];
    this.presets = {};
    $("preset").append(el("option", { value: "" }, "Own"));
    Object.entries(PRESETS).forEach(([name, template]) => this.addPreset(name, template));
    $("preset").addEventListener("change", () => this.setTemplate(this.presets[$("preset").value] ?? this.template()));
    for (const id of ["opening", "turn"]) {
      $(id).addEventListener("input", () => this.setTemplate(this.template()));
    }
    $("say").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    $("chat-stop").addEventListener("click", stop);
    $("chat-again").addEventListener("click", () => this.answer());
    $("chat-clear").addEventListener("click", () => this.clear());
    this.setTemplate(PRESETS.Story);
    this.open([]);
  }

  addPreset(name, template) {
    this.presets[name] = template;
    $("preset").lastElementChild.before(el("option", {}, name));
  }

  template() {
    return { opening: $("opening").value, turn: $("turn").value };
  }

  setTemplate({ opening = "", turn }) {
    $("opening").value = opening;
    $("turn").value = turn;
    const same = Object.entries(this.presets).find(([, preset]) => preset.opening === opening && preset.turn === turn);
    $("preset").value = same?.[0] ?? "";
    fail(null); // about the template before
    this.changed();
  }

  open(turns) {
    this.turns = turns;
    $("turns").replaceChildren();
    turns.forEach((turn) => this.addBubbles(turn));
    this.buttons();
    this.changed();
  }

  clear() {
    this.open([]);
    $("message").focus();
  }

  addBubbles({ message, answer }) {
    const question = el("p", { className: "bubble mine" }, el("span", { className: "hidden" }, "You: "), message);
    this.bubble = el("span", {}, answer);
    const reply = el("p", { className: "bubble" }, el("span", { className: "hidden" }, "Model: "), this.bubble);
    $("turns").append(question, reply);
    $("turns").scrollTop = $("turns").scrollHeight;
  }

  send() {
    const message = $("message").value.trim();
    if (!message || running()) return;
    $("message").value = "";
    this.turns.push({ message, answer: "" });
    this.addBubbles(this.turns.at(-1));
    this.answer();
  }

  // Return the text that the model reads for the last answer.
  prompt() {
    return this.turns.length ? compose(this.template(), this.turns) : this.template().opening;
  }

  // Return this text with the last answer.
  text() {
    return this.prompt() + (this.turns.at(-1)?.answer ?? "");
  }

  // Stream an answer to the last message, in place of the one that is there.
  async answer() {
    if (running() || !this.turns.length) return;
    const turn = this.turns.at(-1);
    turn.answer = "";
    this.bubble.textContent = "";
    const options = this.settings.next();
    const request = () => ({ prompt: this.prompt(), stop: [stopString(this.template())], ...options });
    const ended = run({ model: this.model, request, hint: $("chat-hint") }, (text) => {
      turn.answer += text;
      this.bubble.textContent = turn.answer;
      $("turns").scrollTop = $("turns").scrollHeight;
      this.changed();
    });
    this.buttons();
    await ended;
    this.buttons();
    this.changed();
  }

  buttons() {
    const busy = running();
    if (busy) takeTurns($("chat-stop"), $("send"));
    else takeTurns($("send"), $("chat-stop"));
    $("chat-again").disabled = $("chat-clear").disabled = $("chat-write").disabled = busy || !this.turns.length;
  }
}
