"""The contrast of every piece of text on a page, as WCAG 2.2 defines it."""

# Backgrounds are the nearest colour behind; opacities and pictures behind text are not used.
_CONTRASTS = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const unseen = ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION", "title"];
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), parent = walker.currentNode.parentElement;
    if (!text || unseen.includes(parent.tagName) || !parent.checkVisibility()) continue;
    const style = getComputedStyle(parent);
    const color = parse(parent instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(color), light(behind(parent))].sort((x, y) => y - x);
    found.push({ text: text.slice(0, 40), size: parseFloat(style.fontSize), ratio: (a + 0.05) / (b + 0.05) });
  }
  return found;
}"""


def contrasts(page) -> list[dict]:
    """For each text that is seen: its first 40 letters, its size in pixels and its ratio, 1 to 21."""
    return page.evaluate(_CONTRASTS)
