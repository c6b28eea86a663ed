// A prediction: choose, lock, then see what was measured and how far off you were.

// Kept on this machine only; a page opened from a file may have no storage.
const memory = {
  get(key) {
    try { return JSON.parse(localStorage.getItem("labkit.bet." + key)); } catch { return null; }
  },
  set(key, value) {
    try {
      localStorage.setItem("labkit.bet." + key, JSON.stringify(value));
    } catch { /* then it lasts as long as the page */ }
  },
};

// The slider on which guess and measurement appear. Returns [node, index of the guess, -1 for one
// that was never moved].
function slider({ texts }, id, start) {
  const last = texts.length - 1;
  let moved = start > 0;
  const output = h("output", { for: id });
  const oninput = () => { moved = true; show(); };
  const input = h("input", { type: "range", id, min: 0, max: last, step: 1, oninput });
  input.value = start;
  function show() {
    input.style.setProperty("--at", input.value / last);
    input.setAttribute("aria-valuetext", texts[input.value]);
    output.textContent = texts[input.value];
  }
  show();
  const ends = h("div", { class: "lk-ends", "aria-hidden": "true" },
    h("span", {}, texts[0]), h("span", {}, texts[last]));
  const label = h("label", { for: id }, "Your prediction");
  return [h("div", { class: "lk-knob lk-scale" }, label, output, input, ends),
    () => moved ? +input.value : -1];
}

// One of a few. Returns [node, index of the guess, -1 for none].
function choices({ texts }, id) {
  const inputs = texts.map(() => h("input", { type: "radio", name: id }));
  const labels = texts.map((words, i) => h("label", {}, inputs[i], h("span", {}, words)));
  const node = h("fieldset", { class: "lk-knob" },
    h("legend", {}, "Your prediction"), h("div", { class: "lk-pick lk-tall" }, ...labels));
  return [node, () => inputs.findIndex((input) => input.checked)];
}

// Guess and measurement on one line: two marks, and the span between them.
function line({ guesses, at, truth }, chosen) {
  const mark = (place, cls, words) =>
    h("span", { class: cls, style: `--at: ${place}` }, h("b", {}, words));
  const yours = chosen === null ? at : chosen / (guesses.length - 1);
  const span = `--from: ${Math.min(at, yours)}; --to: ${Math.max(at, yours)}`;
  const node = h("div", { class: "lk-line", "aria-hidden": "true" }, h("i", { style: span }));
  if (chosen !== null) node.append(mark(yours, "lk-yours", "you"));
  node.append(mark(at, "lk-truth", truth));
  return node;
}

function render({ model, el }) {
  const spec = model.get("spec");
  const id = `lkb${++cards}`;
  const body = h("div", { class: "lk-body" });
  const saved = memory.get(spec.key);
  if (saved && model.get("stage") === "open") {
    model.set("guess", saved.guess);
    model.set("stage", saved.stage);
    model.save_changes();
  }
  const [box, shown] = liven(el, model,
    "Your prediction stays on this machine.", "Python follows you: read .guess and .off_by.", body);
  const [answer, ...reasons] = shown.querySelectorAll("details p");

  function settle(stage, chosen) {
    if (stage === "locked" && chosen < 0) { // nothing chosen yet
      body.querySelector("label, legend").textContent = "Your prediction: choose one first";
      body.querySelector("input").focus();
      return;
    }
    const guess = chosen === null ? null : spec.guesses[chosen];
    model.set("guess", guess);
    model.set("stage", stage);
    model.save_changes();
    memory.set(spec.key, { stage, guess });
    body.querySelector("[tabindex='-1'], input").focus({ preventScroll: true });
  }
  function ask() {
    // a slider begins at its low end: the middle would be a hint
    const start = Math.max(0, spec.guesses.indexOf(model.get("guess")));
    const [node, chosen] = spec.kind === "slider" ? slider(spec, id, start) : choices(spec, id);
    const lock = h("button", {
      type: "button", class: "lk-primary", onclick: () => settle("locked", chosen()),
    }, "Lock my prediction");
    const show = h("button", { type: "button", onclick: () => settle("shown", null) }, "Show me");
    body.replaceChildren(node, h("div", { class: "lk-actions" }, lock, show));
  }
  function tell() {
    // a guess that the slider does not have was kept from another one
    const at = model.get("stage") === "locked" ? spec.guesses.indexOf(model.get("guess")) : -1;
    const chosen = at < 0 ? null : at;
    const reveal = h("div", { class: "lk-reveal", tabindex: -1, role: "status" }, answer);
    if (chosen !== null) {
      const said = h("p", {}, "You said ", h("b", {}, spec.texts[chosen]), ": ", h("span"));
      said.lastChild.innerHTML = spec.verdicts[chosen];
      reveal.append(said);
    }
    const again = h("button", { type: "button", onclick: () => settle("open", null) },
      "Ask me again");
    body.replaceChildren(reveal, ...(spec.kind === "slider" ? [line(spec, chosen)] : []),
      ...reasons, h("div", { class: "lk-actions" }, again));
  }
  function update() {
    const open = model.get("stage") === "open";
    box.classList.toggle("lk-unused", open);
    if (open) ask();
    else tell();
  }
  model.on("change:stage", update);
  update();
  return () => model.off("change:stage", update);
}
export default { render };
