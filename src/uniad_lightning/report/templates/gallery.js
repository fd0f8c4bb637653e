// The gallery: cards of the images in the chosen order, each with the views that its run has.
const VIEWS = { image: "image", overlay: "overlay", map: "map", mask: "mask" };
// Those that any image of the run has.
function views() {
  const without = ["map", "mask"].filter((view) => !run().images.some((image) => image[view]));
  return Object.fromEntries(Object.entries(VIEWS).filter(([view]) => !without.includes(view) && !(view === "overlay" && without.includes("map"))));
}

const cards = new Map(); // by image, so that moving the slider draws no picture again
const grids = new WeakMap(); // decoded maps by image

// The levels of an image's map as a canvas of its own small size.
function gridOf(image) {
  if (!grids.has(image)) {
    const picture = new Image();
    picture.src = `data:image/png;base64,${image.map}`;
    grids.set(image, picture.decode().then(() => picture));
  }
  return grids.get(image);
}

// Draw the map of an image in colours, or with `over` only what is to lie over the photograph.
async function paint(canvas, image, over) {
  const picture = await gridOf(image), [width, height] = image.size, shrink = Math.min(1, 640 / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  const [top, left, bottom, right] = image.region, pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height), { data } = pixels, start = run().scales[image.product];
  for (let place = 0; place < data.length; place += 4) {
    const level = data[place], colour = DATA.colours[level];
    const growth = Math.sqrt(Math.min(1, Math.max(0, (level - start) / ((255 - start) / 2))));
    const inside = data[place + 3];
    [data[place], data[place + 1], data[place + 2]] = colour;
    data[place + 3] = over ? Math.round(0.6 * growth * inside) : inside;
  }
  pen.putImageData(pixels, 0, 0);
}

// Fill a box with one view of an image; `large` takes the full-size file where there is one.
function fill(box, image, view, large = false) {
  if (!image.thumb) return box.replaceChildren(element("span", { class: "without" }, image.error || "no picture"));
  const photograph = () => element("img", { src: large && image.full ? image.full : `data:image/webp;base64,${image.thumb}`, alt: "", draggable: "false" });
  const without = (words) => element("span", { class: "without" }, words);
  if (view === "image") return box.replaceChildren(photograph());
  if (view === "mask") {
    if (image.mask) return box.replaceChildren(element("img", { src: `data:image/png;base64,${image.mask}`, alt: "" }));
    return box.replaceChildren(without(image.label === 0 ? "good: nothing is marked" : "no mask"));
  }
  if (!image.map) return box.replaceChildren(...(view === "overlay" ? [photograph()] : [without("no map")]));
  const canvas = element("canvas");
  paint(canvas, image, view === "overlay");
  return box.replaceChildren(...(view === "overlay" ? [photograph(), canvas] : [canvas]));
}

function badge(image) {
  const decision = decisionOf(image), mistake = mistakeOf(image);
  if (mistake) return ["miss", "alarm"].includes(mistake) && { class: `badge ${mistake}`, text: mistake === "miss" ? "miss" : "false alarm" };
  if (decision === "failed") return { class: "badge strange", text: "not inspected" };
  if (decision === "unfamiliar") return { class: "badge strange", text: "unfamiliar" };
  if (image.label === null) return { class: decision === "defective" ? "badge called" : "badge", text: decision };
  return { class: "badge", text: image.label ? "found" : "passed" };
}

function cardOf(image) {
  if (cards.has(image)) return cards.get(image);
  const box = element("span", { class: "picture" }), mark = element("span"), off = element("span", { class: "off" });
  const name = [productName(image.product), image.kind].filter(Boolean).join(" · ");
  const button = element("button", {
    type: "button", class: "card", onclick: () => openViewer(image),
    onmouseenter: () => hover(true), onmouseleave: () => hover(false), onfocus: () => hover(true), onblur: () => hover(false),
  }, box, element("span", { class: "words" },
    mark, element("span", {}, score(image.score)), element("span", { class: "name", title: name }, name), off,
    element("span", { class: "path", title: image.path }, element("bdi", {}, image.path))));
  const hover = (on) => fill(box, image, on ? (state.view === "image" && views().overlay ? "overlay" : "image") : state.view);
  const reviews = reviewed() ? reviewButtons(image) : null;
  const card = { item: element("li", {}, button, reviews), mark, off, box, reviews, view: null };
  cards.set(image, card);
  return card;
}

function refresh(image) {
  const card = cardOf(image), { class: kind, text } = badge(image);
  if (card.view !== state.view) {
    fill(card.box, image, state.view);
    card.view = state.view;
  }
  if (card.reviews) pressReviews(card.reviews, image);
  card.mark.className = kind;
  card.mark.textContent = text;
  const off = image.score === null ? 0 : image.score - boundaryOf(image.product);
  card.off.textContent = image.score === null ? "" : `${off < 0 ? "−" : "+"}${Number(Math.abs(off).toPrecision(2))}`;
  card.off.title = "from the boundary";
  return card.item;
}

const ORDERS = {
  wrong: { name: "most wrong first", by: (image) => -badnessOf(image) },
  near: { name: "nearest to the boundary", by: (image) => image.score === null ? Infinity : Math.abs(image.score - boundaryOf(image.product)) },
  high: { name: "highest score first", by: (image) => image.score === null ? Infinity : -image.score },
  low: { name: "lowest score first", by: (image) => image.score ?? Infinity },
  table: { name: "as in the table", by: () => 0 },
};
const DECISIONS = {
  "": { name: "all", of: () => true },
  wrong: { name: "wrong ones", labelled: true, of: (image) => mistakeOf(image) !== "" },
  alarm: { name: "false alarms", labelled: true, of: (image) => mistakeOf(image) === "alarm" },
  miss: { name: "misses", labelled: true, of: (image) => mistakeOf(image) === "miss" },
  right: { name: "right ones", labelled: true, of: (image) => image.score !== null && mistakeOf(image) === "" },
  defective: { name: "called defective", of: (image) => decisionOf(image) === "defective" },
  good: { name: "called good", of: (image) => decisionOf(image) === "good" },
  unfamiliar: { name: "unfamiliar", of: (image) => image.unfamiliar === true },
  reviewed: { name: "with a verdict", reviewed: true, of: (image) => verdictOf(image) !== null },
  unreviewed: { name: "without a verdict", reviewed: true, of: (image) => verdictOf(image) === null },
  failed: { name: "not inspected", of: (image) => image.score === null },
};

function selected() {
  const wanted = DECISIONS[state.decision].of, { by } = ORDERS[state.order];
  const kept = imagesOf(state.product).filter((image) => wanted(image) && (!state.kind || image.kind === state.kind));
  const keys = new Map(kept.map((image) => [image, by(image)]));
  return kept.sort((a, b) => keys.get(a) - keys.get(b) || 0); // equal ones stay in the order of the table
}

function showGallery() {
  const found = selected(), items = found.slice(0, state.shown).map(refresh), list = byId("cards");
  if (items.length !== list.children.length || items.some((item, place) => item !== list.children[place])) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    if (list.contains(focused)) focused.focus({ preventScroll: true });
  }
  byId("gallery-count").textContent = `${found.length} of ${run().images.length}`;
  byId("more").hidden = found.length <= state.shown;
  byId("more").textContent = `Show more (${found.length - items.length} left)`;
}
