"use strict";
// What the reviewer does: switch, sort, filter, copy, open a run, compare two.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An element with its text and children; names are text, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A table in a frame that scrolls. rows: of texts or elements; the first of a row is its head.
function table(label, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => (text ? make("th", { scope: "col" }, text) : make("td"))));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((text) => make("td", {}, text))));
  return make("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": label },
    make("table", { class: "text" }, make("thead", {}, head), make("tbody", {}, ...body)));
}

const bar = (share, kind = "whole") => {
  const drawn = make("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  drawn.style.width = `${Math.max(0, Math.min(100, share)) * 0.12}rem`;
  return drawn;
};
const fixed = (value, digits) => (value === null || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−"));
const signed = (value, digits) => (value === null || Number.isNaN(value) ? "–" : (value < 0 ? "" : "+") + fixed(value, digits));

// --- tables ---------------------------------------------------------------------------------

byId("more").addEventListener("change", (event) => document.body.classList.toggle("shows-more", event.target.checked));

byId("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  const rows = [...document.querySelectorAll(".numbers tbody tr:not(.section)")];
  for (const row of rows) row.hidden = !row.cells[0].firstChild.textContent.toLowerCase().includes(wanted);
  for (const each of document.querySelectorAll("section.table")) each.hidden = !each.querySelector("tbody tr:not(.section):not([hidden])");
  const shown = rows.filter((row) => !row.hidden).length;
  byId("filtered").textContent = wanted ? `${shown} of ${rows.length} rows` : "";
});

// Sorted by a column, the highest first, then the lowest, then as it was; within each section.
function sort(button) {
  const head = button.closest("th"), all = head.closest("table");
  const next = { descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort")] || "descending";
  for (const other of all.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  if (next !== "none") head.setAttribute("aria-sort", next);
  for (const body of all.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
    rows.forEach((row, place) => (row.dataset.place ??= place));
    const value = (row) => Number(row.cells[head.cellIndex].dataset.value ?? -Infinity);
    const order = { descending: (a, b) => value(b) - value(a), ascending: (a, b) => value(a) - value(b) }[next];
    rows.sort((a, b) => (order && order(a, b)) || a.dataset.place - b.dataset.place);
    body.append(...rows);
  }
}
for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sort(button));

async function copy(title, text) {
  byId("copied-text").value = text;
  let done = "press Ctrl+C";
  byId("copied").showModal();
  byId("copied-text").select();
  try { await navigator.clipboard.writeText(text); done = "it is copied"; } catch { /* the text is selected */ }
  byId("copied-head").textContent = `${title}: ${done}`;
}
for (const button of document.querySelectorAll(".copy"))
  button.addEventListener("click", () => copy(button.getAttribute("aria-label").slice(5), DATA.files[button.dataset.table][button.dataset.kind]));

// --- one run --------------------------------------------------------------------------------

// IoU of each class under a rule, as the package computes it; NaN for a class that is left out.
function ious(run, rule) {
  const { tp, gt, pred } = run.classes;
  return tp.map((hits, k) => {
    const union = gt[k] + pred[k] - hits;
    if (!(rule === "mmseg" ? union > 0 : gt[k] > 0)) return NaN;
    return (100 * hits) / (rule === "cliptrase" ? union + 0.01 : union);
  });
}

// An image's name, as a link where the page has its picture.
const link = (image, run) => {
  const there = document.querySelector(`[data-image="${CSS.escape(image)}"][data-benchmark="${CSS.escape(run.benchmark)}"]`);
  return there ? make("a", { href: there.getAttribute("href") }, image) : image;
};

function showRun(name) {
  const run = DATA.runs[name], group = DATA.groups[run.group], body = byId("run-body");
  const names = [...(run.names ?? group.classes), "no class"], iou = ious(run, run.rule);
  const total = Math.max(1, run.classes.gt.reduce((a, b) => a + b, 0));
  const order = iou.map((_, k) => k).sort((a, b) => (Number.isNaN(iou[a]) ? -1 : iou[a]) < (Number.isNaN(iou[b]) ? -1 : iou[b]) ? 1 : -1);
  const spanned = ([value, span]) => `${value} ${span}`.trim();
  const { cost, made } = run;
  byId("run-head").textContent = name;
  const compare = make("button", { type: "button" }, "Compare it with another run");
  compare.addEventListener("click", () => { choose(name); byId("run").close(); byId("compare").scrollIntoView(); byId("second").focus(); });
  body.replaceChildren(
    make("p", {}, `${run.images} images, ${run.skipped} skipped; rule ${run.rule}. `, compare),
    make("p", {}, `Shown in: ${run.shown.map(([title, row]) => `${title}: ${row}`).join("; ") || "a grid only"}.`),
    make("h3", {}, "The command that makes it again"),
    make("pre", { class: "wrapped", tabindex: "0", "aria-label": "command" }, run.command || "not written down by the version that made this run"),
    make("p", {}, "The same bytes? ", make("code", {}, `cliptrase repeat ${name}`), " makes it again and says so."),
    make("h3", {}, "Scores under all rules, in per cent [95 %]"),
    table("Scores under all rules", ["rule", ...DATA.metrics], Object.entries(run.scores).map(([rule, scores]) =>
      [rule + (rule === run.rule ? " (its own)" : ""), ...DATA.metrics.map((metric) => spanned(scores[metric]))])),
    make("h3", {}, "Classes, the best first"),
    table("Classes", ["class", "IoU", "", "of the pixels", "predicted", "most of what is missed is taken for"], order.map((k) => [
      names[k], fixed(iou[k], 1), bar(iou[k]),
      `${((100 * run.classes.gt[k]) / total).toFixed(2)} %`, `${((100 * run.classes.pred[k]) / total).toFixed(2)} %`,
      run.classes.taken[k] < 0 ? "" : `${names[run.classes.taken[k]]}, ${run.classes.of[k].toFixed(1)} % of the class`])),
    make("h3", {}, "Most confused"),
    table("Confusions", ["true class", "predicted", "pixels", "of the class"], run.confusions.map((each) =>
      [each.truth, each.predicted, String(each.pixels), `${each.share.toFixed(1)} %`])),
    ...(run.errors.length ? [
      make("h3", {}, "Errors by category, per cent of the scored pixels; mIoU of borders, and of two oracles that know the ground truth [95 %]"),
      table("Errors by category", ["what", "per cent", "", "most of them in"], run.errors)] : []),
    ...(run.certainty ? [
      make("h3", {}, "How far its logits can be trusted"),
      make("p", {}, `Calibration error (ECE) ${fixed(run.certainty.ECE, 2)} %; area under risk and coverage (AURC) ${fixed(run.certainty.AURC, 2)} %; ` +
        `AUROC of the best logit for the background ${fixed(run.certainty.AUROC, 2)} %. Wrong of the surest tenth of the pixels, two tenths, … all: ` +
        `${run.certainty.risk.map((value) => fixed(value, 1)).join(", ")} %.`),
      table("Reliability", ["confidence", "right", "", "pixels counted"], run.certainty.reliability.map(([confidence, right, pixels]) =>
        [`${fixed(confidence, 1)} %`, `${fixed(right, 1)} %`, bar(right), String(pixels)]))] : []),
    make("h3", {}, "Worst images, by their own mIoU"),
    table("Worst images", ["image", "mIoU"], run.worst.map(([image, value]) => [link(image, run), value.toFixed(1)])),
    make("h3", {}, "Cost"),
    table("Cost", ["what", "value"], [
      ...Object.entries(cost.seconds).map(([stage, seconds]) => [`seconds, ${stage}`, seconds.toFixed(1)]),
      ["runs in the pass", String(cost.runs_in_pass ?? "unknown")],
      ["peak memory", cost.peak_memory_bytes ? `${(cost.peak_memory_bytes / 1e9).toFixed(2)} GB` : "unknown"],
      ["operations of an image", `${(cost.flops / 1e9).toFixed(2)} G`]]),
    make("h3", {}, "Where it comes from"),
    make("pre", { tabindex: "0", "aria-label": "provenance" }, JSON.stringify(made, null, 1)),
    make("h3", {}, "Configuration"),
    make("pre", { tabindex: "0", "aria-label": "configuration" }, run.config));
  if (!byId("run").open) byId("run").showModal();
  byId("run").scrollTop = 0;
}

// --- one picture ----------------------------------------------------------------------------

const seen = {}; // what is shown: the image, its patches down and across, both maps, the patch

async function decoded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

// The numbers of a grey PNG, row by row.
async function numbers(address) {
  const image = await decoded(address), context = make("canvas", { width: image.width, height: image.height }).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data.filter((_, place) => place % 4 === 0);
}

async function showPicture(place, benchmark) {
  const shown = DATA.pictures.find((each) => each.benchmark === benchmark), picture = shown?.pictures[place];
  if (!picture) return;
  const thumb = document.querySelectorAll(`a[data-benchmark="${CSS.escape(benchmark)}"] img`)[place];
  byId("picture-head").textContent = `${benchmark}, image ${picture.id} (${picture.why})`;
  const heads = ["ground truth", ...shown.runs.map(({ row }) => row)];
  byId("maps").replaceChildren(...picture.maps.map((source, at) => {
    const run = shown.runs[at - 1], score = run ? `, mIoU ${picture.scores[at - 1].toFixed(1)}` : "";
    return make("figure", {}, make("img", { src: source, alt: `label map: ${heads[at]}` }),
      make("figcaption", {}, run ? make("a", { href: `#run=${encodeURIComponent(run.run)}` }, heads[at]) : heads[at], score));
  }));
  byId("legend").replaceChildren(...picture.seen.map((k) => {
    const swatch = make("span", { "aria-hidden": "true" });
    swatch.style.background = `rgb(${shown.colours[k].join(" ")})`;
    return make("li", {}, swatch, shown.names[k]);
  }));
  const asked = location.hash;
  const [image, like, attended] = await Promise.all([decoded(thumb.src), numbers(picture.correlation), numbers(picture.attention)]);
  if (location.hash !== asked) return; // something else was opened meanwhile
  Object.assign(seen, { image, down: shown.grid[0], across: shown.grid[1], like, attended, top: picture.top });
  [byId("heat").width, byId("heat").height] = [image.width, image.height];
  heat(Math.floor(seen.down / 2) * seen.across + Math.floor(seen.across / 2));
  if (!byId("picture").open) byId("picture").showModal();
}

// The heat of a patch over the picture: a blend of both maps, each from its least to its most.
function heat(patch) {
  const { image, down, across } = seen, count = across * down, t = byId("blend").value / 100, context = byId("heat").getContext("2d");
  const [like, attended] = [seen.like, seen.attended].map((map) => [...map.subarray(patch * count, (patch + 1) * count)]);
  const scaled = (row) => row.map((value) => (value - Math.min(...row)) / (Math.max(...row) - Math.min(...row) || 1));
  const [a, b] = [scaled(like), scaled(attended)], [wide, high] = [image.width / across, image.height / down];
  const corner = (place) => [(place % across) * wide, Math.floor(place / across) * high];
  seen.patch = patch;
  context.drawImage(image, 0, 0);
  for (let place = 0; place < count; place++) {
    const value = (1 - t) * a[place] + t * b[place];
    context.fillStyle = `rgb(${255 * value} ${200 * value * value} ${120 * (1 - value)} / 0.62)`;
    context.fillRect(...corner(place), wide, high);
  }
  context.lineWidth = 2;
  context.strokeStyle = "white";
  context.strokeRect(...corner(patch), wide, high);
  const cosine = (step) => signed((2 * step) / 255 - 1, 2), others = like.filter((_, place) => place !== patch);
  const most = attended.indexOf(Math.max(...attended)), share = ((100 * seen.top * attended[most]) / 255).toFixed(2);
  byId("patch").textContent = `Patch ${patch}, row ${Math.floor(patch / across)}, column ${patch % across}. Correlation with the ` +
    `others: ${cosine(Math.min(...others))} to ${cosine(Math.max(...others))}. Most attention: ${share} % to patch ${most}.`;
}

const within = (place, count) => Math.max(0, Math.min(count - 1, Math.floor(place)));
function point(event) {
  const { top, left, width, height } = event.target.getBoundingClientRect(), { down, across } = seen;
  const row = within(((event.clientY - top) / height) * down, down), column = within(((event.clientX - left) / width) * across, across);
  heat(row * across + column);
}
for (const kind of ["pointermove", "pointerdown"]) byId("heat").addEventListener(kind, point);
byId("heat").addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  heat(within(Math.floor(seen.patch / seen.across) + step[0], seen.down) * seen.across + within((seen.patch % seen.across) + step[1], seen.across));
});
byId("blend").addEventListener("input", () => heat(seen.patch));

