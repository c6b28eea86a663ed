// A writer: the reader's own text, continued by a small model in the page (language_model.js),
// twice at once.

const TEMPERATURE = 0.7;
const RECENT = 16; // characters that a time is the mean of
const FRAME = 12; // milliseconds that the page waits at most before it may draw

// A count in at most three digits; the twin of `short` in write.py.
function short(number) {
  if (number < 1e4) return number.toLocaleString("en", { maximumFractionDigits: 0 });
  const digits = +number.toPrecision(3);
  const [size, prefix] = digits < 1e6 ? [1e3, "k"] : digits < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${+(digits / size).toPrecision(3)} ${prefix}`;
}
const round = (number) => (number >= 9.95 ? number.toFixed(0) : number.toFixed(1));
const milliseconds = (number) => (number ? String(+number.toPrecision(2)) : "–");

// Typographic signs as the novels have them.
const plain = (text) => text.replace(/[‘’]/g, "'").replace(/[“”]/g, '"').replace(/[–—]/g, "--");

// What is wrong with a text, in one sentence; nothing if it will do.
function fault(text, { alphabet, context }) {
  const outside = [...new Set(text)].filter((c) => !alphabet.includes(c));
  const room = context - 32;
  if (!text.trim()) return "There is no text to continue: write at least one letter.";
  if (outside.length) {
    return `The model does not know ${outside.slice(0, 5).map((c) => `“${c}”`).join(", ")}:`
      + " it reads English letters, digits and simple punctuation.";
  }
  if (text.length > room) {
    return `Your text has ${text.length} characters, and the model reads ${context} in all:`
      + ` leave it room, with ${room} at most.`;
  }
  return "";
}

// The model, once for all writers of a page: by a script tag on a page, from the kernel elsewhere.
let loading = null;
function load(model, file) {
  const root = document.documentElement.dataset.content_root;
  loading ??= new Promise((resolve, reject) => {
    const fail = () => reject(new Error("The model could not be loaded: try again when you are"
      + " online, or open the chapter in Colab."));
    if (root === undefined) {
      model.on("msg:custom", (message) => message.model && resolve(unpack(message.model)));
      model.send("model");
      setTimeout(fail, 30000);
      return;
    }
    const script = h("script", {
      src: `${root}_static/${file}`, onload: () => resolve(unpack(labkitModel)), onerror: fail,
    });
    document.head.append(script);
  });
  loading.catch(() => { loading = null; });
  return loading;
}

// One side of the card: its text, and what it has done so far.
function side(box, loop, i) {
  const [given, written] = box.querySelectorAll(".lk-written")[i].children;
  let times = [];
  return {
    loop,
    given,
    written,
    done: { ...noWork(), latest: 0 },
    begin(text) {
      given.textContent = text;
      written.textContent = "";
      times = [];
      this.done = { ...noWork(), latest: 0 };
    },
    wrote(character, work) {
      written.textContent += character;
      times = [...times, work.ms - this.done.ms].slice(-RECENT);
      this.done = { ...work, latest: times.reduce((a, b) => a + b) / times.length };
    },
  };
}

// Puts both sides' counters beside each other, with bars.
function compare(box, sides) {
  for (const cell of box.querySelectorAll("[data-counter]")) {
    const { counter, loop } = cell.dataset;
    const number = ({ done }) => (counter === "ms" ? done.latest : done[counter]);
    const own = number(sides.find((s) => s.loop === loop));
    cell.firstChild.textContent = counter === "ms" ? milliseconds(own) : short(own);
    cell.lastChild.style.setProperty("--share", own / Math.max(...sides.map(number), 1e-9));
  }
}

// What was just seen, in a sentence.
function verdict([uncached, cached], ended) {
  const [slow, fast] = [uncached, cached].map((s) => s.done);
  const length = Math.min(slow.forwards, fast.forwards);
  const same = uncached.written.textContent.slice(0, length)
    === cached.written.textContent.slice(0, length);
  if (!length) return "Stopped before both had written a character.";
  const wrote = ended ? `Both wrote <b>${same ? "the same" : "different"}</b> ${length} characters.`
    : `Stopped: without a cache it came to <b>${slow.forwards}</b> characters, with one to`
      + ` <b>${fast.forwards}</b>, and as far as both came they are ${same ? "the same" : "different"}.`;
  const ratio = fast.latest ? `, <b>${round(slow.latest / fast.latest)} times</b> as long` : "";
  return `${wrote} The last of them took <b>${milliseconds(slow.latest)} ms</b> each without a cache`
    + ` and <b>${milliseconds(fast.latest)} ms</b> with it${ratio}.`;
}

function render({ model, el }) {
  const spec = model.get("spec");
  const id = `lkw${++cards}`;
  let run = 0; // what writes under an older number stops
  let drawn = 0; // when the page last had time to draw
  const breathe = () => performance.now() - drawn < FRAME ? null : new Promise((resolve) => {
    setTimeout(() => { drawn = performance.now(); resolve(); });
  });

  function draw() {
    const area = h("textarea", { id, rows: 2, "aria-describedby": `${id}f` });
    const pick = h("select", { id: `${id}c` },
      h("option", { value: TEMPERATURE }, "one drawn by chance"), // the most likely soon goes round
      h("option", { value: 0 }, "the most likely"));
    const wrong = h("p", { class: "lk-fault", id: `${id}f`, role: "alert" });
    const go = h("button", { type: "button", class: "lk-primary", onclick: start }, "Write on");
    const stop = h("button", { type: "button", onclick: () => { run += 1; go.focus(); } }, "Stop");
    const reset = h("button", { type: "button" }, "Reset");
    reset.onclick = () => {
      run += 1;
      draw();
      el.querySelector("textarea").focus();
    };
    area.value = spec.text;
    stop.disabled = true;
    const [box] = liven(el, model,
      "The model is loaded when you first let it write, and it runs on this machine.",
      "The model comes from Python and runs in this browser.",
      h("div", {},
        h("div", { class: "lk-knob" }, h("label", { for: id }, "Your text"), area), wrong,
        h("div", { class: "lk-knob" },
          h("label", { for: `${id}c` }, "Of all next characters, take"), pick),
        h("div", { class: "lk-actions" }, go, stop, reset)));
    const say = sentence(box);
    const sides = ["uncached", "cached"].map((loop, i) => side(box, loop, i));
    let begun = 0; // the latest run of this card
    box.classList.add("lk-unused");

    function refuse(words) {
      wrong.textContent = words;
      area.setAttribute("aria-invalid", words !== "");
      if (words) area.focus();
      return words !== "";
    }
    async function start() {
      const text = plain(area.value);
      if (refuse(fault(text, spec))) return;
      const mine = begun = ++run;
      let language;
      try {
        say(["Loading the model…"]);
        language = await load(model, spec.file);
      } catch (error) {
        say([""]);
        refuse(error.message);
        return;
      }
      if (mine !== run) return;
      say([""]);
      stop.disabled = false;
      box.classList.remove("lk-unused");
      const ids = [...text].map((c) => spec.alphabet.indexOf(c));
      await Promise.all(sides.map((one) => {
        one.begin(text);
        return write(language, ids, one.loop, spec.context - ids.length, {
          temperature: +pick.value,
          random: randoms(1),
          breathe,
          wrote(character, work) {
            if (mine !== run) return false;
            one.wrote(spec.alphabet[character], work);
            compare(box, sides);
            return true;
          },
        });
      }));
      // reset, or begun anew: another says what is to be said
      if (!box.isConnected || begun !== mine) return;
      stop.disabled = true;
      say([verdict(sides, mine === run)]);
    }
  }
  draw();
  return () => { run += 1; };
}
export default { render };
