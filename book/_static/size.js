// Size any model: what the form asks is answered by labkit's own formulas (sizes.js, made from
// Python). A classic script that stands behind the form, so that it works from a folder and is
// filled before anybody sees it.
"use strict";
(() => {
  const form = document.querySelector(".sizer");
  const at = (selector) => form.querySelector(selector);
  const every = (selector) => [...form.querySelectorAll(selector)];
  const knob = (name) => form.elements[name];
  const h = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // -- numbers as people read them: the units of `labkit estimate` --------------------------------

  const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
  const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const UNITS = [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["bytes", 1]];
  const unitOf = (bytes) => UNITS.find(([, scale]) => bytes >= scale) ?? UNITS.at(-1);
  const size = (bytes, [name, scale] = unitOf(bytes)) =>
    `${scale > 1 ? two.format(bytes / scale) : plain.format(bytes)} ${name}`;
  const duration = (seconds) =>
    seconds >= 1 ? `${two.format(seconds)} s` : `${two.format(1000 * seconds)} ms`;
  const count = (n, noun) => `${plain.format(n)} ${noun}${n === 1 ? "" : "s"}`;
  const tera = (n) => two.format(n / 1e12);

  // -- what is asked ------------------------------------------------------------------------------

  function whole(name, most, label) {
    const value = knob(name).valueAsNumber;
    if (!Number.isInteger(value) || value < 1 || value > most) {
      throw new RangeError(`${label} must be a whole number from 1 to ${plain.format(most)}`);
    }
    return value;
  }

  // A config that notes which of its entries are asked for: a link carries those and no others.
  function noting(config, asked) {
    const note = (name) => { if (Object.hasOwn(config, name)) asked[name] = config[name]; };
    return new Proxy(config, {
      get: (_, name) => { note(name); return config[name]; },
      getOwnPropertyDescriptor: (_, name) => {
        note(name);
        return Reflect.getOwnPropertyDescriptor(config, name);
      },
    });
  }

  function pasted(text) {
    if (!text.trim()) throw new RangeError("paste a config.json into the box, all of it");
    let given;
    try { given = JSON.parse(text); } catch {
      throw new RangeError("this is not JSON: a config.json begins with { and ends with }");
    }
    const asked = {}, isObject = typeof given === "object" && given !== null;
    const config = formulas.config_from_sizes(isObject ? noting(given, asked) : given);
    return { name: `your ${given.model_type} model`, config, asked };
  }

  function ask() {
    const name = knob("model").value, gpu = sizing.gpus[knob("gpu").value];
    const dtype = knob("dtype").value, sixteen = dtype === "int8" || dtype === "int4";
    const price = knob("price").valueAsNumber;
    if (!(price >= 0 && price <= 1e6)) throw new RangeError("the price must be a number of dollars");
    const model = name ? { name, config: new formulas.ModelConfig(sizing.presets[name]) }
      : pasted(knob("config").value);
    return {
      ...model, dtype, price, gpu,
      gpus: whole("gpus", 100000, "the number of GPUs"),
      context: whole("context", 100000000, "the context"),
      users: whole("users", 10000000, "the number of users"),
      cache: knob("cache").value || (sixteen ? "bf16" : dtype),
    };
  }

  // -- what is answered ---------------------------------------------------------------------------

  function answer(q) {
    const f = formulas, c = q.config, hw = q.gpu.ceilings, memory = q.gpus * q.gpu.memory_bytes;
    const made = f.sized(
      c, hw, q.gpu.memory_bytes, q.price, q.gpus, q.context, q.users, q.dtype, q.cache);
    const batch = Math.min(q.users, made.largest_batch);
    const pages = 16 * Math.ceil(q.context / 16);
    return {
      ...made, memory, batch,
      parameters: f.parameters(c),
      active_parameters: f.active_parameters(c),
      weight_bytes: f.weight_bytes(c, q.dtype),
      one: f.kv_cache_bytes(c, q.context, 1, q.cache),
      held: f.cache_parts(c, q.context, q.users, q.cache),
      reserved: f.cache_parts(c, pages, q.users, q.cache, true),
      alike: f.largest_batch(c, memory, q.context, q.dtype, q.cache, true),
      needs: f.gpus_to_hold(c, q.gpu.memory_bytes, q.context, q.users, q.dtype, q.cache),
      decode_bytes: batch ? f.decode_bytes(c, q.context, batch, q.dtype, q.cache) : null,
      decode_flops: f.decode_flops(c, q.context),
      prefill_flops: f.least_prefill_flops(c, q.context),
      prefill_bytes: f.prefill_bytes(c, q.context, q.dtype, q.cache),
      machine: f.together(hw, q.gpus),
    };
  }

  const KINDS = {
    full: () => "full attention",
    sliding: (c) => `sliding, ${plain.format(c.window)} tokens`,
    mla: () => "latent (MLA)",
    delta: () => "delta rule, a state",
  };
  const FORMS = {
    parameters: plain.format,
    active_parameters: plain.format,
    weight_bytes: (n) => size(n),
    cache_held_bytes: (n, a) => size(n, unitOf(a.cache_reserved_bytes)),
    cache_reserved_bytes: (n) => size(n),
    largest_batch: (n) => count(n, "user"),
    decode_bytes: (n) => size(n),
    ttft_floor: duration,
    tpot_floor: duration,
    dollars_per_million: (n) => `$${n < 1 ? n.toPrecision(3) : two.format(n)}`,
  };

  const td = (cells, tag = "td") => h("tr", {}, ...cells.map((text, i) =>
    h(i || tag === "th" ? tag : "th", i ? { class: "number" } : tag === "th" ? {} : { scope: "row" },
      text)));
  const table = (head, rows) => h("div", { class: "table-box", tabindex: "0" }, h("table", {},
    h("thead", {}, td(head, "th")), h("tbody", {}, ...rows.map((row) => td(row)))));
  const sum = (text) => h("p", { class: "sizer-sum" }, text);
  const nothing = "Nothing fits, so there is no such number.";

  function cacheTable(q, a) {
    const unit = unitOf(a.cache_reserved_bytes);
    return table(["layers", "how many", "held", "reserved"], Object.keys(a.held).map((kind) => [
      KINDS[kind](q.config),
      plain.format(q.config.types.filter((one) => one === kind).length),
      size(a.held[kind], unit), size(a.reserved[kind], unit),
    ]));
  }

  function words(q, a) {
    const c = q.config, bits = formulas.BITS[q.dtype], experts = c.n_experts, gpus = plain.format(q.gpus);
    const seconds = (flops, bytes) =>
      `max(${tera(flops)} TFLOP ÷ ${tera(a.machine.flops_per_second)} TFLOP/s, ` +
      `${size(bytes)} ÷ ${tera(a.machine.bytes_per_second)} TB/s)`;
    const parts = Object.entries(formulas.parts(c));
    return {
      parameters: table(["part", "layers", "parameters"], parts.map(([name, part]) =>
        [name, plain.format(part.layers), plain.format(part.elements)])),
      active_parameters: sum(experts
        ? `${plain.format(c.n_active_experts)} of ${plain.format(experts)} experts are chosen: ` +
          `${two.format(100 * a.active_parameters / a.parameters)}% of the model works on a token.`
        : "This model has no experts: all of it works on every token."),
      weight_bytes: sum(`${plain.format(a.parameters)} × ${bits} ÷ 8 = ${size(a.weight_bytes)}`),
      cache_held_bytes: cacheTable(q, a),
      cache_reserved_bytes: cacheTable(q, a),
      largest_batch: sum(
        `(0.9 × ${size(a.memory)} − ${size(a.weight_bytes)}) ÷ ${size(a.one)}, rounded down, is ` +
        `${plain.format(a.largest_batch)}. With full-length pages in every layer it is ` +
        `${plain.format(a.alike)}.`),
      decode_bytes: sum(a.batch ? `For a batch of ${plain.format(a.batch)}: ` +
        `${size(a.decode_bytes / a.batch)} for each token.` : nothing),
      ttft_floor: sum(a.batch ? seconds(a.prefill_flops, a.prefill_bytes) : nothing),
      tpot_floor: sum(a.batch
        ? `${seconds(a.batch * a.decode_flops, a.decode_bytes)} for a batch of ${plain.format(a.batch)}`
        : nothing),
      dollars_per_million: sum(a.batch ? `10⁶ × ${gpus} × $${exact.format(q.price)} ÷ (3600 × ` +
        `${plain.format(a.batch / a.tpot_floor)} tokens/s). ${priced(q)}` : nothing),
    };
  }

  function priced(q) {
    return q.price === q.gpu.dollars_per_hour
      ? `The price: ${sizing.price.source}, ${sizing.price.date}; ${sizing.price.note}.`
      : "The price is yours.";
  }

  function say(q, a) {
    const b = (text) => h("b", {}, text), cards = `${plain.format(q.gpus)} × ${q.gpu.ceilings.name}`;
    const tokens = count(q.context, "token");
    if (!a.largest_batch) {
      return [b(`Not even one user of ${q.name} fits on ${cards}.`), ` Its weights in ${q.dtype} take ` +
        `${size(a.weight_bytes)}, a user's cache ${size(a.one)}; usable are ` +
        `${size(0.9 * a.memory)}. For your ${count(q.users, "user")} it takes `,
        b(`${plain.format(a.needs)} × ${q.gpu.ceilings.name}`), " or more."];
    }
    const waiting = q.users - a.batch;
    return [
      `Beside ${q.name} in ${q.dtype}, ${cards} hold${q.gpus === 1 ? "s" : ""} `,
      b(count(a.largest_batch, "user")), ` of ${tokens}. At best the first token comes after `,
      b(duration(a.ttft_floor)), " and each further one after ", b(duration(a.tpot_floor)), ".",
      waiting > 0 ? ` Of your ${count(q.users, "user")}, ${plain.format(waiting)} must wait.` : "",
      q.context > q.config.max_context
        ? ` (The model was made for ${count(q.config.max_context, "token")}.)` : "",
    ];
  }

  // The memory as a bar: weights, what caches hold, what an engine may reserve beyond; the mark is
  // the usable memory.
  function draw(q, a) {
    const extra = a.cache_reserved_bytes - a.cache_held_bytes;
    const total = a.weight_bytes + a.cache_reserved_bytes, full = Math.max(a.memory, total);
    const free = Math.max(0, a.memory - total), unit = unitOf(full);
    const shares = [
      ["weights", "weights", a.weight_bytes], ["held", "cache held", a.cache_held_bytes],
      ["extra", "reserved beyond it", extra], ["free", "free", free],
    ].filter(([, , bytes]) => bytes > 0);
    at(".sizer-bar").replaceChildren(
      ...shares.map(([kind, , bytes]) =>
        h("span", { class: kind, style: `width: ${100 * bytes / full}%` })),
      h("i", { style: `left: ${90 * a.memory / full}%` }));
    at(".sizer-memory ul").replaceChildren(...shares.map(([kind, label, bytes]) =>
      h("li", {}, h("span", { class: kind, "aria-hidden": "true" }), `${label} `,
        h("b", {}, size(bytes, unit)))),
    h("li", {}, h("i", { "aria-hidden": "true" }), "usable ", h("b", {}, size(0.9 * a.memory, unit))));
  }

  function show(q, a) {
    const said = words(q, a), types = q.config.types;
    for (const output of every("output")) {
      const key = output.dataset.size, value = a[key];
      output.textContent = value === null ? "–" : FORMS[key](value, a);
      output.dataset.value = String(value);
    }
    for (const box of every("[data-with]")) box.replaceChildren(said[box.dataset.with]);
    const has = {
      attention: types.includes("full") || types.includes("sliding"),
      mla: types.includes("mla"),
      delta: types.includes("delta"),
      gated: q.config.ffn !== "gelu",
      gelu: q.config.ffn === "gelu",
      experts: q.config.n_experts > 0,
    };
    for (const [kind, there] of Object.entries(has)) {
      for (const box of every(`.only-${kind}`)) box.hidden = !there;
    }
    at(".sizer-say").replaceChildren(...say(q, a));
    draw(q, a);
  }

  // -- a link that restores the settings ----------------------------------------------------------

  const FIELDS = ["model", "gpu", "gpus", "price", "dtype", "cache", "context", "users"];
  const LONGEST = 20000;  // characters of a link that are read

  const through = async (bytes, stream) =>
    new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());

  async function pack(config) {
    const text = new TextEncoder().encode(JSON.stringify(config));
    const small = await through(text, new CompressionStream("deflate-raw"));
    return btoa(String.fromCharCode(...small)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  }

  async function unpack(packed) {
    const text = atob(packed.replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const whole = await through(bytes, new DecompressionStream("deflate-raw"));
    return JSON.stringify(JSON.parse(new TextDecoder().decode(whole)), null, 1);
  }

  let latest = 0;
  async function link(q, remember) {
    const turn = ++latest, settings = new URLSearchParams();
    for (const name of FIELDS) settings.set(name, knob(name).value);
    if (q.asked) settings.set("config", await pack(q.asked));
    if (turn !== latest) return;
    const hash = `#${settings}`;
    at(".sizer-link a").setAttribute("href", hash);
    if (remember) {
      try { history.replaceState(null, "", hash); } catch { /* a folder's page keeps its address */ }
    }
  }

  async function restore() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return;  // the address of a heading
    const settings = new URLSearchParams(hash);
    try {
      if (hash.length > LONGEST) throw new RangeError("it is too long");
      for (const name of FIELDS) {
        const value = settings.get(name);
        if (value === null) continue;
        const field = knob(name), before = field.value;
        field.value = value;
        if (field.value !== value) {
          field.value = before;
          throw new RangeError(`${name} can't be ${JSON.stringify(value)}`);
        }
      }
      if (settings.get("config")) knob("config").value = await unpack(settings.get("config"));
    } catch (error) {
      update(false);
      at(".sizer-error").textContent = error instanceof RangeError
        ? `This link's settings can't be read: ${error.message}.`
        : "This link's settings can't be read: its config is damaged.";
      return;
    }
    update(false);
  }

  // -- together -----------------------------------------------------------------------------------

  const log2 = (name) => Math.round(Math.log2(Math.max(1, knob(name).valueAsNumber || 1)));

  function update(remember = true) {
    at(".sizer-own").hidden = knob("model").value !== "";
    for (const slider of every("[data-for]")) {
      slider.value = log2(slider.dataset.for);
      slider.setAttribute("aria-valuetext", plain.format(knob(slider.dataset.for).valueAsNumber || 0));
    }
    const told = at(".sizer-error");
    let q;
    try {
      q = ask();
      show(q, answer(q));
    } catch (error) {
      const why = error instanceof RangeError ? error.message : "this config.json can't be read";
      told.textContent = `${why[0].toUpperCase()}${why.slice(1)}. Below still stands the last answer.`;
      return;
    }
    told.textContent = "";
    link(q, remember);
  }

  const listed = () => { knob("price").value = sizing.gpus[knob("gpu").value].dollars_per_hour; };

  form.addEventListener("input", (e) => {
    if (e.target.dataset.for) knob(e.target.dataset.for).value = 2 ** e.target.value;
    if (e.target.name === "gpu") listed();
    update();
    if (e.target.name === "model" && !e.target.value) knob("config").focus();
  });
  form.addEventListener("submit", (e) => e.preventDefault());
  at(".sizer-link button").addEventListener("click", async () => {
    const told = at(".sizer-link [role=status]"), to = new URL(at(".sizer-link a").hash, location.href);
    try {
      await navigator.clipboard.writeText(to.href);
      told.textContent = "Copied.";
    } catch {
      told.textContent = "This browser lets no page copy here: copy the link itself, or the address.";
    }
  });
  addEventListener("hashchange", restore);
  listed();
  update(false);
  restore();
})();
