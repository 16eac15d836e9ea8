// Start the page: read the URL and the server's model, then connect the parts.

import { $, announce, el, fail, roving, selectTab } from "./dom.js";
import { get } from "./api.js";
import { Chat } from "./chat.js";
import { Inside } from "./inside.js";
import { formatRanges, load, parseRanges, saveNow, saveSoon } from "./link.js";
import { running, stop } from "./run.js";
import { save } from "./save.js";
import { Settings } from "./settings.js";
import { Write } from "./write.js";

const WIDE = matchMedia("(min-width: 900px)");
const BACKENDS = { numpy: "NumPy", torch: "PyTorch" };

let mode = "write";
let write = null;
let chat = null;
let inside = null;
let settings = null;
let modelRequest = null;

// Return the server's model. If the request fails, the next call repeats it.
function model() {
  modelRequest ??= requestModel().catch((error) => {
    modelRequest = null;
    throw error;
  });
  return modelRequest;
}

async function requestModel() {
  const { data } = await get("/v1/models");
  const { id, backend, max_model_len: context, chat_template: template } = data[0];
  $("fact-model").textContent = id;
  $("fact-backend").textContent = BACKENDS[backend] ?? backend;
  document.title = `${id} – numpy_gpt`;
  settings.limit(context);
  return { id, backend, context, template };
}

const written = () => ({ text: $("text").value, made: formatRanges(write.ranges) });

const said = () => ({ turns: JSON.stringify(chat.turns), ...chat.template() });

// Return the state of the page as the values of the URL, which leaves out the tab that isn't shown.
function state() {
  const shown = mode === "write" ? written() : { mode, ...said() };
  return { ...shown, ...settings.values(), fixed: Number(settings.fixed.checked) };
}

const keep = () => saveNow(state(), { ...written(), ...said() });

function changed() {
  if (!inside) return; // the parts aren't connected yet
  $("fact-seed").textContent = settings.seed.value;
  saveSoon(keep);
  if (!running()) inside.outdated(); // the end of a run is a change too
}

// Show the state of the URL. A seed in it is kept unless fixed is 0.
function open(values) {
  const { fixed = "1", ...others } = values;
  for (const [name, value] of Object.entries({ ...others, ...(values.seed && { fixed }) })) settings.set(name, value);
  if (values.turn) chat.setTemplate(values);
  if (values.turns) chat.open(parseTurns(values.turns));
  write.open(values.text, parseRanges(values.made, values.text?.length ?? 0));
  show(values.mode === "chat" ? "chat" : "write");
}

function parseTurns(text) {
  try {
    const turns = JSON.parse(text);
    if (!turns.every((turn) => typeof turn.message === "string" && typeof turn.answer === "string")) throw new Error();
    return turns.map(({ message, answer }) => ({ message, answer }));
  } catch {
    fail(new Error("The link's conversation can't be read: it was cut or changed."));
    return [];
  }
}

function show(name) {
  if (running()) stop();
  mode = name;
  $("write").hidden = name !== "write";
  $("chat").hidden = $("template").hidden = name !== "chat";
  selectTab($("modes"), $(`tab-${name}`));
  changed();
  inside.restart();
}

// Copy a link that keeps the seed, so that Again repeats what is on the screen.
async function copyLink(button) {
  keep();
  const values = new URLSearchParams({ ...state(), fixed: 1 });
  await copy(`${location.href.split("#")[0]}#${values}`);
  announce("Link copied.");
  const { textContent } = button;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = textContent), 1500);
}

// Browsers offer the clipboard only to pages of this machine and of https.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const { activeElement } = document;
  const box = el("textarea", { value: text });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  activeElement.focus();
}

const promptText = () => (mode === "write" ? $("text").value : chat.text());

function openInWrite() {
  try {
    write.open(chat.text());
    show("write");
  } catch (error) {
    fail(error);
  }
}

function connect() {
  settings = new Settings(changed);
  write = new Write({ settings, model, changed });
  chat = new Chat({ settings, model, changed });
  inside = new Inside({ settings, model, text: promptText });
  for (const name of ["write", "chat"]) $(`tab-${name}`).addEventListener("click", () => show(name));
  roving($("modes"), '[role="tab"]', (tab) => tab.click());
  addEventListener("keydown", (event) => event.key === "Escape" && stop());
  addEventListener("hashchange", () => open(load()));
  for (const id of ["copy", "chat-copy"]) $(id).addEventListener("click", () => copyLink($(id)).catch(fail));
  for (const id of ["save", "chat-save"]) {
    $(id).addEventListener("click", () => {
      keep();
      save(document.title.split(" ")[0]);
    });
  }
  for (const id of ["look", "chat-look"]) $(id).addEventListener("click", () => inside.toggle());
  $("chat-write").addEventListener("click", openInWrite);
  WIDE.addEventListener("change", () => ($("settings").open = WIDE.matches));
  $("settings").open = WIDE.matches;
}

// Chat by the template that the model was fine-tuned with, unless the URL has another one.
function useTemplate(turn, values) {
  const preset = { opening: "", turn };
  chat.addPreset("This model's", preset);
  chat.setTemplate(values.turn ? chat.template() : preset);
  if (!values.mode && !values.text) show("chat");
}

async function start() {
  connect();
  const values = load();
  open(values);
  try {
    const { template } = await model();
    if (template) useTemplate(template, values);
  } catch (error) {
    fail(error);
  }
}

start();
