// A table of answers, a control for each knob, and the drawing of one row. Every number was computed in Python.

/** Where a value lies on the vertical axis: 0 at the top, 1000 at the bottom. The twin of `plot.height`. */
function height(value, [low, high, log]) {
  const f = log ? Math.log10 : (v) => v;
  return Math.floor(((f(high) - f(value)) / (f(high) - f(low))) * 10000 + 0.5) / 10;
}

const percent = (thousandths) => thousandths / 10 + "%";

/** The marks of one row: runs of points for lines, boxes for bars. The twin of `plot.marks`. */
function marks(spec, row) {
  const zero = 1000, out = [], n = spec.x.length, stacked = spec.chart === "stack";
  const wide = (800 / n) / (stacked ? 1 : row.y.length), below = Array(n).fill(zero);
  row.y.forEach((ys, series) => {
    if (spec.chart === "line") {
      let run = [];
      [...ys, null].forEach((y, i) => {
        if (y !== null) run.push(`${spec.at[i]},${height(y, spec.frame)}`);
        else if (run.length) { out.push({ series, points: run.join(" ") }); run = []; }
      });
    } else ys.forEach((y, i) => {
      if (y === null) return;
      const left = spec.at[i] - 400 / n + (stacked ? 0 : series * wide), size = zero - height(y, spec.frame);
      const top = (stacked ? below[i] : zero) - size;
      if (stacked) below[i] = top;
      out.push({ series, i, x: left, y: top, width: wide, height: size });
    });
  });
  return out;
}

/** Marks as drawing: lines stretch with the card (they have no size of their own), bars are boxes in percent, named above `ghosts`. */
function draw(spec, row, cls = "", ghosts = []) {
  if (spec.chart === "line") {
    const lines = marks(spec, row).map((m) => h("svg:polyline", { class: `lk-s${m.series} ${cls}`, points: m.points }));
    return [h("svg:svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", width: "100%", height: "100%", overflow: "visible" }, ...lines)];
  }
  const named = spec.named && !cls;
  return marks(spec, row).flatMap((m, k) => [h("svg:rect", { class: `lk-s${m.series} ${cls}`, x: percent(m.x), y: percent(m.y), width: percent(m.width), height: percent(m.height) }),
    named ? h("svg:text", { x: percent(m.x + m.width / 2), y: percent(Math.min(m.y, ghosts[k]?.y ?? m.y)), dy: "-0.4em", "text-anchor": "middle", class: spec.x.length > 4 ? "lk-value lk-minor" : "lk-value" }, text(row.y[m.series][m.i], spec.y_unit)) : ""]);
}

/** What stays while the knobs turn: ticks, labels, reference lines. */
function axes(spec) {
  const label = (attributes, words) => h("svg:text", attributes, words);
  return [
    ...spec.ticks.flatMap(([at, words]) => [h("svg:line", { x1: 0, x2: "100%", y1: percent(at), y2: percent(at) }),
      label({ x: 0, y: percent(at), dx: -8, dy: "0.35em", "text-anchor": "end" }, words)]),
    ...spec.x_ticks.map(([at, words, minor]) => label({ x: percent(at), y: "100%", dy: "1.5em", "text-anchor": "middle", class: minor ? "lk-minor" : null }, words)),
    ...spec.lines.flatMap(([at, words]) => [h("svg:line", { class: "lk-limit", x1: 0, x2: "100%", y1: percent(at), y2: percent(at) }),
      label({ class: "lk-limit", x: 6, y: percent(at), dy: "-0.4em" }, words)]),
  ];
}

