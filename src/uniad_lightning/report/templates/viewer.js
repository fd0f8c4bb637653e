// The viewer: one image large, all its views side by side, zoom and a walk through the gallery.
const viewer = { image: null, view: "all", z: 1, x: 0, y: 0 };

function openViewer(image) {
  viewer.image = image;
  fit();
  if (!byId("viewer").open) byId("viewer").showModal();
  showViewer();
}

function showViewer() {
  const { image } = viewer, wanted = viewer.view === "all" ? Object.keys(views()) : [viewer.view];
  const panes = wanted.map((view) => {
    const box = element("span", { class: "picture" });
    fill(box, image, view, true);
    return element("div", { class: "pane" }, element("div", { class: "inner" }, box), element("span", { class: "label" }, VIEWS[view]));
  });
  byId("stage").replaceChildren(...panes);
  arrange();
  byId("viewer-title").textContent = image.path;
  const facts = [
    ["product", productName(image.product)], ["kind of defect", image.kind || (image.label === null ? "not labelled" : "not known")],
    ["score", score(image.score)], ["boundary", score(boundaryOf(image.product))], ["decision", badge(image).text],
    ["looks like", image.found], ["familiar", image.unfamiliar ? "no" : null], ["size", image.size && `${image.size[0]} × ${image.size[1]}`], ...elsewhere(image),
  ];
  byId("viewer-facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  for (const input of byId("viewer-view").querySelectorAll("input")) input.checked = input.value === viewer.view;
  const order = selected(), place = order.indexOf(image);
  byId("before").disabled = place < 1;
  byId("after").disabled = place < 0 || place + 1 >= order.length;
  pressReviews(byId("viewer-reviews"), image);
}

// As many columns as make the panes largest.
function arrange() {
  const stage = byId("stage"), panes = stage.children.length, [width, height] = viewer.image.size || [1, 1];
  const sideOf = (columns) => Math.min(stage.clientWidth / columns / width, stage.clientHeight / Math.ceil(panes / columns) / height);
  const best = [1, 2, 3, 4].filter((columns) => columns <= panes).sort((a, b) => sideOf(b) - sideOf(a))[0];
  stage.style.gridTemplateColumns = `repeat(${best}, minmax(0, 1fr))`;
}

// What the other runs say of the same image.
function elsewhere(image) {
  return DATA.runs.flatMap((other, number) => {
    const same = number === state.run ? null : other.images.find(({ path }) => path === image.path);
    return same ? [[`in ${other.name}`, `${score(same.score)}, ${decisionOf(same, number)}`]] : [];
  });
}

function step(by) {
  const order = selected(), next = order[order.indexOf(viewer.image) + by];
  if (next) openViewer(next);
}

function fit() { move(0, 0, 1); }

function move(x, y, z) {
  Object.assign(viewer, { z: Math.min(16, Math.max(1, z)) });
  Object.assign(viewer, viewer.z === 1 ? { x: 0, y: 0 } : { x, y });
  const { style } = byId("stage");
  style.setProperty("--x", `${viewer.x}px`);
  style.setProperty("--y", `${viewer.y}px`);
  style.setProperty("--z", viewer.z);
}

function zoom(times) { move(viewer.x * times, viewer.y * times, viewer.z * times); }

function viewIn(view) {
  if (view !== "all" && !views()[view]) return;
  viewer.view = view;
  showViewer();
}

const KEYS = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit,
  1: () => viewIn("image"), 2: () => viewIn("overlay"), 3: () => viewIn("map"), 4: () => viewIn("mask"), 5: () => viewIn("all"),
};

function startViewer() {
  const stage = byId("stage");
  byId("close").addEventListener("click", () => byId("viewer").close());
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("closer").addEventListener("click", () => zoom(1.5));
  byId("farther").addEventListener("click", () => zoom(1 / 1.5));
  byId("fit").addEventListener("click", fit);
  byId("viewer").addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
    if (!act || (event.target.type === "radio" && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  });
  byId("viewer").addEventListener("click", (event) => event.target === byId("viewer") && byId("viewer").close());
  byId("viewer").addEventListener("close", () => cardOf(viewer.image).item.firstChild.focus());
  window.addEventListener("resize", () => byId("viewer").open && arrange());
  stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2); }, { passive: false });
  stage.addEventListener("pointerdown", () => {
    const stop = new AbortController();
    window.addEventListener("pointermove", (event) => move(viewer.x + event.movementX, viewer.y + event.movementY, viewer.z), { signal: stop.signal });
    window.addEventListener("pointerup", () => stop.abort(), { signal: stop.signal });
  });
}
