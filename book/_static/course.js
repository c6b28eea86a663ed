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

function receipts() {
  if (!$(".receipt")) return;
  const card = make("div", { className: "receipt-card", hidden: true });
  card.setAttribute("role", "tooltip");
  document.body.append(card);
  let open = null, leaving;
  const hide = () => { card.hidden = true; open?.removeAttribute("data-open"); open = null; };
  const place = () => {
    const at = open.getClientRects()[0], width = card.offsetWidth, height = card.offsetHeight, edge = 16;
    if (at.bottom < 0 || at.top > innerHeight) return hide();
    card.style.left = Math.max(edge, Math.min(at.left + at.width / 2 - width / 2, root.clientWidth - width - edge)) + "px";
    card.style.top = (at.bottom + 8 + height < innerHeight || at.top < height ? at.bottom + 8 : at.top - height - 8) + "px";
  };
  const show = link => {
    clearTimeout(leaving);
    if (open === link) return;
    hide();
    open = link;
    link.dataset.open = "";
    const row = document.getElementById(link.hash.slice(1));
    const copies = nodes => [...nodes].map(n => n.cloneNode(true));
    card.replaceChildren(make("p", {}, ...copies(row.childNodes)), ...copies($$("dl", row.closest(".origin"))));
    card.hidden = false;
    place();
  };
  const leave = () => { leaving = setTimeout(hide, 180); };  // time to reach the card with the pointer
  for (const link of $$(".receipt")) {
    link.addEventListener("pointerenter", e => e.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", e => e.pointerType === "mouse" && leave());
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", leave);
    link.addEventListener("click", e => { e.preventDefault(); show(link); });
  }
  card.addEventListener("pointerenter", () => clearTimeout(leaving));
  card.addEventListener("pointerleave", leave);
  document.addEventListener("keydown", e => e.key === "Escape" && hide());
  document.addEventListener("pointerdown", e => e.target.closest(".receipt, .receipt-card") || hide());
  addEventListener("scroll", () => open && place(), { passive: true });
}

function copying() {
  const button = (text, label, get) => {
    const b = make("button", { type: "button", className: "copy", textContent: text });
    b.setAttribute("aria-label", label);
    b.addEventListener("click", async () => { await navigator.clipboard.writeText(await get()); b.textContent = "Copied"; setTimeout(() => { b.textContent = text; }, 1500); });
    return b;
  };
  for (const box of $$("div.highlight")) {
    if (!box.closest(".cell_output")) box.append(button("Copy", "Copy this code", () => $("pre", box).textContent));
  }
  for (const b of $$(".copy-page")) {
    b.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(await (await fetch(b.dataset.href)).text());
        b.textContent = "Copied";
      } catch { location.href = b.dataset.href; }  // a page opened from a folder may not fetch: show the text instead
    });
  }
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

function paper() {  // what is folded is read on paper too, but for the code that only draws
  let shut = [];
  addEventListener("beforeprint", () => { shut = $$("article details:not([open], .hide, .receipts *)"); for (const d of shut) d.open = true; });
  addEventListener("afterprint", () => { for (const d of shut) d.open = false; });
}

function more() {  // what can still be scrolled to the right is marked, and fades there
  const look = box => box.toggleAttribute("data-more", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
  const sizes = new ResizeObserver(seen => { for (const { target } of seen) look(target); });
  for (const box of $$("article :is(.table-box, pre, div.math)")) {
    sizes.observe(box);
    box.addEventListener("scroll", () => look(box), { passive: true });
  }
}

for (const part of [theme, drawer, receipts, copying, quizzes, contents, search, more, paper]) part();
