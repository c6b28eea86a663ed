// Brings the anywidgets of a static page to life: no kernel, no require.js, no html-manager. A
// classic script like the widgets' own (course.widgets), because a page opened as file:// may load
// no modules. All of them stand before the page is loaded: one that came later would grow above
// what the reader looks at.
(function () {
  "use strict";
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  // What a widget sees of its model. Without a kernel a change stays in the page.
  class Model {
    #state;
    #listeners = new Map();
    constructor(state) { this.#state = state; }
    get(name) { return this.#state[name]; }
    set(name, value) {
      if (this.#state[name] === value) return;
      this.#state[name] = value;
      this.#tell("change:" + name, value);
      this.#tell("change", value);
    }
    on(event, listener) {
      if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
      this.#listeners.get(event).add(listener);
    }
    off(event, listener) {
      if (listener) this.#listeners.get(event)?.delete(listener);
      else if (event) this.#listeners.delete(event);
      else this.#listeners.clear();
    }
    save_changes() {}
    send() {}
    #tell(event, value) {
      const listeners = [...(this.#listeners.get(event) ?? [])]; // one of them may leave
      for (const listener of listeners) listener({}, value);
    }
    widget_manager = {
      get_model() {
        const why = "a static page has no kernel to ask for another widget";
        return Promise.reject(new Error(why));
      },
    };
  }

  const styled = new Set();
  function style(css) {
    if (!css || styled.has(css)) return;
    styled.add(css);
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  }

  const STOPS = "summary, a[href], button, input, select, textarea, [tabindex='0']";

  // A reader who was in the still picture goes on in the live one, at the same place of the same
  // kind, or at its first.
  function handOn(still, live) {
    const held = document.activeElement;
    const folds = live.querySelectorAll("details");
    still.querySelectorAll("details").forEach((fold, i) => {
      if (folds[i]) folds[i].open = fold.open;
    });
    still.classList.add("lk-replaced");
    if (!still.contains(held)) return;
    const twins = (root) => [...root.querySelectorAll(held.tagName)];
    const twin = twins(live)[twins(still).indexOf(held)] ?? live.querySelector(STOPS);
    twin?.focus({ preventScroll: true });
  }

  // Mounts one view. Its still picture goes only when the live one stands, and stays if anything
  // fails.
  function mount(view, still, model, widget) {
    const live = document.createElement("div");
    style(model.get("_css"));
    live.style.display = "none";
    view.before(live);
    widget.initialize?.({ model });
    widget.render?.({ model, el: live });
    live.style.display = "";
    live.className = "lk-live";
    if (still) handOn(still, live);
  }

  function start() {
    const states = {};
    const models = {};
    for (const script of document.querySelectorAll(STATE)) {
      Object.assign(states, JSON.parse(script.textContent).state);
    }
    for (const view of document.querySelectorAll(VIEW)) {
      const id = JSON.parse(view.textContent).model_id;
      const entry = states[id];
      if (entry?.model_module !== "anywidget") continue; // a core ipywidget would only look alive
      const { state } = entry;
      const still = view.parentElement.querySelector(":scope > .lk-still");
      // the page carries the still picture once, where readers without JavaScript see it
      state.still ??= still?.outerHTML;
      models[id] ??= new Model(state);
      try {
        mount(view, still, models[id], window.labkitModules[state._esm]);
      } catch (error) {
        console.error("widget", id, error);
      }
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