// The address names the run or the picture that is open.
function plain(text) {
  try { return decodeURIComponent(text); } catch { return ""; } // such an address names nothing
}
function follow() {
  const [kind, value = ""] = location.hash.slice(1).split("=").map(plain), comma = value.indexOf(",");
  for (const other of ["run", "picture"]) if (other !== kind) byId(other).close();
  if (kind === "run" && value in DATA.runs) showRun(value);
  if (kind === "picture") showPicture(Number(value.slice(0, comma)), value.slice(comma + 1));
}
for (const kind of ["run", "picture"])
  byId(kind).addEventListener("close", () => {
    if (location.hash.startsWith(`#${kind}=`)) history.replaceState(null, "", "#");
  });
window.addEventListener("hashchange", follow);

// --- two runs -------------------------------------------------------------------------------

const label = (name) => `${DATA.runs[name].shown[0]?.[1] ?? ""} · ${name}`;
const options = (names) => names.map((name) => make("option", { value: name }, label(name)));

// The pair of two runs of a group: what run i has more than run j.
function pairOf(group, i, j) {
  const rules = group.runs.map((name) => DATA.runs[name].rule);
  group.places ??= new Map(rules.flatMap((rule, a) => rules.flatMap((other, b) =>
    b > a || (other !== rule && a !== b) ? [`${a} ${b}`] : [])).map((key, place) => [key, place]));
  const stored = group.pairs[group.places.get(`${i} ${j}`) ?? -1];
  if (stored) return unpacked(group, stored, 1);
  return unpacked(group, group.pairs[group.places.get(`${j} ${i}`)], -1);
}

