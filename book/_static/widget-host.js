// Brings the anywidgets of a static page to life: no kernel, no require.js, no html-manager, no network.
// A classic script, because a page opened as file:// may not load modules; the widgets' own modules come out of the page itself.
(function () {
  "use strict";
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  /** What a widget sees of its model. Without a kernel a change stays in the page. */
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
    #tell(event, value) { for (const listener of [...(this.#listeners.get(event) ?? [])]) listener({}, value); }
    widget_manager = { get_model() { return Promise.reject(new Error("a static page has no kernel to ask for another widget")); } };
  }

  const modules = new Map();
  function load(source) {
    if (!modules.has(source)) modules.set(source, import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
    return modules.get(source);
  }
  const styled = new Set();
  function style(css) {
    if (!css || styled.has(css)) return;
    styled.add(css);
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  }

  /** Mounts one view. Its still picture goes only when the live one stands, and stays if anything fails. */
  async function mount(view, model, source) {
    const live = document.createElement("div"), still = view.parentElement.querySelector(":scope > .lk-still");
    let widget = (await load(source)).default;
    if (typeof widget === "function") widget = await widget();
    style(model.get("_css"));
    live.style.display = "none";
    view.before(live);
    await widget.initialize?.({ model });
    await widget.render?.({ model, el: live });
    live.style.display = "";
    live.className = "lk-live";
    still?.classList.add("lk-replaced");
  }

  function start() {
    const states = {}, shared = {}, models = {};
    for (const script of document.querySelectorAll(STATE)) {
      const page = JSON.parse(script.textContent);
      Object.assign(states, page.state);
      Object.assign(shared, page.modules); // course.widgets ships a module once, whatever the number of widgets
    }
    const open = (view) => {
      const id = JSON.parse(view.textContent).model_id, entry = states[id];
      if (entry?.model_module !== "anywidget") return; // a core ipywidget would look alive and not be
      models[id] ??= new Model(entry.state);
      mount(view, models[id], shared[entry.state._esm] ?? entry.state._esm).catch((error) => console.error("widget", id, error));
    };
    const near = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        target.querySelectorAll(":scope > " + VIEW).forEach(open);
      }
    }, { rootMargin: "800px" });
    for (const view of document.querySelectorAll(VIEW)) near.observe(view.parentElement);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