/** One knob: a slider for numbers, buttons for a few words, a list for many. Calls back with the chosen index. */
function knob(c, id, chosen, change) {
  const name = `${id}-${c.name}`;
  if (c.kind === "slider") {
    const out = h("output", { for: name });
    const input = h("input", { type: "range", id: name, min: 0, max: c.texts.length - 1, step: 1, value: chosen, oninput: () => change(+input.value) });
    const show = (i) => { input.value = i; input.style.setProperty("--at", i / (c.texts.length - 1)); input.setAttribute("aria-valuetext", c.texts[i]); out.textContent = c.texts[i]; };
    return [h("div", { class: "lk-knob" }, h("label", { for: name }, c.label), out, input), show];
  }
  if (c.kind === "list") {
    const select = h("select", { id: name, onchange: () => change(select.selectedIndex) }, ...c.texts.map((t) => h("option", {}, t)));
    return [h("div", { class: "lk-knob" }, h("label", { for: name }, c.label), select), (i) => { select.selectedIndex = i; }];
  }
  const radios = c.texts.map((_, i) => h("input", { type: "radio", name, onchange: () => change(i) }));
  const set = h("fieldset", { class: "lk-knob" }, h("legend", {}, c.label),
    h("div", { class: "lk-pick" }, ...c.texts.map((t, i) => h("label", {}, radios[i], h("span", {}, t)))));
  return [set, (i) => { radios[i].checked = true; }];
}

function render({ model, el }) {
  const spec = model.get("spec"), rows = model.get("table"), start = [...model.get("index")], id = `lkx${++cards}`;
  const rowOf = (index) => rows[spec.controls.reduce((at, c, k) => at * c.texts.length + index[k], 0)];
  const knobs = spec.controls.map((c, k) => knob(c, id, start[k], (i) => {
    model.set("index", model.get("index").map((old, j) => (j === k ? i : old)));
    model.save_changes();
  }));
  const plot = h("svg:g"), svg = h("svg:svg", { class: "lk-plot", role: "img", "aria-label": spec.alt }, ...axes(spec), plot);
  const say = sentence(rows.map((r) => [r.say]));
  const values = spec.names.map(() => h("span"));
  const legend = h("p", { class: "lk-legend" }, ...spec.names.map((name, j) => h("span", { hidden: !name }, h("i", { class: `lk-s${j}` }), name, values[j])));
  const row = () => rowOf(model.get("index"));
  const cells = () => spec.x.map((x, i) => [x, ...row().y.map((ys) => text(ys[i], spec.y_unit))]);
  const folded = numbers(spec.title, [spec.x_label || "x", ...spec.names.map((n) => n || spec.y_label || "value")], cells);
  const probe = h("span", { class: "lk-probe" }), hair = h("svg:line", { class: "lk-hair", y1: 0, y2: "100%" });

  function update() {
    const index = model.get("index"), r = row(), moved = index.some((v, k) => v !== start[k]);
    knobs.forEach(([, show], k) => show(index[k]));
    plot.replaceChildren(...(moved ? draw(spec, rowOf(start), "lk-ghost") : []), ...draw(spec, r, "", moved ? marks(spec, rowOf(start)) : []),
      ...(r.mark ? [h("svg:circle", { class: "lk-now", cx: percent(r.mark[0]), cy: percent(r.mark[1]), r: 7 })] : []));
    say.replaceChildren(...rich(r.say));
    folded.fill();
  }
  /** Under the pointer: a hairline at the nearest point and its values beside the names. */
  function point(event) {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * 1000;
    const i = spec.at.reduce((best, x, j) => (Math.abs(x - at) < Math.abs(spec.at[best] - at) ? j : best), 0);
    hair.setAttribute("x1", percent(spec.at[i])); hair.setAttribute("x2", percent(spec.at[i]));
    svg.append(hair);
    probe.textContent = `at ${spec.x[i]}` + (spec.names.length === 1 ? `: ${text(row().y[0][i], spec.y_unit)}` : "");
    if (spec.names.length > 1) values.forEach((v, j) => { v.textContent = " " + text(row().y[j][i], spec.y_unit); });
  }
  function leave() { hair.remove(); probe.textContent = ""; values.forEach((v) => { v.textContent = ""; }); }
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerleave", leave);

  card(el, model, "explore", "Computed when this page was built; no Python runs here.", "Python follows you: read .params and .result.",
    h("div", { class: "lk-knobs" }, ...knobs.filter((_, k) => spec.controls[k].texts.length > 1).map(([node]) => node)),
    legend, h("div", { class: "lk-chart", style: `--gutter: ${spec.gutter}ch` }, h("p", { class: "lk-y" }, spec.y_label, probe), svg, h("p", { class: "lk-x" }, spec.x_label)),
    say, folded.details);
  model.on("change:index", update);
  update();
  return () => model.off("change:index", update);
}
export default { render };
