// Keep the state of the page in the URL's fragment, so that a link reproduces the screen.

const DELAY = 400; // ms; browsers limit how often a page may replace its URL

let timer = null;
let last = -DELAY; // time of the last change of the URL

// Call save() now, or DELAY after the last change of the URL.
export function saveSoon(save) {
  timer ??= setTimeout(save, last + DELAY - performance.now());
}

// Put values into the URL, and others into the entry of the browser's history, which a reload and Back restore.
export function saveNow(values, others) {
  clearTimeout(timer);
  timer = null;
  last = performance.now();
  history.replaceState(others, "", "#" + new URLSearchParams(values));
}

export function load() {
  return { ...history.state, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) };
}

// Write ranges of the text as "16-200,230-300".
export const formatRanges = (ranges) => ranges.map(([from, to]) => `${from}-${to}`).join(",");

// Return the ranges that are valid: ascending, without an overlap, and within the text.
export function parseRanges(text, length) {
  const ranges = [];
  for (const range of (text ?? "").split(",")) {
    const [from, to] = range.split("-").map(Number);
    if (from >= (ranges.at(-1)?.[1] ?? 0) && from < to && to <= length) ranges.push([from, to]);
  }
  return ranges;
}
