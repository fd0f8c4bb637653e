// Controls, and the first drawing.
let pending = false;

// Draw anew with the next frame, however often it is asked for until then.
function update() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    showControls();
    showReadout();
    showTable();
    showCharts();
    showComparison();
    showGallery();
    showVerdicts();
  });
}

function setBoundary(value, product = state.product) {
  if (!Number.isFinite(value)) return;
  if (!bounds().own) bounds().one = value;
  else if (product !== ALL) bounds().each[product] = value;
  update();
}

function choose(name, value) {
  state[name] = value;
  state.shown = 60;
  update();
}

function chooseRun(number) {
  const before = run().products[state.product];
  state.run = number;
  state.product = before === undefined ? ALL : run().products.indexOf(before);
  cards.clear();
  state.kind = "";
  begin();
}

// Radio buttons that look like one switch.
function choices(name, options, chosen, act) {
  return Object.entries(options).map(([value, text]) => element("label", {},
    element("input", { type: "radio", name, value, checked: value === `${chosen}`, onchange: () => act(value) }), element("span", {}, text)));
}

// Choices are pairs of value and text: of an object those with a number for a name would come first.
function options(select, texts, chosen) {
  select.replaceChildren(...texts.map(([value, text]) => element("option", { value, selected: value === `${chosen}` }, text)));
}

function showControls() {
  const slider = byId("slider"), number = byId("boundary"), [min, max] = extent(), value = boundaryOf(state.product === ALL ? 0 : state.product);
  byId("sliding").hidden = !settable();
  byId("hint").hidden = settable();
  Object.assign(slider, { min, max });
  slider.value = value;
  if (document.activeElement !== number) number.value = Number(value.toPrecision(7));
  byId("product").value = `${state.product}`;
  for (const input of document.getElementsByName("mode")) input.checked = (input.value === "each") === bounds().own;
}

function setView(view) {
  if (!views()[view]) return;
  state.view = view;
  for (const input of document.getElementsByName("view")) input.checked = input.value === view;
  update();
}

// The switch `id` with `texts`, after its legend.
function fillSwitch(id, texts, chosen, act) {
  byId(id).replaceChildren(byId(id).querySelector("legend"), ...choices(id, texts, chosen, act));
}

// Everything that depends on the run.
function begin() {
  const { products, images, name, labelled, boundary } = run();
  byId("run-name").textContent = `${name}, ${images.length} images` + (boundary.method ? `, boundary by ${boundary.method}` : ", no boundary was set: the slider begins where F1 is best, or at the highest score");
  options(byId("product"), [[ALL, "all products"], ...products.map((_, number) => [number, productName(number)])], state.product);
  const kinds = [...new Set(images.map(({ kind }) => kind))].filter(Boolean).sort();
  byId("kind-field").hidden = !kinds.length;
  options(byId("kind"), ["", ...kinds].map((kind) => [kind, kind || "all"]), state.kind);
  const known = Object.entries(DECISIONS).filter(([key, one]) => (labelled || !one.labelled) && (reviewed() || !one.reviewed) && (!["unfamiliar", "failed"].includes(key) || images.some(one.of)));
  if (!known.some(([key]) => key === state.decision)) state.decision = "";
  options(byId("decision"), known.map(([key, one]) => [key, one.name]), state.decision);
  options(byId("order"), Object.entries(ORDERS).map(([key, one]) => [key, !labelled && key === "wrong" ? "most defective first" : one.name]), state.order);
  if (!views()[state.view]) state.view = "image";
  viewer.view = "all";
  fillSwitch("view", views(), state.view, setView);
  fillSwitch("viewer-view", { ...views(), all: "all" }, viewer.view, viewIn);
  update();
}

function reset() {
  state.bounds[state.run] = fresh(run().boundary);
  update();
}

function start() {
  byId("runs").hidden = DATA.runs.length < 2;
  byId("runs").append(...choices("run", Object.fromEntries(DATA.runs.map(({ name }, number) => [number, name])), 0, (number) => chooseRun(Number(number))));
  for (const input of document.getElementsByName("mode")) {
    input.addEventListener("change", () => { bounds().own = input.value === "each"; update(); });
  }
  byId("slider").addEventListener("input", (event) => setBoundary(Number(event.target.value)));
  byId("boundary").addEventListener("input", (event) => event.target.value && setBoundary(Number(event.target.value)));
  byId("product").addEventListener("change", (event) => choose("product", Number(event.target.value)));
  for (const name of ["kind", "decision", "order"]) byId(name).addEventListener("change", (event) => choose(name, event.target.value));
  byId("reset").addEventListener("click", reset);
  byId("more").addEventListener("click", () => { state.shown += 120; update(); });
  document.addEventListener("keydown", (event) => {
    const view = Object.keys(VIEWS)[Number(event.key) - 1];
    if (!view || byId("viewer").open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=number], input[type=text], select")) return;
    setView(view);
  });
  window.addEventListener("resize", update);
  startViewer();
  startVerdicts();
  begin();
}

start();
