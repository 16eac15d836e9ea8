"""Compute the contrast of each text on a page with its background, as WCAG defines it."""

CONTRASTS = """() => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ancestors = (node) => (node ? [...ancestors(node.parentElement), node] : []);
  const contrasts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const node = walker.currentNode.parentElement;
    if (!text || !node.checkVisibility() || node.closest(".hidden, :disabled, #marks, noscript, [aria-hidden=true]")) {
      continue;
    }
    let background = [255, 255, 255];
    let opacity = 1;
    for (const each of ancestors(node)) {
      const style = getComputedStyle(each);
      background = over(parse(style.backgroundColor), background);
      opacity *= style.opacity;
    }
    const [r, g, b, a] = parse(getComputedStyle(node).color);
    const levels = [luminance(over([r, g, b, a * opacity], background)), luminance(background)];
    contrasts.push([(Math.max(...levels) + 0.05) / (Math.min(...levels) + 0.05), text]);
  }
  return contrasts;
}"""


def low_contrasts(page, least=4.5):
    """Return (contrast, text) pairs below WCAG's level AA"""
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    return [(contrast, text) for contrast, text in contrasts if contrast < least]
