// Export the screen as one HTML file that needs nothing else.

import { $, el } from "./dom.js";

const LEFT_OUT = "script, link, dialog, noscript, button:not([role]), .actions, .skip, [hidden], .hidden, #say, #marks";

export function save(name) {
  const url = URL.createObjectURL(new Blob([page()], { type: "text/html" }));
  el("a", { href: url, download: `${name}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Return the HTML of a copy of this page: styles are inside, canvases are pictures, boxes are text.
function page() {
  const copy = document.documentElement.cloneNode(true);
  const find = (node) => copy.querySelector(`#${node.id}`);
  for (const box of document.querySelectorAll("textarea")) {
    find(box).replaceWith(el("div", { className: "text" }, ...(box.id === "text" ? marked() : [box.value])));
  }
  for (const box of document.querySelectorAll("input, select")) {
    const value = box.type === "checkbox" ? (box.checked ? "yes" : "no") : box.value;
    if (find(box)) find(box).replaceWith(el("output", {}, value));
  }
  const canvases = [...document.querySelectorAll("canvas")];
  [...copy.querySelectorAll("canvas")].forEach((canvas, i) => {
    canvas.replaceWith(el("img", { src: canvases[i].toDataURL(), alt: canvas.getAttribute("aria-label") ?? "" }));
  });
  copy.querySelectorAll(LEFT_OUT).forEach((node) => node.remove());
  copy.querySelector("head").append(el("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }), styles());
  copy.querySelector("body").append(el("p", { className: "note" }, "Saved from ", el("a", { href: location.href }, link())));
  return `<!doctype html>\n${copy.outerHTML}`;
}

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const link = () => location.origin + location.pathname;

const marked = () => [...$("marks").cloneNode(true).childNodes];

function styles() {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText));
  return el("style", {}, rules.join("\n"));
}
