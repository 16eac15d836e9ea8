// Send requests to the server that serves this page.

import { $ } from "./dom.js";

async function send(path, options) {
  const key = sessionStorage.getItem("api-key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers }).catch(explainFailure);
  if (response.status === 401) {
    // Another request may have got a new key meanwhile.
    if (sessionStorage.getItem("api-key") === key) await requestKey(key !== null);
    return send(path, options);
  }
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

function explainFailure(error) {
  if (error.name === "AbortError") throw error;
  throw new Error("The server can't be reached. Check that it still runs.");
}

async function reason(response) {
  const body = await response.json().catch(() => ({}));
  return body.error?.message ?? `The server answered ${response.status} ${response.statusText}.`;
}

// Open the dialog for the key. refused: the server has refused the last key.
async function requestKey(refused) {
  const dialog = $("key-dialog");
  if (!dialog.open) {
    $("key-refused").hidden = !refused;
    dialog.returnValue = "";
    dialog.showModal();
    $("key").select();
  }
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (!dialog.returnValue) throw new Error("This server needs an API key. Repeat the action to type the key.");
  sessionStorage.setItem("api-key", $("key").value.replace(/[^!-~]/g, "")); // other characters fit into no header
}

export const get = async (path) => (await send(path)).json();

const sendJSON = (path, body, signal) => send(path, { method: "POST", body: JSON.stringify(body), signal });

export const post = async (path, body, signal) => (await sendJSON(path, body, signal)).json();

export async function postForBytes(path, body, signal) {
  const response = await sendJSON(path, body, signal);
  return new Uint8Array(await response.arrayBuffer());
}

// Yield {text, finish, usage} for each event of a streamed completion.
export async function* complete(body, signal) {
  const request = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await sendJSON("/v1/completions", request, signal);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    yield { text: choice?.text ?? "", finish: choice?.finish_reason ?? null, usage: event.usage ?? null };
  }
}

// Yield the data of each server-sent event of a stream of bytes.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(explainFailure);
      if (done) return;
      buffer += value.replaceAll("\r\n", "\n");
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Return the token ids of a text, and the last of them that fit into the room for them.
export async function tokenize(text, room, signal) {
  if (!text) return { ids: [], last: [] };
  const { tokens } = await post("/tokenize", { prompt: text, add_special_tokens: false }, signal);
  return { ids: tokens, last: tokens.slice(-Math.max(1, room)) };
}
