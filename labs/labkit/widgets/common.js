// What all widgets share. Python puts this before each widget's own file, so that one module is shipped.

const PREFIXED = { bytes: "B", seconds: "s", FLOPs: "FLOP", "bytes/s": "B/s", "FLOPs/s": "FLOP/s" };
let cards = 0;

/** An element with attributes, listeners (`onclick`) and children; `svg:` before the tag makes it a drawing's. */
function h(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null));
  return node;
}

/** Text in which `**…**` is bold. */
const rich = (text) => text.split("**").map((part, i) => (i % 2 ? h("b", {}, part) : part));

/** A number as people read it; the twin of `base.text`. */
function text(value, unit = "") {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  const plain = (v) => v.toLocaleString("en-US", { maximumFractionDigits: 10 });
  if (unit in PREFIXED) {
    let v = Number(value.toPrecision(3)), power = 0;
    for (; Math.abs(v) >= 1000 && power < 5; power++) v /= 1000;
    for (; v && Math.abs(v) < 1 && power > -3 && unit === "seconds"; power--) v *= 1000;
    return plain(Number(v.toPrecision(3))) + "\u00a0" + ["n", "µ", "m", "", "k", "M", "G", "T", "P"][power + 3] + PREFIXED[unit];
  }
  const v = unit === "%" ? value * 100 : value;
  const gap = unit === "%" || unit === "×" ? unit : unit && "\u00a0" + (v === 1 ? unit.replace(/s$/, "") : unit);
  if (v && Math.abs(v) < 1e-4) {
    const [mantissa, exponent] = v.toExponential(3).split("e");
    return Number(mantissa) + "e" + Number(exponent) + gap;
  }
  return plain(Number.isInteger(v) ? v : Number(v.toPrecision(unit === "%" ? 3 : 4))) + gap;
}

/** The sentence under a picture, read aloud when it changes; each has parts. Room is kept for the longest: nothing below it jumps. */
function sentence(all) {
  const lines = (width) => Math.max(...all.map((parts) => parts.reduce((sum, p) => sum + Math.ceil(p.replaceAll("**", "").length / width), 0)));
  return h("p", { class: "lk-say", role: "status", "aria-live": "polite", style: `--wide: ${lines(88)}; --narrow: ${lines(40)}` });
}

/** A table; the first cell of each row is its header. */
function table(head, rows) {
  const row = (r) => h("tr", {}, h("th", { scope: "row" }, r[0]), ...r.slice(1).map((c) => h("td", {}, c)));
  return h("table", {}, h("thead", {}, h("tr", {}, ...head.map((c) => h("th", { scope: "col" }, c)))), h("tbody", {}, ...rows.map(row)));
}

/** The folded numbers. `rows` is asked only while they are open. */
function numbers(title, head, rows) {
  const box = h("div", { class: "lk-scroll", tabindex: 0, role: "region", "aria-label": `Numbers: ${title}` });
  const fill = () => details.open && box.replaceChildren(table(head, rows()));
  const details = h("details", { class: "lk-numbers", ontoggle: fill }, h("summary", {}, "Numbers"), box);
  addEventListener("beforeprint", () => box.replaceChildren(table(head, rows())));
  return { details, fill };
}

/** The card: title and note on top, a line at the foot that says whether Python listens. */
function card(root, model, kind, still, live, ...body) {
  const spec = model.get("spec"), id = `lk${++cards}`;
  const badge = h("p", { class: "lk-badge" }, still);
  const keep = (e) => { if (!e.ctrlKey && !e.metaKey && !e.altKey) e.stopPropagation(); }; // else JupyterLab takes arrows and letters for itself
  root.append(h("div", { class: `lk lk-${kind}`, role: "group", "aria-labelledby": id, "data-lm-suppress-shortcuts": true, onkeydown: keep },
    h("p", { class: "lk-title", id }, spec.title), spec.describe ? h("p", { class: "lk-note" }, ...rich(spec.describe)) : null, ...body, badge));
  model.on("msg:custom", (m) => {
    if (m === "pong") badge.replaceChildren(h("b", {}, "Live."), " " + live);
  });
  model.send("ping");
  return root.firstElementChild;
}
