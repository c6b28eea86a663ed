// A language model in plain JavaScript, one character at a time. It is `reference/tinygpt.py` line
// by line: the same names, the same order, no library.

// Weights as the model's file has them (see model_file.py) -> { config, alphabet, w }, where
// w[name] is { x, rows, columns }, dequantised once.
function unpack({ config, alphabet, shapes, bytes }) {
  const raw = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)).buffer;
  const matrices = Object.values(shapes).filter((shape) => shape.length === 2);
  const count = matrices.reduce((sum, [rows, columns]) => sum + rows * columns, 0);
  const codes = new Int8Array(raw, 0, count);
  const floats = new Float32Array(raw, Math.ceil(count / 4) * 4);
  let nextCode = 0, nextFloat = 0;
  const w = {};
  for (const [name, [rows, columns]] of Object.entries(shapes)) {
    const own = floats.subarray(nextFloat, nextFloat += rows);
    if (columns === undefined) { // a vector, as it is
      w[name] = { x: own, rows: 1, columns: rows };
      continue;
    }
    const x = new Float32Array(rows * columns);
    for (let i = 0; i < x.length; i++) {
      x[i] = codes[nextCode + i] * own[Math.floor(i / columns)];
    }
    nextCode += x.length;
    w[name] = { x, rows, columns };
  }
  return { config, alphabet, w };
}

// -- one character through the model --------------------------------------------------------------

// Keys and values of the characters seen so far, for each layer.
const emptyCache = ({ config }) => ({
  length: 0,
  layers: Array.from({ length: config.n_layers }, () => ({ keys: [], values: [] })),
});

// What has been done so far.
const noWork = () => ({ forwards: 0, keys: 0, reads: 0, products: 0, ms: 0 });

// The character `id` at the next position: its last hidden state. The cache gets its key and value.
function forward({ config: c, w }, id, cache, work, position = cache.length) {
  const embed = w["embed.weight"];
  let x = embed.x.slice(id * c.d_model, (id + 1) * c.d_model);
  for (let i = 0; i < c.n_layers; i++) {
    const of = (name) => w[`blocks.${i}.${name}.weight`];
    x = add(x, attend(c, norm(x, of("norm1"), c), of, cache.layers[i], position, work));
    const gated = swiglu(multiply(of("ffn.gate_up"), norm(x, of("norm2"), c), work));
    x = add(x, multiply(of("ffn.down"), gated, work));
  }
  cache.length += 1;
  return x;
}

// A logit for each character of the alphabet.
const logits = ({ config, w }, x, work) =>
  multiply(w["head.weight"], norm(x, w["norm.weight"], config), work);

// The new character's queries look at every key so far, its own included. H/G query heads share a
// key head.
function attend({ n_heads: H, n_kv_heads: G, head_dim: E, rope_theta }, x, of, kept, position, work) {
  const qkv = multiply(of("mixer.qkv"), x, work);
  for (let head = 0; head < H + G; head++) {
    rope(qkv.subarray(head * E, (head + 1) * E), position, rope_theta);
  }
  kept.keys.push(qkv.subarray(H * E, (H + G) * E));
  kept.values.push(qkv.subarray((H + G) * E));
  const S = kept.keys.length;
  work.keys += G;
  work.reads += G * S;
  work.products += 2 * H * E * S;
  const out = new Float32Array(H * E);
  for (let head = 0; head < H; head++) {
    const q = qkv.subarray(head * E, (head + 1) * E);
    const at = Math.floor(head / (H / G)) * E; // where its key head begins
    const shares = softmax(kept.keys.map((key) => dot(q, key, at) / Math.sqrt(E)));
    for (let s = 0; s < S; s++) {
      const value = kept.values[s], share = shares[s];
      for (let e = 0; e < E; e++) out[head * E + e] += share * value[at + e];
    }
  }
  return multiply(of("mixer.out"), out, work);
}

// -- arithmetic -----------------------------------------------------------------------------------

// A matrix times a vector: nearly all of the work. Four sums at a time need not wait for each other.
function multiply({ x: w, rows, columns }, x, work) {
  const out = new Float32Array(rows);
  for (let i = 0, at = 0; i < rows; i++) {
    let a = 0, b = 0, c = 0, d = 0;
    for (let j = 0; j < columns; j += 4, at += 4) {
      a += w[at] * x[j];
      b += w[at + 1] * x[j + 1];
      c += w[at + 2] * x[j + 2];
      d += w[at + 3] * x[j + 3];
    }
    out[i] = a + b + c + d;
  }
  work.products += rows * columns;
  return out;
}
function dot(x, y, at) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[at + i];
  return sum;
}
const add = (a, b) => a.map((number, i) => number + b[i]);
function norm(x, { x: weight }, { norm_eps }) {
  const size = Math.sqrt(dot(x, x, 0) / x.length + norm_eps);
  return x.map((number, i) => number / size * weight[i]);
}
function softmax(x) {
  const most = x.reduce((a, b) => Math.max(a, b));
  const powers = x.map((number) => Math.exp(number - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
function swiglu(x) {
  const F = x.length / 2;
  return x.slice(0, F).map((gate, i) => gate / (1 + Math.exp(-gate)) * x[F + i]);
}
function rope(x, position, theta) { // in place: number i turns together with number i + E/2
  const half = x.length / 2;
  for (let i = 0; i < half; i++) {
    const angle = position * theta ** (-i / half);
    const cos = Math.cos(angle), sin = Math.sin(angle);
    const a = x[i], b = x[i + half];
    x[i] = a * cos - b * sin;
    x[i + half] = b * cos + a * sin;
  }
}

// -- the two loops ----------------------------------------------------------------------------------

// The logits after a text. With a cache only what it lacks goes through the model; without one,
// everything does, into a cache that is thrown away. `breathe` lets the page draw in between.
async function read(model, ids, cache, work, breathe) {
  work.forwards += 1;
  let found;
  for (let i = cache.length; i < ids.length; i++) {
    const start = performance.now();
    const x = forward(model, ids[i], cache, work);
    if (i === ids.length - 1) found = logits(model, x, work);
    work.ms += performance.now() - start;
    await breathe();
  }
  return found;
}
const LOOPS = {
  uncached: () => (model, ids, work, breathe) =>
    read(model, ids, emptyCache(model), work, breathe), // a new one for every character
  cached: (model) => {
    const cache = emptyCache(model); // one for the whole text
    return (model, ids, work, breathe) => read(model, ids, cache, work, breathe);
  },
};

// The most likely character, or one drawn with `temperature` and a number from 0 to 1.
function choose(logits, temperature, number) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const shares = softmax(logits.map((logit) => logit / temperature));
  let id = 0;
  for (let left = number - shares[0]; left > 0 && id < shares.length - 1; left -= shares[id]) id++;
  return id;
}

// Writes `new` characters behind `ids`, one at a time; `wrote(id, work)` hears of each, and says
// whether to go on. `random` gives numbers from 0 to 1.
async function write(model, ids, kind, count, { temperature = 0, random, breathe, wrote }) {
  const next = LOOPS[kind](model);
  const all = [...ids];
  const work = noWork();
  for (let n = 0; n < count; n++) {
    const found = await next(model, all, work, breathe);
    const id = choose(found, temperature, temperature && random());
    all.push(id);
    if (wrote(id, work) === false) break;
  }
  return { ids: all.slice(ids.length), work };
}

// The same numbers from the same seed (mulberry32).
function randoms(seed) {
  return () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
