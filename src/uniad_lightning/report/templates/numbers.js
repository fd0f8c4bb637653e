// Decisions and counts at the boundaries as they are set now: the same rules as in Python.
function isDefective(image, number = state.run) { return image.score > boundaryOf(image.product, number); }

function decisionOf(image, number = state.run) {
  if (image.score === null) return "failed";
  if (isDefective(image, number)) return "defective";
  return image.unfamiliar ? "unfamiliar" : "good";
}

// "alarm" for a good image called defective, "miss" for a defective one that is not.
function mistakeOf(image, number = state.run) {
  if (image.label === null || image.score === null) return "";
  if (image.label === 1) return isDefective(image, number) ? "" : "miss";
  return isDefective(image, number) ? "alarm" : "";
}

// How far a score is on the wrong side of its boundary; without a label, how far above it.
function badnessOf(image) {
  if (image.score === null) return -Infinity;
  const above = image.score - boundaryOf(image.product);
  return image.label === 1 ? -above : above;
}

function counted(images, number = state.run) {
  const counts = { images: images.length, good: 0, defective: 0, alarms: 0, misses: 0, called: 0, unfamiliar: 0, failed: 0 };
  for (const image of images) {
    const decision = decisionOf(image, number), mistake = mistakeOf(image, number);
    counts.failed += decision === "failed";
    counts.called += decision === "defective";
    counts.unfamiliar += image.unfamiliar === true;
    if (image.score !== null) {
      counts.good += image.label === 0;
      counts.defective += image.label === 1;
    }
    counts.alarms += mistake === "alarm";
    counts.misses += mistake === "miss";
  }
  return counts;
}

// Wilson's 95 % interval of a share of k in n.
function wilson(k, n) {
  const z = 1.959963984540054, middle = (k + z * z / 2) / (n + z * z);
  const half = z / (n + z * z) * Math.sqrt(k * (n - k) / n + z * z / 4);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

// Points of the ROC and the precision-recall curve of a product, one at each distinct score, the highest first.
function curves(product) { return once(`curves ${state.run} ${product}`, () => traced(imagesOf(product))); }

function traced(images) {
  const scored = images.filter(({ score, label }) => score !== null && label !== null).sort((a, b) => b.score - a.score);
  const good = scored.filter(({ label }) => label === 0).length, defective = scored.length - good;
  if (!good || !defective) return null;
  const roc = [[0, 0]], precision = [];
  let alarms = 0, hits = 0;
  scored.forEach(({ score, label }, place) => {
    if (label) hits += 1; else alarms += 1;
    if (place + 1 < scored.length && scored[place + 1].score === score) return;
    roc.push([alarms / good, hits / defective]);
    precision.push([hits / defective, hits / (hits + alarms)]);
  });
  return { roc, precision };
}

// Counts of a product's scores in bins over the extent of the run.
function histogram(product, bins) { return once(`bins ${state.run} ${product} ${bins}`, () => binned(imagesOf(product), bins)); }

function binned(images, bins) {
  const [low, high] = extent(), counts = { good: Array(bins).fill(0), bad: Array(bins).fill(0), all: Array(bins).fill(0) };
  for (const { score, label } of images) {
    if (score === null) continue;
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((score - low) / (high - low) * bins)));
    counts[label === null ? "all" : label ? "bad" : "good"][bin] += 1;
  }
  return counts;
}
