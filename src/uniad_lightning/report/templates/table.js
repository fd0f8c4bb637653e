// The table of products, the numbers beside the slider, and the comparison of several runs.
function productName(product) { return run().products[product] || "(product not found)"; }

function rate(k, n) { return n ? `${percent(k / n)}\u00a0%` : "–"; }

function readoutItem(name, kind, k, n, of) {
  const interval = n ? wilson(k, n).map((value) => percent(value)).join("–") : "";
  return element("div", { class: kind },
    element("dt", {}, name),
    element("dd", {}, element("b", { "data-count": name }, `${k}`), `of ${n}`, element("span", { class: "wide" }, ` ${of}`), ` · ${rate(k, n)}`),
    element("dd", {}, n ? `95 %: ${interval} %` : ""));
}

function showReadout() {
  const counts = counted(imagesOf(state.product)), scored = counts.images - counts.failed;
  const items = run().labelled
    ? [readoutItem("false alarms", "alarm", counts.alarms, counts.good, "good"), readoutItem("misses", "miss", counts.misses, counts.defective, "defective")]
    : [readoutItem("called defective", "miss", counts.called, scored, "images"), readoutItem("unfamiliar", "", counts.unfamiliar, scored, "images")];
  if (counts.failed) items.push(readoutItem("not inspected", "", counts.failed, counts.images, "images"));
  byId("readout").replaceChildren(...items);
}

function auroc(row) {
  const interval = row.low === null ? "" : row.low === row.high ? "no overlap" : `${percent(row.low)}–${percent(row.high)}`;
  return [percent(row.auroc), " ", element("small", {}, interval)];
}

function headings() {
  const { labelled } = run();
  return labelled
    ? ["product", "false alarms", "misses", "boundary", "scores", "image AUROC\nand interval", "AP", "pixel\nAUROC", "AUPRO"]
    : ["product", "called\ndefective", "unfamiliar", "not\ninspected", "boundary", "scores"];
}

function nameCell(product, sum) {
  if (sum) return element("th", { scope: "row" }, sum);
  return element("th", { scope: "row" }, element("button", {
    type: "button", onclick: () => choose("product", state.product === product ? ALL : product), "aria-pressed": state.product === product,
  }, productName(product)));
}

// The scores of a product with, where each has its own boundary, a slider of the same scale below.
function stripCell(product) {
  if (!bounds().own) return element("td", { class: "strip" }, strip(product));
  const [min, max] = extent();
  return element("td", { class: "strip" }, strip(product), element("input", {
    type: "range", min, max, step: "any", value: boundaryOf(product), "data-product": product, "aria-label": `boundary of ${productName(product)}`,
    oninput: (event) => setBoundary(Number(event.target.value), product),
  }));
}

function shareCell(k, n, kind) {
  return element("td", { class: kind }, element("b", {}, `${k}`), element("small", {}, element("span", { class: "wide" }, ` of ${n} ·`), ` ${rate(k, n)}`));
}

function productRow(product, numbers) {
  const counts = counted(imagesOf(product)), scored = counts.images - counts.failed;
  const first = run().labelled
    ? [shareCell(counts.alarms, counts.good, "alarms"), shareCell(counts.misses, counts.defective, "misses")]
    : [shareCell(counts.called, scored, "misses"), shareCell(counts.unfamiliar, scored, ""), element("td", {}, `${counts.failed}`)];
  const last = run().labelled ? [element("td", {}, ...auroc(numbers)), ...measures(numbers)] : [];
  return element("tr", { class: state.product === product ? "chosen" : null, "data-product": product },
    nameCell(product), ...first, element("td", {}, score(boundaryOf(product))), stripCell(product), ...last);
}

function measures(row) {
  return [row.ap, row.pixel_auroc, row.aupro].map((value) => element("td", {}, percent(value)));
}

function sumRow(row) {
  const counts = counted(imagesOf(ALL)), pooled = row.category === "pooled";
  const first = pooled ? [shareCell(counts.alarms, counts.good, "alarms"), shareCell(counts.misses, counts.defective, "misses")] : [element("td"), element("td")];
  const same = pooled && !bounds().own ? score(bounds().one) : "";
  return element("tr", { class: "sum" }, nameCell(ALL, pooled ? "all together" : "mean of products"), ...first,
    element("td", {}, same), element("td"), element("td", {}, ...auroc(row)), ...measures(row));
}

function showTable() {
  const { labelled, numbers, products } = run(), focused = document.activeElement?.dataset?.product;
  const heads = headings().map((text) => element("th", { scope: "col", class: text === "scores" ? "strip" : null }, ...text.split("\n").flatMap((line, place) => place ? [element("br"), line] : [line])));
  const rows = products.map((_, product) => productRow(product, numbers[product]));
  const sums = labelled ? numbers.slice(products.length).map(sumRow) : [];
  byId("products").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows, ...sums));
  if (focused !== undefined) byId("products").querySelector(`input[data-product="${focused}"]`)?.focus();
  byId("products-legend").textContent = labelled
    ? "In %, with 95 % intervals by bootstrap; “no overlap”: every defective image scores above every good one, and resampling cannot say how sure that is. A product’s name shows it alone."
    : "Nobody has labelled these images: the page shows what was decided, not whether it is right. A product’s name shows it alone.";
}

function showComparison() {
  const labelled = DATA.runs.map((one, number) => number).filter((number) => DATA.runs[number].labelled);
  byId("compare-panel").hidden = labelled.length < 2;
  if (labelled.length < 2) return;
  const products = [...new Set(labelled.flatMap((number) => DATA.runs[number].products))];
  const sums = ["mean", "pooled"].filter((sum) => labelled.some((number) => sumOf(number, sum)));
  const heads = labelled.map((number) => element("th", { scope: "col" }, DATA.runs[number].name));
  const row = (name, cell) => element("tr", {}, element("th", { scope: "row" }, name), ...labelled.map(cell));
  const rows = [
    ...products.map((name) => row(name, (number) => compared(number, DATA.runs[number].products.indexOf(name)))),
    ...sums.map((sum) => row(sum, (number) => comparedSum(number, sum))),
  ];
  byId("compare").replaceChildren(element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "product"), ...heads)), element("tbody", {}, ...rows));
}

// The row of `mean` or `pooled`, which follow the products: a product may have the same name.
function sumOf(number, sum) {
  const { numbers, products } = DATA.runs[number];
  return numbers.slice(products.length).find(({ category }) => category === sum);
}

function comparedSum(number, sum) {
  const row = sumOf(number, sum);
  if (!row) return element("td", {}, "–");
  return sum === "mean" ? element("td", {}, ...auroc(row)) : comparedCell(number, row, ALL);
}

function compared(number, product) {
  return product < 0 ? element("td", {}, "–") : comparedCell(number, DATA.runs[number].numbers[product], product);
}

function comparedCell(number, row, product) {
  const counts = counted(imagesOf(product, number), number);
  return element("td", {}, ...auroc(row), " · ", element("span", { class: "alarms" }, `${counts.alarms} false`), " · ", element("span", { class: "misses" }, `${counts.misses} missed`));
}
