// Export the screen as one HTML file that needs nothing else.

import { $, el } from "./dom.js";

const REPLACED = "textarea, input, select, canvas";
const LEFT_OUT =
  "script, link, dialog, noscript, button:not([role], .box), .actions, .skip, [hidden], .hidden, #say, #marks, .slider, [role=tab]:not([aria-selected=true])";

export function save(name) {
  const url = URL.createObjectURL(new Blob([page()], { type: "text/html" }));
  el("a", { href: url, download: `${name}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Return the HTML of a copy of this page: styles are inside, canvases are pictures, boxes are text.
function page() {
  const copy = document.documentElement.cloneNode(true);
  const shown = [...document.querySelectorAll(REPLACED)];
  [...copy.querySelectorAll(REPLACED)].forEach((node, i) => node.replaceWith(replacement(shown[i])));
  copy.querySelectorAll(LEFT_OUT).forEach((node) => node.remove());
  copy.querySelectorAll(".more").forEach((node) => node.classList.remove("more"));
  copy.querySelectorAll("[tabindex]").forEach((node) => node.removeAttribute("tabindex"));
  copy.querySelector("head").append(el("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }), styles());
  copy
    .querySelector("body")
    .append(el("p", { className: "note" }, "Saved from ", el("a", { href: location.href }, link())));
  return `<!doctype html>\n${copy.outerHTML}`;
}

// Return what shows the state of a field or a canvas in the copy.
function replacement(node) {
  if (node.id === "text") return el("div", { className: "text" }, ...marked());
  if (node.tagName === "TEXTAREA") return el("div", { className: "text" }, node.value);
  if (node.tagName === "SELECT") return el("output", {}, node.selectedOptions[0]?.text ?? "");
  if (node.type === "checkbox") return el("output", {}, node.checked ? "yes:" : "no:");
  if (node.tagName === "INPUT") return el("output", { className: node.type === "range" ? "slider" : "" }, node.value);
  const picture = el("img", { src: node.width ? node.toDataURL() : "", alt: node.getAttribute("aria-label") ?? "" });
  picture.style.cssText = node.style.cssText;
  return picture;
}

// Return the text with the marks of the model's parts, without the line break that keeps the last line tall.
function marked() {
  const nodes = [...$("marks").cloneNode(true).childNodes];
  nodes.at(-1).data = nodes.at(-1).data.replace(/\n$/, "");
  return nodes;
}

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const link = () => location.origin + location.pathname;

function styles() {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText));
  return el("style", {}, rules.join("\n"));
}
