// Stream one continuation at a time, with its speed.

import { $, announce, fail } from "./dom.js";
import { complete, tokenize } from "./api.js";

const SENTENCE_END = /[.!?\n]["”']?\s*$/;

let controller = null;

export const running = () => controller !== null;

export function stop() {
  controller?.abort();
}

// Stream a continuation, and call write(piece) for each piece. request() returns a request whose prompt is a text. hint
// is an element for a sentence about the prompt. Return why the run ended: "stop" or "length" as the server reports it,
// "stopped" after stop(), or "failed".
export async function run({ model, request, hint }, write) {
  controller = new AbortController();
  const { signal } = controller;
  const meter = new Meter();
  const reader = new Reader();
  document.body.classList.add("running");
  fail(null);
  hint.textContent = "";
  let reason = "stopped";
  try {
    const { prompt, ...options } = request();
    const { id, context } = await model();
    const { ids, last } = await tokenize(prompt, context - options.max_tokens, signal);
    if (last.length < ids.length) hint.textContent = cut(last.length, ids.length);
    const body = { model: id, ...(ids.length && { prompt: last }), ...options }; // no prompt: <|endoftext|>
    for await (const { text, finish, usage } of complete(body, signal)) {
      if (signal.aborted) break;
      if (text) write(text);
      if (finish) reason = finish;
      meter.show(text, usage);
      reader.read(text);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      fail(error);
      reason = "failed";
    }
  }
  controller = null;
  document.body.classList.remove("running");
  reader.finish();
  announce({ stopped: "Stopped.", failed: "" }[reason] ?? `Done: ${meter.tokens} tokens.`);
  return reason;
}

const cut = (read, all) => `The model reads the last ${read} of ${all} tokens. The rest doesn't fit into its context. `;

// Measure tokens per second, from the request on. The usage at the end has the exact number of tokens.
class Meter {
  constructor() {
    this.tokens = 0;
    this.start = performance.now();
  }

  show(text, usage) {
    if (usage) this.tokens = usage.completion_tokens;
    else if (text) this.tokens++;
    const seconds = (performance.now() - this.start) / 1000;
    if (this.tokens) $("fact-speed").textContent = (this.tokens / seconds).toFixed(0);
  }
}

// Put whole sentences into the live region: a screen reader would repeat or skip single tokens.
class Reader {
  constructor() {
    this.text = "";
    $("live").textContent = "";
  }

  read(text) {
    this.text += text;
    if (SENTENCE_END.test(this.text)) this.finish();
  }

  finish() {
    if (this.text.trim()) $("live").append(this.text);
    this.text = "";
  }
}
