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
  const all = (selector, node = plot) => [...node.querySelectorAll(selector)];
  const paths = all(":is(.lk-lines, .lk-bars, .lk-cells, .lk-bins) path");
  const values = all(".lk-value");
  const cells = all(".lk-cell");
  const markers = all(".lk-point");
  const names = ["slim", "wide"].map((card) => [card, all(`.lk-name.lk-${card}`)]);
  const notes = all(".lk-numbers .lk-note", box);
  const here = plot.querySelector(".lk-now") ?? h("svg:circle", { class: "lk-now" });
  const rows = body(box.querySelector(".lk-numbers table"));

  // answers are row-major over the controls; each is [which picture, what to say]
  const answerOf = (index) =>
    spec.answers[controls.reduce((at, { texts }, k) => at * texts.length + index[k], 0)];
  const first = spec.pictures[answerOf(start)[0]];
  const ghost = remember(box, plot, paths, markers, first);

  function update() {
    const index = model.get("index");
    const moved = index.some((i, k) => i !== start[k]);
    const [which, words] = answerOf(index);
    const picture = spec.pictures[which];
    const { d, y, over, mark } = picture;
    const texts = y.flat();
    knobs.forEach(([, show], k) => show(index[k]));
    paths.forEach((path, j) => path.setAttribute("d", d[j]));
    markers.forEach((marker, k) => put(marker, picture.points[k], true));
    for (const [card, labels] of names) {
      labels.forEach((label, k) => beside(label, picture.points[k], picture[card][k], spec.sides));
    }
    cells.forEach((cell, k) => { cell.textContent = picture.cells.flat()[k]; });
    notes.forEach((note, k) => { note.textContent = picture.notes[k]; });
    ghost(moved, picture);
    values.forEach((value, k) => {
      // above the bar, and above what it was
      const top = moved ? Math.min(over[k][1], first.over[k][1]) : over[k][1];
      value.textContent = texts[k];
      value.setAttribute("y", percent(top));
    });
    if (mark) {
      here.setAttribute("cx", percent(mark[0]));
      here.setAttribute("cy", percent(mark[1]));
      plot.insertBefore(here, markers[0] ?? null); // under a shape, over all else
    } else here.remove();
    say([words]);
    rows.forEach((row, i) => y.forEach((ys, j) => { row[j + 1].textContent = ys[i]; }));
  }

  point(box, plot, spec, rows, () => spec.pictures[answerOf(model.get("index"))[0]]);
  model.on("change:index", update);
  update();
  return () => model.off("change:index", update);
}

// Something that has a place, or has none and is hidden.
function put(node, place, shown) {
  const [x, y] = place ?? [0, 0];
  node.setAttribute("x", percent(x));
  node.setAttribute("y", percent(y));
  if (place && shown) node.removeAttribute("visibility");
  else node.setAttribute("visibility", "hidden");
}

// A label on the side of its point that Python chose; null where there is no room.
function beside(label, place, side, sides) {
  const [x, y, anchor, leader] = sides[side ?? 0];
  const [line, text] = label.children;
  put(label, place, side !== null);
  line.setAttribute("d", leader);
  text.setAttribute("x", x);
  text.setAttribute("y", y);
  text.setAttribute("text-anchor", anchor);
}

