// Keep the state of the page in the URL's fragment, so that a link reproduces the screen.

const DELAY = 300; // ms; browsers limit how often a page may replace its URL

let timer = 0;

// Call save() once no other call has followed for a while.
export function saveSoon(save) {
  clearTimeout(timer);
  timer = setTimeout(save, DELAY);
}

// Put the values that read() returns into the URL.
export function saveNow(read) {
  clearTimeout(timer);
  history.replaceState(null, "", "#" + new URLSearchParams(read()));
}

export function load() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
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
