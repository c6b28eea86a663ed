// Brings the anywidgets of a static page to life: no kernel, no require.js, no html-manager, no
// network. A classic script, because a page opened as file:// may not load modules; the widgets'
// own modules come out of the page itself.
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

  const modules = new Map();
  function load(source) {
    if (!modules.has(source)) {
      const blob = new Blob([source], { type: "text/javascript" });
      modules.set(source, import(URL.createObjectURL(blob)));
    }
    return modules.get(source);
  }
  const styled = new Set();
  function style(css) {
    if (!css || styled.has(css)) return;
    styled.add(css);
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  }

  const stillOf = (view) => view.parentElement.querySelector(":scope > .lk-still");

  // Mounts one view. Its still picture goes only when the live one stands, and stays if anything
  // fails.
  async function mount(view, model, source) {
    const live = document.createElement("div");
    let widget = (await load(source)).default;
    if (typeof widget === "function") widget = await widget();
    style(model.get("_css"));
    live.style.display = "none";
    view.before(live);
    await widget.initialize?.({ model });
    await widget.render?.({ model, el: live });
    live.style.display = "";
    live.className = "lk-live";
    stillOf(view)?.classList.add("lk-replaced");
  }

  function start() {
    const states = {};
    const shared = {};
    const models = {};
    for (const script of document.querySelectorAll(STATE)) {
      const page = JSON.parse(script.textContent);
      Object.assign(states, page.state);
      // course.widgets ships a module once, whatever the number of widgets
      Object.assign(shared, page.modules);
    }
    function open(view) {
      const id = JSON.parse(view.textContent).model_id;
      const entry = states[id];
      if (entry?.model_module !== "anywidget") return; // a core ipywidget would only look alive
      const { state } = entry;
      // the page carries the still picture once, where readers without JavaScript see it
      state.still ??= stillOf(view)?.outerHTML;
      models[id] ??= new Model(state);
      mount(view, models[id], shared[state._esm] ?? state._esm)
        .catch((error) => console.error("widget", id, error));
    }
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
