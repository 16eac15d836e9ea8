// Create elements from text, never from HTML.

export const $ = (id) => document.getElementById(id);

export const SVG = "http://www.w3.org/2000/svg";

// Return an element. Properties that exist on the element are assigned, others become attributes. Children that are
// strings become text nodes.
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "dataset") Object.assign(node.dataset, value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Move through the items of a list of buttons with the arrow keys, Home and End: only one item is in the tab order.
export function roving(list, selector, choose) {
  list.addEventListener("keydown", (event) => {
    const items = [...list.querySelectorAll(selector)];
    const now = items.indexOf(document.activeElement);
    const steps = {
      ArrowRight: now + 1,
      ArrowDown: now + 1,
      ArrowLeft: now - 1,
      ArrowUp: now - 1,
      Home: 0,
      End: items.length - 1,
    };
    const next = items[steps[event.key]];
    if (now < 0 || !next) return;
    event.preventDefault();
    next.focus();
    choose(next);
  });
}

export function selectTab(list, tab) {
  for (const item of list.querySelectorAll('[role="tab"]')) {
    item.setAttribute("aria-selected", item === tab);
    item.tabIndex = item === tab ? 0 : -1;
  }
}

// Show one of two buttons that take turns; the focus moves with them.
export function takeTurns(shown, hidden) {
  const focused = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (focused) shown.focus();
}

// Show an error in one of the page's alerts; null hides the alert.
export function fail(error, id = "alert") {
  $(id).textContent = error ? error.message : "";
  $(id).hidden = !error;
}

// Replace the children of a node. If the focus was on one of them, move it to the new one of the same name.
export function replaceChildren(node, ...children) {
  const name = node.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  node.replaceChildren(...children);
  if (name) node.querySelector(`[aria-label="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
}

export function announce(text) {
  $("status").textContent = text;
}

// Return a paragraph that explains a view.
export const explain = (text) => el("p", { className: "explain" }, text);

// Return a labelled list of options, [value, text] pairs, that calls choose(value).
export function menu(label, options, value, choose) {
  const select = el(
    "select",
    { "aria-label": label },
    ...options.map(([value, text]) => el("option", { value }, text)),
  );
  select.value = value;
  select.addEventListener("change", () => choose(select.value));
  return el("label", { className: "menu" }, label, select);
}

// Return a list of names and values.
export const facts = (pairs) =>
  el(
    "dl",
    { className: "facts" },
    ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );

// Return a cell of a table with a number.
export const figure = (text) => el("td", { className: "figure" }, text);

// Return the first row of a table: a header cell for each name, and an empty cell for each empty name.
export const header = (...names) =>
  el("tr", {}, ...names.map((name) => (name ? el("th", { scope: "col" }, name) : el("td"))));

// Return a table that scrolls by itself where the screen is narrow.
export const table = (className, head, rows) =>
  scroller("Table", el("table", { className }, el("thead", {}, head), el("tbody", {}, ...rows)));

// Return a box that scrolls wide content. Its right edge fades while content is hidden there.
export function scroller(label, content) {
  const box = el("div", { className: "wide", role: "group", "aria-label": label }, content);
  const update = () => {
    const hidden = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more", box.scrollLeft < hidden - 1);
    if (hidden) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  box.addEventListener("scroll", update);
  new ResizeObserver(update).observe(box);
  return box;
}
