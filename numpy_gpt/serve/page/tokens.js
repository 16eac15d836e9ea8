// Show tokens: their text with visible spaces, their bytes, and numbers in a fixed form.

const escapeByte = (hex) => `\\x${hex}`;
const pairs = (hex) => hex.match(/../g) ?? [];

// Return a token's text on one line: spaces and line breaks are visible, bytes of a part of a character are escaped.
export function shown(token) {
  if (token.text === null) return token.bytes === null ? `#${token.id}` : pairs(token.bytes).map(escapeByte).join("");
  return token.text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
}

export const quoted = (token) => `“${shown(token)}”`;

// Return a token of the text with its position, since the text may repeat it.
export const located = (tokens, index) => `${quoted(tokens[index])} (token ${index})`;

export const bytes = (token) => (token.bytes === null ? "no bytes" : `bytes ${pairs(token.bytes).join(" ")}`);

export function percent(p) {
  if (p === 0) return "0";
  if (p < 0.0001) return "< 0.01 %";
  return `${(100 * p).toFixed(p < 0.1 ? 2 : 1)} %`;
}

export function number(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  if (size !== 0 && (size < 0.001 || size >= 10000)) return x.toExponential(2).replace("-", "−");
  return x.toFixed(size < 10 ? 3 : 1).replace("-", "−");
}

export const count = (n) => n.toLocaleString("en");

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
