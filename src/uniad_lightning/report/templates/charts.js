// Plots as plain SVG: the histogram of scores with its boundary, the ROC and the precision-recall curve.
// Two rows of plots are as high as the table, where that is beside them.
function plotHeight() {
  const beside = window.matchMedia("(min-width: 1720px)").matches, rows = byId("charts").className === "alone" ? 1 : 2;
  return beside ? Math.min(320, Math.max(200, byId("products").offsetHeight / rows - 34)) : 236;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(Number(value.toPrecision(10)));
  return found;
}

// The products whose boundary a histogram of `product` shows.
function shownLimits(product) {
  if (!bounds().own || product !== ALL) return [boundaryOf(product === ALL ? 0 : product)];
  return [...new Set(bounds().each)];
}

function bars(counts, { left, width, base, unit, gap }) {
  return Object.entries(counts).flatMap(([kind, heights]) => heights.flatMap((count, bin) => {
    if (!count) return [];
    const height = Math.max(1, count * unit);
    const title = drawn("title", {}, `${count}`);
    return [drawn("rect", { class: kind, x: left + bin * width, width: width - gap, height, y: kind === "bad" ? base : base - height }, title)];
  }));
}

function histogramPlot(labelled, wide, tall) {
  const [low, high] = extent(), bins = Math.max(16, Math.min(60, Math.round(wide / 11))), counts = histogram(state.product, bins);
  const left = 26, right = wide - 6, top = 16, bottom = tall - 40, base = labelled ? (top + bottom) / 2 : bottom;
  const x = (value) => left + (value - low) / (high - low) * (right - left);
  const most = Math.max(1, ...counts.good, ...counts.bad, ...counts.all), limits = shownLimits(state.product);
  const lines = limits.map((limit) => drawn("line", {
    class: limits.length > 1 ? "edge thin" : "edge", x1: x(limit), x2: x(limit), y1: top - 8, y2: bottom + 4,
  }));
  const axis = [
    drawn("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }),
    ...ticks(low, high, wide / 70).map((value) => drawn("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, score(value))),
    drawn("text", { x: right, y: tall - 2, "text-anchor": "end" }, "image score"),
    drawn("text", { x: left - 5, y: top + 4, "text-anchor": "end" }, `${most}`),
    drawn("text", { x: left - 5, y: base + 4, "text-anchor": "end" }, "0"),
  ];
  const turned = x(limits[0]) > 0.7 * wide;
  const words = limits.length > 1 ? null : drawn("text", { class: "here", x: x(limits[0]) + (turned ? -5 : 5), y: top, "text-anchor": turned ? "end" : "start" }, `boundary ${score(limits[0])}`);
  const svg = drawn("svg", { width: wide, height: tall, class: settable() ? "pointed" : "", role: "img", "aria-label": "histogram of the scores with the boundary" },
    ...bars(counts, { left, width: (right - left) / bins, base, unit: (base - top) / most, gap: 1 }), ...axis, ...lines, words);
  if (settable()) follow(svg, (share) => low + (share * wide - left) / (right - left) * (high - low));
  return svg;
}

function histogramCaption(labelled) {
  if (!labelled) return ["number of images by score"];
  return [element("b", { class: "g" }, "good"), " above the line, ", element("b", { class: "d" }, "defective"), " below it"];
}

// Whether one slider sets what is shown now.
function settable() { return !bounds().own || state.product !== ALL; }

// Let the pointer on a histogram set the boundary.
function follow(svg, valueAt) {
  const set = (event) => {
    const box = svg.getBoundingClientRect();
    setBoundary(valueAt((event.clientX - box.left) / box.width));
  };
  svg.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    set(event);
    const stop = new AbortController(); // the figure is drawn anew meanwhile, so the window follows
    window.addEventListener("pointermove", set, { signal: stop.signal });
    window.addEventListener("pointerup", () => stop.abort(), { signal: stop.signal });
  });
}

function curvePlot(points, here, names, wide, tall) {
  const side = Math.min(wide, 1.3 * tall), left = 40, top = 8, right = side - 8, bottom = tall - 36;
  const x = (value) => left + value * (right - left), y = (value) => top + (1 - value) * (bottom - top);
  const grid = [0, 0.5, 1].flatMap((value) => [
    drawn("line", { class: "grid", x1: x(0), x2: x(1), y1: y(value), y2: y(value) }),
    drawn("line", { class: "grid", x1: x(value), x2: x(value), y1: y(0), y2: y(1) }),
    drawn("text", { x: x(value), y: bottom + 14, "text-anchor": "middle" }, `${value}`),
    drawn("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, `${value}`),
  ]);
  return drawn("svg", { width: side, height: tall, role: "img", "aria-label": names.join(" against ") }, ...grid,
    drawn("polyline", { class: "curve", points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }),
    here && drawn("circle", { class: "point", r: 5, cx: x(here[0]), cy: y(here[1]) }),
    drawn("text", { x: x(0.5), y: tall - 2, "text-anchor": "middle" }, names[0]),
    drawn("text", { x: 10, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 10 ${y(0.5)})` }, names[1]));
}

// Each figure: its caption, and what draws it at a width.
function figures() {
  const images = imagesOf(state.product), { labelled } = run(), found = labelled ? curves(state.product) : null;
  const histogramOne = [histogramCaption(labelled), (wide, tall) => histogramPlot(labelled, wide, tall)];
  if (!found) return [histogramOne];
  const { alarms, misses, good, defective } = counted(images), hits = defective - misses;
  const precision = hits + alarms ? [hits / defective, hits / (hits + alarms)] : null;
  return [histogramOne,
    [["ROC (the dot: as decided now)"], (wide, tall) => curvePlot(found.roc, [alarms / good, hits / defective], ["false-alarm rate", "share of defective found"], wide, tall)],
    [["precision and recall"], (wide, tall) => curvePlot(found.precision, precision, ["recall", "precision"], wide, tall)]];
}

function showCharts() {
  const wanted = figures(), place = byId("charts");
  place.className = wanted.length > 1 ? "" : "alone";
  if (place.children.length !== wanted.length) place.replaceChildren(...wanted.map(() => element("figure")));
  wanted.forEach(([caption, plot], number) => {
    const figure = place.children[number];
    figure.replaceChildren(element("figcaption", {}, ...caption), plot(Math.max(200, figure.clientWidth), plotHeight()));
  });
  byId("charts-of").textContent = state.product === ALL ? "of all products" : `of ${productName(state.product)}`;
}

const STRIP = 150; // pixels across the scores in a row of the table; its slider has the same scale

// The scores of one product in a row of the table, with its boundary.
function strip(product) {
  const [low, high] = extent(), bins = 50, counts = histogram(product, bins), half = run().labelled ? 13 : 25;
  const most = Math.max(1, ...counts.good, ...counts.bad, ...counts.all);
  const at = (boundaryOf(product) - low) / (high - low) * STRIP;
  return drawn("svg", { class: "strip", width: STRIP, height: 26, "aria-hidden": "true" },
    ...bars(counts, { left: 0, width: STRIP / bins, base: half, unit: (half - 1) / most, gap: 0.6 }),
    drawn("line", { class: "axis", x1: 0, x2: STRIP, y1: half, y2: half }), drawn("line", { class: "edge", x1: at, x2: at, y1: 0, y2: 26 }));
}
