// Verdicts of a person on predictions: kept in this browser, and downloaded as the table that `uniad feedback` takes.
const VERDICTS = ["good", "defective"];
const REVIEWER = "uniad reviewer"; // key of the name of who reviews
const verdicts = DATA.runs.map(() => new Map()); // by run and path: verdict, its time, who, and the score it was given on
let keeps = true; // whether this browser keeps anything

// What a page opened from a file may not do in every browser, and what may be full or switched off.
function tried(act) {
  try { return act(); } catch { keeps = false; return null; }
}

function placeOf(number) { return `uniad verdicts ${DATA.runs[number].feedback.key}`; }

function reviewed(number = state.run) { return DATA.runs[number].feedback !== null; }

// Read what was kept; a verdict on another score is on another image of the same name, and is forgotten.
function loadVerdicts() {
  for (const [number, { images }] of DATA.runs.entries()) {
    if (!reviewed(number)) continue;
    let stored = {};
    const text = tried(() => localStorage.getItem(placeOf(number)));
    try { stored = Object(JSON.parse(text ?? "{}")); } catch { /* another program's */ }
    for (const { path, score: value } of images) {
      const one = Object.hasOwn(stored, path) ? stored[path] : null;
      if (one && VERDICTS.includes(one.verdict) && one.score === value) verdicts[number].set(path, one);
    }
  }
}

function saveVerdicts() {
  tried(() => localStorage.setItem(placeOf(state.run), JSON.stringify(Object.fromEntries(verdicts[state.run]))));
}

// The verdict on an image: given on this page, or one that `uniad feedback` has kept.
function verdictOf(image) { return verdicts[state.run].get(image.path)?.verdict ?? image.verdict ?? null; }

// Give a verdict; null takes back the one that was given on this page.
function review(image, verdict) {
  if (verdict === null) verdicts[state.run].delete(image.path);
  else verdicts[state.run].set(image.path, { verdict, when: new Date().toISOString(), by: byId("reviewer").value.trim(), score: image.score });
  saveVerdicts();
  update();
}

// Two buttons, of which one may be pressed; pressing it again takes the verdict back.
function reviewButtons(image) {
  const buttons = VERDICTS.map((verdict) => element("button", {
    type: "button", class: `review ${verdict}`, "aria-pressed": "false", onclick: () => review(image, verdictOf(image) === verdict ? null : verdict),
  }, verdict));
  return element("div", { class: "reviews", role: "group", "aria-label": `verdict on ${image.path}` }, ...buttons);
}

function pressReviews(group, image) {
  const verdict = verdictOf(image);
  for (const [place, button] of [...group.children].entries()) button.setAttribute("aria-pressed", `${VERDICTS[place] === verdict}`);
}

// A cell that a spreadsheet takes neither for a formula nor for two cells: as `csv_text` in Python.
function cell(text) {
  const marked = text.length > 1 && /^[=+\-@\t\r\n＝＋－＠']/.test(text) && (text !== text.trim() || Number.isNaN(Number(text)));
  const plain = marked ? `'${text}` : text;
  return /[",;\t\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function verdictTable() {
  const rows = [...verdicts[state.run]].map(([path, { verdict, by, when }]) => [path, verdict, by, when]);
  return [["path", "verdict", "by", "when"], ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function download() {
  const address = URL.createObjectURL(new Blob(["\ufeff", verdictTable()], { type: "text/csv" })); // the mark tells a spreadsheet that it is UTF-8
  element("a", { href: address, download: "verdicts.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function showVerdicts() {
  for (const id of ["verdicts", "viewer-reviews", "viewer-keys"]) byId(id).hidden = !reviewed();
  if (!reviewed()) return;
  const count = verdicts[state.run].size, of = (verdict) => [...verdicts[state.run].values()].filter((one) => one.verdict === verdict).length;
  byId("verdicts-count").textContent = count ? `${of("good")} good, ${of("defective")} defective` : "none yet";
  byId("download").disabled = byId("forget").disabled = !count;
  byId("verdicts-command").textContent = run().feedback.command;
  byId("verdicts-lost").hidden = keeps;
  if (byId("viewer").open) pressReviews(byId("viewer-reviews"), viewer.image);
}

// In the viewer a key reviews the image and goes on to the next.
function reviewAndGoOn(verdict) {
  if (!reviewed()) return;
  const order = selected(), next = order[order.indexOf(viewer.image) + 1];
  review(viewer.image, verdict);
  if (next) openViewer(next);
}

function startVerdicts() {
  loadVerdicts();
  byId("reviewer").value = tried(() => localStorage.getItem(REVIEWER)) ?? "";
  byId("reviewer").addEventListener("change", (event) => tried(() => localStorage.setItem(REVIEWER, event.target.value)));
  byId("download").addEventListener("click", download);
  byId("forget").addEventListener("click", () => {
    if (!confirm(`Take back ${verdicts[state.run].size} verdicts that were given on this page?`)) return;
    verdicts[state.run].clear();
    saveVerdicts();
    update();
  });
  for (const [place, button] of [...byId("viewer-reviews").children].entries()) {
    button.addEventListener("click", () => review(viewer.image, verdictOf(viewer.image) === VERDICTS[place] ? null : VERDICTS[place]));
  }
  const keys = { g: "good", d: "defective" };
  byId("viewer").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key]) reviewAndGoOn(keys[event.key]);
    else if (event.key === "u" && reviewed()) review(viewer.image, null);
  });
  byId("cards").addEventListener("keydown", (event) => {
    const image = reviewedCard(event.target);
    if (!image || event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key]) review(image, keys[event.key]);
    else if (event.key === "u") review(image, null);
  });
}

// The image of the card that has the focus.
function reviewedCard(target) {
  if (!reviewed()) return null;
  const item = target.closest("li");
  return [...cards].find(([, card]) => card.item === item)?.[0] ?? null;
}
