// What all widgets share. Python puts this before each widget's own file: one module is shipped.
// Every number, text and path was made in Python; here they are put in place.

let cards = 0;

// An element with attributes, listeners (`onclick`) and children; `svg:` before the tag makes it
// a drawing's.
function h(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children);
  return node;
}

// A copy of the still picture in `root`, to be brought to life: `controls` stand where the picture
// says what it shows. A line at the foot says whether Python listens. Returns [copy, what was
// replaced].
function liven(root, model, note, live, controls) {
  root.innerHTML = model.get("still");
  const box = root.firstElementChild;
  const shown = box.querySelector(".lk-shown");
  const badge = h("p", { class: "lk-badge" }, note);
  box.classList.remove("lk-still");
  shown.replaceWith(controls);
  box.append(badge);
  // else JupyterLab takes arrows and letters for itself
  box.dataset.lmSuppressShortcuts = true;
  box.addEventListener("keydown", (e) => {
    if (!e.ctrlKey && !e.metaKey && !e.altKey) e.stopPropagation();
  });
  model.on("msg:custom", (message) => {
    if (message === "pong") badge.replaceChildren(h("b", {}, "Live."), " " + live);
  });
  model.send("ping");
  return [box, shown];
}

// The sentence under the picture, read aloud when it changes. Returns what sets its parts.
function sentence(box) {
  const say = box.querySelector(".lk-say");
  say.setAttribute("role", "status");
  say.setAttribute("aria-live", "polite");
  return (parts) => parts.forEach((part, i) => { say.children[i].innerHTML = part; });
}

// A table's body; the first cell of a row is its header.
const body = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells]);