// Where the reader began stays visible, and the legend says so. Returns what shows it, or not.
function remember(box, plot, paths, markers, first) {
  const series = paths.filter((path) => !path.closest(".lk-cells") && path.matches("[class^=lk-s]"));
  if (!series.length && !markers.length) return () => {};
  const lines = h("svg:g", { class: "lk-ghost" }, ...series.map((path) => path.cloneNode()));
  [...lines.children].forEach((path, k) => path.setAttribute("d", first.d[paths.indexOf(series[k])]));
  const copies = markers.map((marker) => marker.cloneNode(true));
  copies.forEach((copy, k) => put(copy, first.points[k], true));
  const trails = markers.map(() => h("svg:line", { class: "lk-trail" }));
  const points = h("svg:g", { class: "lk-ghost" }, ...trails, ...copies);
  const legend = box.querySelector(".lk-legend:not(.lk-key)") ?? h("p", { class: "lk-legend" });
  // a copy of the first shape, a line, or a frame
  const swatch = copies.length
    ? h("svg:svg", { class: "lk-shape lk-hollow", viewBox: "-8 -8 16 16" }, copies[0].firstChild.cloneNode())
    : h("i", { class: `lk-s0 ${plot.querySelector(".lk-lines") ? "lk-stroke" : "lk-hollow"}` });
  const entry = h("span", { class: "lk-ghost" }, swatch, "where you began");
  legend.append(entry);
  box.querySelector(".lk-chart").before(legend);
  return (moved, picture) => {
    entry.classList.toggle("lk-moved", moved);
    if (!moved) {
      lines.remove();
      points.remove();
      return;
    }
    series[0]?.before(lines);
    if (!markers.length) return;
    trails.forEach((trail, k) => {
      const [from, to] = [first.points[k], picture.points[k]];
      const [[x1, y1], [x2, y2]] = from && to ? [to, from] : [[0, 0], [0, 0]];
      Object.entries({ x1, y1, x2, y2 }).forEach(([n, v]) => trail.setAttribute(n, percent(v)));
    });
    markers[0].before(points);
  };
}

// Under the pointer: what is nearest, and its values as the table has them.
function point(box, plot, spec, rows, picture) {
  const probe = box.querySelector(".lk-y").appendChild(h("span", { class: "lk-probe" }));
  const words = (i) => rows[i].map((cell) => cell.textContent);
  const heads = [...box.querySelectorAll(".lk-numbers thead th")].map((head) => head.textContent);
  const [said, leave] = spec.at ? along(box, plot, spec.at, rows) : [null, () => {}];
  const over = (x, y, width, height) => {
    if (spec.at) return said((x / width) * 1000, words);
    const { points } = picture();
    if (!points) { // a cell of a matrix
      const i = Math.min(Math.max(Math.floor((y / height) * rows.length), 0), rows.length - 1);
      const j = Math.min(Math.max(Math.ceil((x / width) * (heads.length - 1)), 1), heads.length - 1);
      return `${words(i)[0]}, ${heads[j]}: ${words(i)[j]}`;
    }
    const away = points.map((place) =>
      place ? Math.hypot((place[0] / 1000) * width - x, (place[1] / 1000) * height - y) : Infinity);
    const [name, ...both] = words(away.indexOf(Math.min(...away)));
    return `${name}: ${both.slice(0, 2).join(", ")}`;
  };
  plot.addEventListener("pointermove", (event) => {
    const { left, top, width, height } = plot.getBoundingClientRect();
    probe.textContent = over(event.clientX - left, event.clientY - top, width, height);
  });
  plot.addEventListener("pointerleave", () => {
    leave();
    probe.textContent = "";
  });
}

// Series over one x: a hairline at the nearest, and the values beside their names. Returns what
// shows them, and what takes them away.
function along(box, plot, places, rows) {
  const hair = h("svg:line", { class: "lk-hair", y1: 0, y2: "100%" });
  const columns = [...Array(rows[0].length - 1).keys()];
  const swatches = columns.map((j) => box.querySelector(`.lk-legend > span:not(.lk-ghost) > .lk-s${j}`));
  const spans = swatches.map((swatch) => swatch?.parentNode.appendChild(h("span")));
  function show(at, words) {
    const away = places.map((place) => Math.abs(place - at));
    const i = away.indexOf(Math.min(...away));
    hair.setAttribute("x1", percent(places[i]));
    hair.setAttribute("x2", percent(places[i]));
    plot.append(hair);
    const [x, ...values] = words(i);
    spans.forEach((span, j) => { if (span) span.textContent = " " + values[j]; });
    return `at ${x}` + (values.length === 1 ? `: ${values[0]}` : "");
  }
  function leave() {
    hair.remove();
    spans.forEach((span) => { if (span) span.textContent = ""; });
  }
  return [show, leave];
}
export default { render };