function unpacked(group, [notes, ...numbers], sign) {
  const part = (value, unit) => (value === null ? null : (sign * value) / unit);
  const metrics = DATA.metrics.map((_, place) => {
    const [gap, low, high] = numbers.slice(3 * place, 3 * place + 3).map((value) => part(value, 100));
    return sign < 0 ? [gap, high, low] : [gap, low, high];
  });
  const [better, worse, ...rest] = numbers.slice(3 * metrics.length);
  const images = [];
  for (let at = 0; at < rest.length; at += 4) {
    const [value, other] = rest.slice(at + 1, at + 3).map((each) => (each === null ? null : each / 10));
    images.push([group.images[rest[at]], ...(sign < 0 ? [other, value] : [value, other]), part(rest[at + 3], 10)]);
  }
  return { metrics, images, notes: group.notes[notes], better: sign < 0 ? worse : better, worse: sign < 0 ? better : worse };
}

function showPair() {
  const [first, second] = [byId("first").value, byId("second").value];
  if (!first || !second) return byId("compared").replaceChildren("There is no other run of the same images and classes.");
  const [run, other] = [DATA.runs[first], DATA.runs[second]], group = DATA.groups[run.group];
  const pair = pairOf(group, run.place, other.place);
  const [iou, others] = [run, other].map((each) => ious(each, run.rule));
  const gaps = iou.map((value, k) => value - others[k]);
  const size = (k) => (Number.isNaN(gaps[k]) ? -1 : Math.abs(gaps[k]));
  const order = gaps.map((_, k) => k).sort((a, b) => size(b) - size(a));
  const judged = (low, high) => (low === null || (low <= 0 && high >= 0) ? "not significant" : "significant");
  byId("compared").replaceChildren(
    make("p", {}, `${first} minus ${second}: ${run.images} images, rule ${run.rule}. Better on ${pair.better} images, worse on ${pair.worse}.`),
    ...pair.notes.map((note) => make("p", {}, `Note: ${note}.`)),
    table("Metrics of the two runs", ["metric", "first", "second", "difference [95 %]", ""], DATA.metrics.map((metric, place) => {
      const [gap, low, high] = pair.metrics[place];
      const span = low === null ? "" : ` [${signed(low, 2)}, ${signed(high, 2)}]`;
      return [metric, run.scores[run.rule][metric][0], other.scores[run.rule][metric][0], signed(gap, 2) + span, judged(low, high)];
    })),
    make("h3", {}, "Classes, the largest difference of IoU first"),
    table("Classes of the two runs", ["class", "first", "second", "difference", ""], order.map((k) =>
      [(run.names ?? group.classes)[k], fixed(iou[k], 1), fixed(others[k], 1), signed(gaps[k], 1), bar(Math.abs(gaps[k]), gaps[k] < 0 ? "down" : "up")])),
    make("h3", {}, "Images that differ most, by their own mIoU"),
    table("Images of the two runs", ["image", "first", "second", "difference"], pair.images.map(([image, value, its, gap]) =>
      [link(image, run), fixed(value, 1), fixed(its, 1), signed(gap, 1)])));
}

// Sets the first run, and offers those that it can be compared with.
function choose(name, with_) {
  byId("first").value = name;
  const others = name ? DATA.groups[DATA.runs[name].group].runs.filter((each) => each !== name) : [];
  byId("second").replaceChildren(...options(others));
  if (others.includes(with_)) byId("second").value = with_;
  showPair();
}
byId("first").append(...options(DATA.groups.flatMap((group) => group.runs)));
byId("first").addEventListener("change", (event) => choose(event.target.value, byId("second").value));
byId("second").addEventListener("change", showPair);
choose(DATA.groups[0]?.runs[0] ?? "");
follow();
