// Behaviour of the pages: theme, receipts, search, copy buttons, where you are. All of it is extra: a page reads well without.
"use strict";
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
const make = (tag, attrs = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), attrs);
  node.append(...children);
  return node;
};
const root = document.documentElement;

function theme() {
  const button = $(".theme-switch");
  const say = () => { $(".sr", button).textContent = root.dataset.theme === "dark" ? "Use the light theme" : "Use the dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a browser that keeps nothing still switches */ }
    say();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", e => {
    let kept = null;
    try { kept = localStorage.getItem("theme"); } catch { /* as above */ }
    if (!kept) { root.dataset.theme = e.matches ? "dark" : "light"; say(); }
  });
  say();
}

function drawer() {
  const menu = $(".menu");
  const close = back => { if (menu.open) { menu.open = false; if (back) $("summary", menu).focus(); } };
  document.addEventListener("keydown", e => e.key === "Escape" && close(true));
  document.addEventListener("pointerdown", e => e.target.closest(".menu") || close(false));
}

// Beside a number its receipt, beside a term what it means: under the pointer, with focus, at a touch.
function cards() {
  const links = $$("a.receipt, a[data-says]");
  if (!links.length) return;
  const card = make("div", { className: "receipt-card", id: "card", hidden: true });
  card.setAttribute("role", "tooltip");
  document.body.append(card);
  let open = null, leaving, touched;
  const hide = () => { card.hidden = true; open?.removeAttribute("data-open"); open = null; };
  const place = () => {
    const at = open.getClientRects()[0], edge = 16;
    card.hidden = at.bottom < 0 || at.top > innerHeight;  // until the page has come there
    const width = card.offsetWidth, height = card.offsetHeight;
    card.style.left = Math.max(edge, Math.min(at.left + at.width / 2 - width / 2, root.clientWidth - width - edge)) + "px";
    card.style.top = (at.bottom + 8 + height < innerHeight || at.top < height ? at.bottom + 8 : at.top - height - 8) + "px";
  };
  const copies = nodes => [...nodes].map(n => n.cloneNode(true));
  const receipt = link => {
    const row = document.getElementById(link.hash.slice(1));
    return [make("p", {}, ...copies(row.childNodes)), ...copies($$("dl", row.closest(".origin")))];
  };
  const term = link => [make("p", {}, make("b", { textContent: link.textContent }), link.dataset.says)];
  const show = link => {
    clearTimeout(leaving);
    if (open === link) return;
    hide();
    open = link;
    link.dataset.open = "";
    card.replaceChildren(...(link.dataset.says ? term : receipt)(link));
    place();
  };
  const leave = () => { leaving = setTimeout(hide, 180); };  // time to reach the card with the pointer
  for (const link of links) {
    if (link.dataset.says) link.setAttribute("aria-describedby", card.id);
    link.addEventListener("pointerenter", e => e.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", e => e.pointerType === "mouse" && leave());
    link.addEventListener("pointerdown", e => { touched = e.pointerType !== "mouse" && open !== link; });
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", leave);
    // a receipt is all there is to see; a term leads to the glossary, but at a first touch
    link.addEventListener("click", e => {
      if (!link.dataset.says || touched) e.preventDefault();
      touched = false;
      show(link);
    });
  }
  card.addEventListener("pointerenter", () => clearTimeout(leaving));
  card.addEventListener("pointerleave", leave);
  document.addEventListener("keydown", e => e.key === "Escape" && hide());
  document.addEventListener("pointerdown", e => e.target.closest("[data-open], .receipt-card") || hide());
  addEventListener("scroll", () => open && place(), { passive: true });
}

// Puts text where it can be pasted from. On plain http a browser has no clipboard object; there, and
// where it refuses, an old command does it. Resolves to whether it is done.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* the old way */ }
  const back = document.activeElement, box = make("textarea", { className: "sr", value: text, readOnly: true });
  box.style.whiteSpace = "pre";  // or what is indented would not be
  document.body.append(box);
  box.select();
  let done = false;
  try { done = document.execCommand("copy"); } catch { /* then the reader does it */ }
  box.remove();
  back?.focus({ preventScroll: true });
  return done;
}

function copying() {
  const say = (button, words) => {
    const before = button.dataset.words ??= button.textContent;
    button.textContent = words;
    setTimeout(() => { button.textContent = before; }, 4000);
  };
  for (const box of $$("div.highlight")) {
    if (box.closest(".cell_output")) continue;
    const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
    const status = make("span", { className: "sr" });
    button.setAttribute("aria-label", "Copy this code");
    status.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      const done = await copied($("pre", box).textContent), words = done ? "Copied" : "Selected: copy it with your browser";
      if (!done) getSelection().selectAllChildren($("pre", box));
      say(button, words);
      status.textContent = words;
    });
    box.append(button, status);
  }
  for (const b of $$(".copy-page")) {
    b.addEventListener("click", async () => {
      try {
        if (!await copied(await (await fetch(b.dataset.href)).text())) throw new Error("refused");
        say(b, "Copied");
      } catch { location.href = b.dataset.href; }  // a page opened from a folder may not fetch: show the text instead
    });
  }
}

// Captions are on. A browser gives their file to no page opened from a folder: there words and times come from the transcript.
function captions() {
  const written = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  for (const clip of $$("figure.clip")) {
    const video = $("video", clip);
    if (location.protocol === "file:") {
      $("track", clip).remove();
      const track = video.addTextTrack("captions", "English", "en");
      for (const said of $$("[data-cue]", clip)) {
        const [start, end] = said.dataset.cue.split(" ");
        track.addCue(new VTTCue(+start, +end, written(said.textContent)));
      }
    }
    video.textTracks[video.textTracks.length - 1].mode = "showing";
  }
}

