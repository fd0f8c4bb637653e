// What the page holds and what its reader has chosen. Every other part reads these and calls `update`.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ALL = -1; // in place of a product's number
const state = {
  run: 0, product: ALL, kind: "", decision: "", order: "wrong", view: "image", shown: 60,
  // For each run: one boundary for all products, one for each, and which of the two decides.
  bounds: DATA.runs.map(({ boundary }) => fresh(boundary)),
};

function fresh(boundary) {
  return { own: boundary.own, one: boundary.one, each: [...boundary.each] };
}

function run() { return DATA.runs[state.run]; }
function bounds() { return state.bounds[state.run]; }
function byId(id) { return document.getElementById(id); }

// The boundary that decides on images of a product.
function boundaryOf(product, number = state.run) {
  const kept = state.bounds[number];
  return kept.own ? kept.each[product] : kept.one;
}

// What depends on the scores alone, and not on a boundary, is computed once: a slider moves many times a second.
const known = new Map();
function once(key, compute) {
  if (!known.has(key)) known.set(key, compute());
  return known.get(key);
}

// Images of a product of a run, of all with ALL.
function imagesOf(product, number = state.run) {
  const { images } = DATA.runs[number];
  return once(`images ${number} ${product}`, () => product === ALL ? images : images.filter((image) => image.product === product));
}

// Smallest and largest score of the run, with a margin, so that a boundary can lie beyond both.
function extent() {
  return once(`extent ${state.run}`, () => {
    const { images, boundary } = run(), values = [...boundary.each, boundary.one];
    for (const { score } of images) if (score !== null) values.push(score);
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const margin = 0.03 * (high - low) || 1;
    return [low - margin, high + margin];
  });
}

// An element with attributes and children; texts stay texts, whatever they hold.
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

function score(value) { return value === null ? "–" : Number(value.toPrecision(4)).toString(); }
function percent(value, digits = 1) { return value === null ? "–" : (100 * value).toFixed(digits); }
