// A prediction: choose, lock, then see what was measured and how far off you were.

const STEPS = 200;
const NEAR = 1.15; // within this factor a guess counts as right

/** The value at a position from 0 to 1, in two digits. */
function valueAt(share, [low, high, log]) {
  const exact = log ? low * (high / low) ** share : low + (high - low) * share;
  return Number(exact.toPrecision(2));
}
const shareOf = (value, [low, high, log]) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));

/** Kept on this machine only; a page opened from a file may have no storage. */
const memory = {
  get(key) { try { return JSON.parse(localStorage.getItem("labkit.bet." + key)); } catch { return null; } },
  set(key, value) { try { localStorage.setItem("labkit.bet." + key, JSON.stringify(value)); } catch { /* then it lasts as long as the page */ } },
};

/** How far off, in words. */
function verdict(spec, guess) {
  if (spec.options.length) return guess === spec.options[spec.answer] ? "Right." : `You said ${guess}.`;
  const you = `You said **${text(guess, spec.unit)}**: `, factor = guess / spec.answer;
  if (!spec.range[2] || !(factor > 0)) return you + (guess === spec.answer ? "exactly right." : `${text(Math.abs(guess - spec.answer), spec.unit)} too ${guess > spec.answer ? "high" : "low"}.`);
  const times = Math.max(factor, 1 / factor);
  return you + (times < NEAR ? "well judged." : `**${text(Number(times.toPrecision(2)))} times** too ${factor > 1 ? "high" : "low"}.`);
}

/** The slider's scale, on which guess and measurement appear. Returns [node, value, show]. */
function scale(spec, id, start) {
  const out = h("output", { for: id });
  const input = h("input", { type: "range", id, min: 0, max: STEPS, step: 1, value: Math.round(shareOf(start, spec.range) * STEPS), oninput: () => show() });
  const value = () => valueAt(input.value / STEPS, spec.range);
  function show() {
    input.style.setProperty("--at", input.value / STEPS);
    input.setAttribute("aria-valuetext", text(value(), spec.unit));
    out.textContent = text(value(), spec.unit);
  }
  show();
  const ends = h("div", { class: "lk-ends", "aria-hidden": "true" }, h("span", {}, text(spec.range[0], spec.unit)), h("span", {}, text(spec.range[1], spec.unit)));
  return [h("div", { class: "lk-knob lk-scale" }, h("label", { for: id }, "Your prediction"), out, input, ends), value];
}

function choices(spec, id) {
  const inputs = spec.options.map((o, i) => h("input", { type: "radio", name: id, value: o }));
  const set = h("fieldset", { class: "lk-knob" }, h("legend", {}, "Your prediction"),
    h("div", { class: "lk-pick lk-tall" }, ...spec.options.map((o, i) => h("label", {}, inputs[i], h("span", {}, o)))));
  return [set, () => inputs.find((i) => i.checked)?.value ?? null];
}

/** Guess and measurement on one line: two marks, and the span between them. */
function line(spec, guess) {
  const mark = (value, cls, words) => h("span", { class: cls, style: `--at: ${shareOf(value, spec.range)}` }, h("b", {}, words));
  const a = shareOf(spec.answer, spec.range), g = guess === null ? a : shareOf(guess, spec.range);
  return h("div", { class: "lk-line", "aria-hidden": "true" }, h("i", { style: `--from: ${Math.min(a, g)}; --to: ${Math.max(a, g)}` }),
    guess === null ? "" : mark(guess, "lk-yours", "you"), mark(spec.answer, "lk-truth", spec.truth));
}

function render({ model, el }) {
  const spec = model.get("spec"), id = `lkb${++cards}`, body = h("div", { class: "lk-body" });
  const saved = memory.get(spec.key);
  if (saved && model.get("stage") === "open") { model.set("guess", saved.guess); model.set("stage", saved.stage); model.save_changes(); }

  function settle(stage, guess) {
    if (stage === "locked" && guess === null) return body.querySelector("input").focus(); // nothing chosen yet
    model.set("guess", guess);
    model.set("stage", stage);
    model.save_changes();
    memory.set(spec.key, { stage, guess });
    body.querySelector("[tabindex='-1'], input").focus({ preventScroll: true });
  }
  function update() {
    const guess = model.get("guess");
    body.parentElement.classList.toggle("lk-unused", model.get("stage") === "open");
    if (model.get("stage") === "open") {
      const [node, value] = spec.options.length ? choices(spec, id) : scale(spec, id, guess ?? spec.range[0]); // its low end: the middle would be a hint
      body.replaceChildren(node, h("div", { class: "lk-actions" },
        h("button", { type: "button", class: "lk-primary", onclick: () => settle("locked", value()) }, "Lock my prediction"),
        h("button", { type: "button", onclick: () => settle("shown", null) }, "Show me")));
      return;
    }
    const told = model.get("stage") === "locked";
    body.replaceChildren(
      h("div", { class: "lk-reveal", tabindex: -1, role: "status" }, h("p", { class: "lk-answer" }, spec.shown), told ? h("p", {}, ...rich(verdict(spec, guess))) : ""),
      spec.options.length ? "" : line(spec, told ? guess : null),
      spec.explain ? h("p", { class: "lk-say" }, ...rich(spec.explain)) : "", spec.provenance ? h("p", { class: "lk-source" }, spec.provenance) : "",
      h("div", { class: "lk-actions" }, h("button", { type: "button", onclick: () => settle("open", null) }, "Ask me again")));
  }
  card(el, model, "bet", "Your prediction stays on this machine.", "Python follows you: read .guess and .off_by.", body);
  model.on("change:stage", update);
  update();
  return () => model.off("change:stage", update);
}
export default { render };
