// A player: boxes that belong to steps, counters, and a sentence for each step. The scene was laid out in Python (play.py).

const ICONS = {
  first: "M6 5h2v14H6zM19 5v14L9 12z", back: "M17 5v14L7 12z", play: "M8 5v14l11-7z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z", forward: "M7 5v14l10-7z", last: "M16 5h2v14h-2zM5 5v14l10-7z",
};
const icon = (name) => h("svg:svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("svg:path", { d: ICONS[name] }));
const tense = (step, now) => (step < now ? "past" : step === now ? "now" : "future");

/** A stage: its boxes as groups that only change their tense, and the readings of its active tile. Returns [node, show, readings]. */
function stage(s) {
  const short = (v) => Number(v.toPrecision(6));
  const rect = (x, y, w, n, air) => h("svg:rect", { x: short(x + air), y: short(y + air), width: short(w - 2 * air), height: short(n - 2 * air) });
  const rects = (x, y, w, n) => s.cells ? Array.from({ length: w * n }, (_, c) => rect(x + (c % w), y + Math.floor(c / w), 1, 1, 0.08)) : [rect(x, y, w, n, 0.03 * Math.min(w, n))];
  const groups = s.boxes.map(([k, kind, ...box]) => [k, h("svg:g", { class: `lk-k-${kind}` }, ...rects(...box))]);
  const mask = s.mask ? h("svg:path", { d: `M0 0H${s.cols}V${s.rows}z` }) : "";
  const scene = h("svg:svg", { class: "lk-scene", style: `--ratio: ${s.cols / s.rows}`, viewBox: `0 0 ${s.cols} ${s.rows}`, role: "img", "aria-label": `${s.label}: ${s.axes}` },
    ...groups.map(([, g]) => g), mask);
  const readings = h("div", { class: "lk-readings" });
  const show = (now) => {
    for (const [k, g] of groups) if (g.dataset.t !== tense(k, now)) g.dataset.t = tense(k, now);
    if (s.readings) readings.replaceChildren(...queries(s.head, s.readings[Math.min(now, s.readings.length - 1)]));
  };
  return [h("div", { class: "lk-stage" }, h("p", { class: "lk-caption" }, h("b", {}, s.label), h("span", {}, s.axes)), scene), show, readings];
}

/** The running numbers of each query, eight at most. */
function queries(head, list) {
  const cell = (v) => (v === null ? "−∞" : typeof v === "number" ? v.toFixed(2) : v);
  return [table(head, list.slice(0, 8).map((r) => r.map(cell))), list.length > 8 ? h("p", {}, `and ${list.length - 8} more queries`) : ""];
}

/** Counters side by side, each with a bar. Returns [node, show]. */
function meters(stages) {
  const cells = stages[0].meters.map((_, m) => stages.map((s) => {
    const [, values, full] = s.meters[m], bar = h("i"), number = h("span");
    return { td: h("td", {}, h("div", {}, number, bar)), values, set(v) { number.textContent = text(v); bar.style.setProperty("--share", v / (full || 1)); } };
  }));
  const head = h("thead", {}, h("tr", {}, h("td"), ...stages.map((s) => h("th", { scope: "col" }, s.label))));
  const body = cells.map((row, m) => h("tr", {}, h("th", { scope: "row" }, stages[0].meters[m][0]), ...row.map((c) => c.td)));
  return [h("table", { class: "lk-meters" }, stages.length > 1 ? head : "", h("tbody", {}, ...body)),
    (now) => cells.flat().forEach((c) => c.set(c.values[Math.min(now, c.values.length - 1)]))];
}

function render({ model, el }) {
  const spec = model.get("spec"), n = spec.says.length;
  const stages = spec.stages.map(stage), alone = stages.length === 1, [counters, count] = meters(spec.stages);
  const chips = spec.text.map(([word, k]) => [k, h("span", { class: "lk-chip" }, word)]);
  const say = sentence(spec.says);
  const go = (k) => { model.set("step", Math.max(0, Math.min(n - 1, k))); model.save_changes(); };
  const at = () => model.get("step");

  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; dress(); };
  const start = () => {
    if (at() === n - 1) go(0);
    timer = setInterval(() => { go(at() + 1); if (at() === n - 1 || !el.isConnected) stop(); }, 900 / +speed.value);
    dress();
  };
  const button = (name, label, onclick) => h("button", { type: "button", class: name === "play" && "lk-primary", "aria-label": label, title: label, onclick }, icon(name));
  const halt = (k) => () => { if (timer) stop(); go(k()); };
  const first = button("first", "First step", halt(() => 0)), back = button("back", "Step back", halt(() => at() - 1));
  const toggle = button("play", "Play", () => (timer ? stop() : start()));
  const next = button("forward", "Step forward", halt(() => at() + 1)), last = button("last", "Last step", halt(() => n - 1));
  const slider = h("input", { type: "range", min: 0, max: n - 1, step: 1, "aria-label": "Step", oninput: () => halt(() => +slider.value)() });
  const speed = h("select", { "aria-label": "Speed", onchange: () => { if (timer) { stop(); start(); } } },
    ...["0.5", "1", "2", "4"].map((v) => h("option", { value: v, selected: v === "1" }, v + "×")));
  const counter = h("span", { class: "lk-count" });
  const keys = { ArrowLeft: () => at() - 1, ArrowRight: () => at() + 1, Home: () => 0, End: () => n - 1 };
  const transport = h("div", { class: "lk-transport", role: "group", "aria-label": "Player", onkeydown: (e) => {
    if (e.target.tagName === "BUTTON" && keys[e.key]) { e.preventDefault(); halt(keys[e.key])(); }
  } }, first, back, toggle, next, last, speed, slider, counter);

  /** The play button says what it will do; while it runs, the sentence is not read aloud at every step. */
  function dress() {
    toggle.replaceChildren(icon(timer ? "pause" : "play"));
    toggle.setAttribute("aria-label", timer ? "Pause" : "Play");
    toggle.title = timer ? "Pause" : "Play";
    say.setAttribute("aria-live", timer ? "off" : "polite");
  }
  function update() {
    const now = at();
    stages.forEach(([, show]) => show(now));
    count(now);
    for (const [k, chip] of chips) chip.dataset.t = tense(k, now);
    slider.value = now;
    slider.style.setProperty("--at", n > 1 ? now / (n - 1) : 1);
    slider.setAttribute("aria-valuetext", `${now + 1} of ${n}`);
    counter.textContent = `${now + 1} / ${n}`;
    say.replaceChildren(...spec.says[now].map((part) => h("span", {}, ...rich(part))));
    folded.fill();
    box.classList.toggle("lk-unused", now === 0);
  }
  const columns = spec.stages.flatMap((s) => s.meters.map(([label, values]) => [spec.stages.length > 1 ? `${s.label}: ${label}` : label, values]));
  const folded = numbers(spec.title, ["step", ...columns.map(([label]) => label)],
    () => spec.says.map((_, k) => [String(k + 1), ...columns.map(([, values]) => text(values[Math.min(k, values.length - 1)]))]));
  const legend = h("p", { class: "lk-legend" }, ...spec.legend.map(([kind, t, words]) => h("span", {}, h("i", { class: `lk-k-${kind}`, "data-t": t }), words)));

  const box = card(el, model, "play", "Recorded from a real run.", "Python follows you: read .step.", transport,
    chips.length ? h("p", { class: "lk-text" }, ...chips.map(([, chip]) => chip)) : null,
    h("div", { class: "lk-stages" }, ...stages.map(([node]) => node), ...(alone ? [h("div", {}, stages[0][2], counters)] : stages.map(([, , readings]) => readings))),
    legend, say, alone ? null : counters, folded.details);
  model.on("change:step", update);
  update();
  return () => model.off("change:step", update);
}
export default { render };
