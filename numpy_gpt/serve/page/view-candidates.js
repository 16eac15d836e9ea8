// The 20 likeliest tokens at a position, before and after temperature, top-k and top-p.

import { el, explain, facts, figure, header, table } from "./dom.js";
import { count, percent, quoted, shown } from "./tokens.js";

const NAMES = { temperature: "Temperature", top_k: "Top-k", top_p: "Top-p" };

export const candidates = { name: "Candidates", predicts: true, render };

async function render(inside, show) {
  const position = inside.position();
  const { temperature, top_k, top_p } = inside.settings.values();
  const answer = await inside.ask("candidates", { position, temperature, top_k, top_p });
  const most = Math.max(...answer.candidates.flatMap(({ before, after }) => [before, after]));
  const rows = answer.candidates.map((candidate) => row(candidate, most, answer.next?.token.id));
  show(
    explain(
      "The model gives every token of its vocabulary a probability. The settings reshape these before one is drawn.",
    ),
    facts(removals(answer, { temperature, top_k, top_p })),
    el(
      "p",
      { className: "legend note" },
      el("i", { className: "key before" }),
      "the model's probability ",
      el("i", { className: "key after" }),
      "the probability of being drawn",
    ),
    table("bars", header("Token", "Before and after", "Before", "After", ""), rows),
    ...next(answer),
  );
}

function removals({ removed, kept }, settings) {
  const items = Object.entries(NAMES).map(([name, title]) => {
    const { tokens, probability } = removed[name];
    const effect = tokens ? `removes ${count(tokens)} tokens, ${percent(probability)}` : "removes nothing";
    return [`${title} ${settings[name]}`, effect];
  });
  return [...items, ["Left to draw from", `${count(kept)} ${kept === 1 ? "token" : "tokens"}`]];
}

function row({ token, before, after, removed_by }, most, next) {
  const bar = (value, name) => {
    const fill = el("i", { className: name });
    fill.style.width = `${(100 * value) / most}%`;
    return fill;
  };
  const note = [removed_by && `removed by ${NAMES[removed_by].toLowerCase()}`, token.id === next && "in the text"];
  return el(
    "tr",
    { className: removed_by ? "gone" : "" },
    el("th", { scope: "row", className: "code", title: `id ${token.id}` }, shown(token)),
    el("td", { className: "track", "aria-hidden": "true" }, bar(before, "before"), bar(after, "after")),
    figure(percent(before)),
    figure(percent(after)),
    el("td", { className: "note" }, note.filter(Boolean).join(", ")),
  );
}

function next({ next }) {
  if (!next) return [];
  const { token, before, rank, removed_by } = next;
  const end = removed_by ? ` ${NAMES[removed_by]} removes it, so it couldn't be drawn with these settings.` : "";
  return [explain(`The text continues with ${quoted(token)}: rank ${count(rank)}, ${percent(before)}.${end}`)];
}
