// A player: a transport, and a picture whose parts bear their steps. Python drew it (play.py).

const ICONS = {
  first: "M6 5h2v14H6zM19 5v14L9 12z",
  back: "M17 5v14L7 12z",
  play: "M8 5v14l11-7z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  forward: "M7 5v14l10-7z",
  last: "M16 5h2v14h-2zM5 5v14l10-7z",
};
const SPEEDS = ["0.5", "1", "2", "4"];
const PACE = 900; // milliseconds a step, at speed 1

const icon = (name) => h("svg:svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
  h("svg:path", { d: ICONS[name] }));
const button = (name, label, onclick) => h("button", {
  type: "button",
  class: name === "play" && "lk-primary",
  "aria-label": label,
  title: label,
  onclick,
}, icon(name));

// What a box is to the reader at step `now`; the twin of `scene.tense`. Without an end, `until` is
// NaN.
function tense(step, until, now) {
  if (until <= now) return "gone";
  if (step === now) return "now";
  return step < now ? "past" : "future";
}

// Buttons, speed and slider. `go` takes the reader to a step, `at` says where that is, `hush` is
// told whether the steps run by themselves. Returns [node, show].
function transport(steps, at, go, hush, connected) {
  const last = steps - 1;
  let timer = null;
  function dress() {
    const running = timer !== null;
    const does = running ? "Pause" : "Play";
    toggle.replaceChildren(icon(does.toLowerCase()));
    toggle.setAttribute("aria-label", does);
    toggle.title = does;
    hush(running);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    dress();
  }
  function start() {
    if (at() === last) go(0);
    timer = setInterval(() => {
      go(at() + 1);
      if (at() === last || !connected()) stop();
    }, PACE / +speed.value);
    dress();
  }
  function halt(step) {
    if (timer) stop();
    go(step);
  }
  const toggle = button("play", "Play", () => (timer ? stop() : start()));
  const speed = h("select", {
    "aria-label": "Speed",
    onchange: () => { if (timer) { stop(); start(); } },
  }, ...SPEEDS.map((v) => h("option", { value: v, selected: v === "1" }, v + "×")));
  const slider = h("input", {
    type: "range", min: 0, max: last, step: 1, "aria-label": "Step",
    oninput: () => halt(+slider.value),
  });
  const counter = h("span", { class: "lk-count" });
  const keys = {
    ArrowLeft: () => at() - 1, ArrowRight: () => at() + 1, Home: () => 0, End: () => last,
  };
  const node = h("div", {
    class: "lk-transport", role: "group", "aria-label": "Player",
    onkeydown: (e) => {
      if (e.target.tagName !== "BUTTON" || !keys[e.key]) return;
      e.preventDefault();
      halt(keys[e.key]());
    },
  },
  button("first", "First step", () => halt(0)),
  button("back", "Step back", () => halt(at() - 1)),
  toggle,
  button("forward", "Step forward", () => halt(at() + 1)),
  button("last", "Last step", () => halt(last)),
  speed, slider, counter);

  function show(now) {
    slider.value = now;
    slider.style.setProperty("--at", last ? now / last : 1);
    slider.setAttribute("aria-valuetext", `${now + 1} of ${steps}`);
    counter.textContent = `${now + 1} / ${steps}`;
  }
  return [node, show];
}

function render({ model, el }) {
  const { says, shares, readings, levels } = model.get("spec");
  const steps = says.length;
  const go = (k) => {
    model.set("step", Math.max(0, Math.min(steps - 1, k)));
    model.save_changes();
  };
  // while it runs, the sentence is not read aloud at every step
  const hush = (running) =>
    box.querySelector(".lk-say").setAttribute("aria-live", running ? "off" : "polite");
  const [controls, show] =
    transport(steps, () => model.get("step"), go, hush, () => el.isConnected);
  const [box] = liven(el, model,
    "Recorded from a real run.", "Python follows you: read .step.", controls);
  const say = sentence(box);
  const parts = [...box.querySelectorAll("[data-k]")].map((part) => [
    +part.dataset.k, parseInt(part.dataset.until), part,
  ]);
  // the squares of several scenes follow one another, as their numbers do
  const squares = [...box.querySelectorAll("[data-level]")];
  const meters = [...box.querySelectorAll("[data-column]")];
  const tables = [...box.querySelectorAll(".lk-readings table")].map(body);
  const numbers = body(box.querySelector(".lk-numbers table"));

  function update() {
    const now = model.get("step");
    show(now);
    for (const [k, until, part] of parts) {
      const t = tense(k, until, now);
      if (part.dataset.t !== t) part.dataset.t = t;
    }
    for (const meter of meters) {
      const column = +meter.dataset.column;
      meter.firstChild.textContent = numbers[now][column + 1].textContent;
      meter.lastChild.style.setProperty("--share", shares[column][now]);
    }
    tables.forEach((rows, s) => rows.forEach((cells, i) => cells.forEach((cell, j) => {
      cell.textContent = readings[s][now][i][j];
    })));
    squares.forEach((square, i) => {
      const side = levels[i][now];
      square.style.setProperty("--level", Math.abs(side));
      // a zero below zero has its sign, too
      square.dataset.sign = Object.is(side, -0) || side < 0 ? "-" : "+";
    });
    say(says[now]);
    box.classList.toggle("lk-unused", now === 0);
  }
  model.on("change:step", update);
  update();
  return () => model.off("change:step", update);
}
export default { render };
