// A control for each knob, and the picture of one answer. All answers were computed in Python.

const percent = (thousandths) => thousandths / 10 + "%";

// One knob: a slider for numbers, buttons for a few words, a list for many. `change` is called with
// the chosen index. Returns [node, show].
function knob(control, id, chosen, change) {
  const { kind, label, texts } = control;
  const name = `${id}-${control.name}`;
  if (kind === "slider") return slider(label, texts, name, chosen, change);
  if (kind === "list") {
    const select = h("select", { id: name, onchange: () => change(select.selectedIndex) },
      ...texts.map((words) => h("option", {}, words)));
    const node = h("div", { class: "lk-knob" }, h("label", { for: name }, label), select);
    return [node, (i) => { select.selectedIndex = i; }];
  }
  const radio = (i) => h("input", { type: "radio", name, onchange: () => change(i) });
  const radios = texts.map((_, i) => radio(i));
  const buttons = texts.map((words, i) => h("label", {}, radios[i], h("span", {}, words)));
  const node = h("fieldset", { class: "lk-knob" },
    h("legend", {}, label), h("div", { class: "lk-pick" }, ...buttons));
  return [node, (i) => { radios[i].checked = true; }];
}

function slider(label, texts, name, chosen, change) {
  const last = texts.length - 1;
  const output = h("output", { for: name });
  const input = h("input", {
    type: "range", id: name, min: 0, max: last, step: 1, value: chosen,
    oninput: () => change(+input.value),
  });
  function show(i) {
    input.value = i;
    input.style.setProperty("--at", i / last);
    input.setAttribute("aria-valuetext", texts[i]);
    output.textContent = texts[i];
  }
  return [h("div", { class: "lk-knob" }, h("label", { for: name }, label), output, input), show];
}

function render({ model, el }) {
  const spec = model.get("spec");
  const { controls } = spec;
  const start = [...model.get("index")];
  const id = `lkx${++cards}`;
  const knobs = controls.map((control, k) => knob(control, id, start[k], (i) => {
    model.set("index", model.get("index").map((old, j) => (j === k ? i : old)));
    model.save_changes();
  }));
  const nodes = knobs.map(([node]) => node).filter((_, k) => controls[k].texts.length > 1);
  const [box] = liven(el, model,
    "Computed when this page was built; no Python runs here.",
    "Python follows you: read .params and .result.",
    h("div", { class: "lk-knobs" }, ...nodes));
  const say = sentence(box);
  const plot = box.querySelector(".lk-plot");
  const paths = [...plot.querySelectorAll("path")];
  const values = [...plot.querySelectorAll(".lk-value")];
  const here = plot.querySelector(".lk-now") ?? h("svg:circle", { class: "lk-now" });
  const rows = body(box.querySelector(".lk-numbers table"));

  // answers are row-major over the controls; each is [which picture, what to say]
  const answerOf = (index) =>
    spec.answers[controls.reduce((at, { texts }, k) => at * texts.length + index[k], 0)];
  const first = spec.pictures[answerOf(start)[0]];
  // where the reader began stays visible
  const ghost = h("svg:g", { class: "lk-ghost" }, ...paths.map((path) => path.cloneNode()));
  [...ghost.children].forEach((path, j) => path.setAttribute("d", first.d[j]));

  function update() {
    const index = model.get("index");
    const moved = index.some((i, k) => i !== start[k]);
    const [which, words] = answerOf(index);
    const { d, y, over, mark } = spec.pictures[which];
    const texts = y.flat();
    knobs.forEach(([, show], k) => show(index[k]));
    paths.forEach((path, j) => path.setAttribute("d", d[j]));
    if (moved) paths[0].before(ghost);
    else ghost.remove();
    values.forEach((value, k) => {
      // above the bar, and above what it was
      const top = moved ? Math.min(over[k][1], first.over[k][1]) : over[k][1];
      value.textContent = texts[k];
      value.setAttribute("y", percent(top));
    });
    if (mark) {
      here.setAttribute("cx", percent(mark[0]));
      here.setAttribute("cy", percent(mark[1]));
      plot.append(here);
    } else here.remove();
    say([words]);
    rows.forEach((cells, i) => y.forEach((ys, j) => { cells[j + 1].textContent = ys[i]; }));
  }

  point(box, plot, spec.at, rows);
  model.on("change:index", update);
  update();
  return () => model.off("change:index", update);
}

// Under the pointer: a hairline at the nearest x, and its values as the table has them.
function point(box, plot, places, rows) {
  const probe = box.querySelector(".lk-y").appendChild(h("span", { class: "lk-probe" }));
  const hair = h("svg:line", { class: "lk-hair", y1: 0, y2: "100%" });
  const names = [...box.querySelectorAll(".lk-legend span")];
  const beside = names.map((name) => name.appendChild(h("span")));
  plot.addEventListener("pointermove", (event) => {
    const { left, width } = plot.getBoundingClientRect();
    const at = ((event.clientX - left) / width) * 1000;
    const away = places.map((place) => Math.abs(place - at));
    const i = away.indexOf(Math.min(...away));
    hair.setAttribute("x1", percent(places[i]));
    hair.setAttribute("x2", percent(places[i]));
    plot.append(hair);
    const [x, ...values] = rows[i].map((cell) => cell.textContent);
    probe.textContent = `at ${x}` + (values.length === 1 ? `: ${values[0]}` : "");
    beside.forEach((span, j) => { span.textContent = " " + values[j]; });
  });
  plot.addEventListener("pointerleave", () => {
    hair.remove();
    [probe, ...beside].forEach((span) => { span.textContent = ""; });
  });
}
export default { render };