// What a link leads to stays under the bar while anything above it still grows (typefaces, pictures), until the reader moves.
function arrive() {
  let target = null, until = 0;
  const hold = () => {
    target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    until = performance.now() + 5000;
  };
  const sizes = new ResizeObserver(() => {
    if (target && performance.now() < until) target.scrollIntoView({ behavior: "instant" });
  });
  for (const moves of ["wheel", "touchstart", "pointerdown", "keydown"]) {
    addEventListener(moves, () => { target = null; }, { passive: true, capture: true });
  }
  addEventListener("hashchange", hold);
  hold();
  sizes.observe($("article"));
}

function quizzes() {
  for (const quiz of $$(".quiz")) {
    let tried = 0, done = false;
    const tally = make("p", { className: "tally" });
    tally.setAttribute("role", "status");
    quiz.append(tally);
    for (const answer of $$(".answer", quiz)) {
      answer.addEventListener("toggle", () => {
        if (!answer.open || answer.dataset.tried || done) return;
        answer.dataset.tried = "";
        tried += 1;
        done = answer.classList.contains("right");
        if (done) tally.textContent = tried === 1 ? "Right at the first try." : `Right at try ${tried}.`;
      });
    }
  }
}

function contents() {
  const links = new Map($$(".contents a").map(a => [a.hash.slice(1), a]));
  const targets = [...links.keys()].map(id => document.getElementById(id)).filter(Boolean);
  if (!targets.length) return;
  const mark = () => {
    const passed = targets.filter(t => t.getBoundingClientRect().top < 140);
    const here = links.get((passed.at(-1) ?? targets[0]).id);
    for (const a of links.values()) a.classList.toggle("here", a === here);
  };
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
  mark();
}

function search() {
  const dialog = $("dialog.search"), input = $("input", dialog), list = $(".search-results", dialog), status = $(".search-status", dialog);
  const base = root.dataset.content_root;
  let loading = null;
  const load = () => loading ??= new Promise((ok, no) => document.head.append(make("script", { src: base + "search-index.js", onload: ok, onerror: no })));
  const open = async () => { dialog.showModal(); input.select(); await load(); answer(); };
  const answer = () => {
    const found = courseSearch.search(input.value);
    status.textContent = !input.value.trim() ? "Type a word or two." : found.length ? `${found.length} section${found.length > 1 ? "s" : ""}` : "Nothing found.";
    list.replaceChildren(...found.map(({ page, pageTitle, anchor, title, text, hits }) => make("li", {},
      make("a", { href: `${base}${page}.html#${anchor}` }, make("b", { textContent: title }), title === pageTitle ? "" : ` · ${pageTitle}`,
        make("small", {}, ...courseSearch.excerpt(text, hits).map(([words, hit]) => (hit ? make("mark", { textContent: words }) : words)))))));
  };
  $(".search-open").addEventListener("click", open);
  input.addEventListener("input", () => window.courseSearch && answer());
  $("form", dialog).addEventListener("submit", e => { e.preventDefault(); $("a", list)?.click(); });
  $(".search-close", dialog).addEventListener("click", () => dialog.close());
  list.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", e => e.target === dialog && dialog.close());
  dialog.addEventListener("keydown", e => {
    if (e.key === "Escape") dialog.close();  // the field would only be emptied by the first one
    if (!["ArrowDown", "ArrowUp"].includes(e.key)) return;
    const stops = [input, ...$$("a", list)], next = stops[stops.indexOf(document.activeElement) + (e.key === "ArrowDown" ? 1 : -1)];
    if (next) { e.preventDefault(); next.focus(); }
  });
  document.addEventListener("keydown", e => {
    const typing = e.target.closest?.("input, textarea, select, [contenteditable]");
    if ((e.key === "/" && !typing) || (e.key === "k" && (e.ctrlKey || e.metaKey))) { e.preventDefault(); open(); }
  });
}

// On paper all is read but the code that only draws; solutions stand apart from their exercises.
function paper() {
  const apart = make("section", { className: "solutions" }, make("h2", { textContent: "Solutions" }));
  let shut = [], places = [];
  addEventListener("beforeprint", () => {
    shut = $$("article details:not([open], .hide, .receipts *), details.hide:not([open]):has(.cell_output, .output)");
    for (const fold of shut) fold.open = true;
    places = $$("article .solution").map(solution => {
      const place = document.createComment("");
      solution.replaceWith(place);
      apart.append(solution);
      return [place, solution];
    });
    if (places.length) $("article").append(apart);
  });
  addEventListener("afterprint", () => {
    for (const [place, solution] of places) place.replaceWith(solution);
    apart.remove();
    for (const fold of shut) fold.open = false;
  });
}

// What can still be scrolled to the right is marked, and fades there; what scrolls can be focused.
function more() {
  const look = box => {
    const over = box.scrollWidth - box.clientWidth;
    box.toggleAttribute("data-more", over - box.scrollLeft > 4);
    if (over > 4) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const boxes = "article :is(.table-box, pre, div.math)";
  const sizes = new ResizeObserver(seen => {
    for (const box of seen.map(({ target }) => target.closest(boxes))) if (box) look(box); // none: it has left the page
  });
  for (const box of $$(boxes)) {
    sizes.observe(box);
    if (box.firstElementChild) sizes.observe(box.firstElementChild); // a letter's true form makes it wider
    box.addEventListener("scroll", () => look(box), { passive: true });
  }
}

for (const part of [theme, drawer, arrive, cards, copying, captions, quizzes, contents, search, more, paper]) part();
