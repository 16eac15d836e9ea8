// Colours of data. Lightness alone orders them, so they read the same for colour-blind eyes and in print.

const DARK = matchMedia("(prefers-color-scheme: dark)");
const SEQUENTIAL = {
  light: [
    [250, 249, 246],
    [163, 199, 222],
    [46, 112, 176],
    [10, 36, 80],
  ],
  dark: [
    [24, 25, 28],
    [26, 72, 118],
    [79, 160, 210],
    [235, 247, 255],
  ],
};
const DIVERGING = {
  light: { low: [32, 88, 160], middle: [250, 249, 246], high: [201, 106, 20] },
  dark: { low: [98, 165, 240], middle: [24, 25, 28], high: [240, 150, 70] },
};
const STRONGEST = { light: 0.6, dark: 0.5 }; // opacity of a background that leaves text readable
const LEVELS = 256;
const EQUAL = 0.179; // luminance

const theme = () => (DARK.matches ? "dark" : "light");

export const onThemeChange = (repaint) => DARK.addEventListener("change", repaint);

const mix = (a, b, t) => a.map((value, i) => Math.round(value + (b[i] - value) * t));

// Return the colour [r, g, b] of a value from 0 to 1.
export function sequential(value) {
  const stops = SEQUENTIAL[theme()];
  const at = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[i], stops[i + 1], at - i);
}

export const sequentialTable = () => Array.from({ length: LEVELS }, (_, i) => sequential(i / (LEVELS - 1)));

// Return the colour [r, g, b] of a value from -1 (blue) to 1 (orange).
export function diverging(value) {
  const { low, middle, high } = DIVERGING[theme()];
  const clipped = Math.min(Math.max(value, -1), 1);
  return mix(middle, clipped < 0 ? low : high, Math.abs(clipped));
}

export const css = (rgb, alpha = 1) => `rgb(${rgb.join(" ")} / ${alpha})`;

// Return a background over which the page's text stays readable: value from -1 (blue) to 1 (orange).
export function tint(value) {
  const { low, high } = DIVERGING[theme()];
  return css(value < 0 ? low : high, STRONGEST[theme()] * Math.min(Math.abs(value), 1));
}

// Return the same in blue: value from 0 to 1.
export const blueTint = (value) => tint(-value);

// Return black or white, the one that is readable on a colour. WCAG's contrast with both is equal at EQUAL.
export function ink(rgb) {
  const [r, g, b] = rgb.map((value) => (value / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > EQUAL ? "#000000" : "#ffffff";
}
