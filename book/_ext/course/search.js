// Ranks the sections of `courseIndex` for a query (BM25 over stems; Robertson and Zaragoza 2009). Loaded with
// the index, when the search is first opened. `Stemmer` is Porter's, from Sphinx.
"use strict";
window.courseSearch = (() => {
  const TITLE = 4, PAGE = 1.5; // how many times a word in the section's title counts, and in the page's
  const NAMED = 1.5; // beyond what many mentions can reach, for a word in the title
  const K = 1.2, B = 0.6;
  const EXACT = 2; // a section whose title is the query
  const BEGUN = 0.5; // a word that goes on after what is typed so far
  const { sections, synonyms, stopwords } = courseIndex;
  const stemmer = new Stemmer(), stems = new Map(), stop = new Set(stopwords);

  const fold = text => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f’']/g, "");
  // Both spellings of English come to one: quantise and quantize, colour and color, licence and license.
  const spell = word => word.replace(/iz(?=(e|ed|es|er|ers|ing|ation|ations)$)/, "is").replace(/(col|behavi|neighb|fav)our/, "$1or")
    .replace(/^license/, "licence");
  const stem = word => {
    if (!stems.has(word)) stems.set(word, stemmer.stemWord(spell(word)));
    return stems.get(word);
  };
  const split = text => fold(text).match(/[\p{L}\p{N}]+/gu) ?? [];
  const content = text => split(text).filter(word => !stop.has(word)).map(stem);

  const phrases = synonyms.map(group => group.map(content));
  const rows = sections.map(([page, pageTitle, anchor, title, text]) => {
    const row = { page, pageTitle, anchor, title, text, counts: new Map(), length: 0, name: content(title) };
    const add = (words, weight) => {
      for (const word of words) row.counts.set(word, (row.counts.get(word) ?? 0) + weight);
      row.length += words.length;
    };
    add(row.name, TITLE);
    add(content(pageTitle), PAGE);
    add(content(text), 1);
    return row;
  });
  const average = rows.reduce((sum, row) => sum + row.length, 0) / rows.length;
  const holding = new Map(); // stem -> how many sections have it
  for (const row of rows) for (const word of row.counts.keys()) holding.set(word, (holding.get(word) ?? 0) + 1);

  const worth = (row, word) => {
    const count = row.counts.get(word) ?? 0, n = holding.get(word) ?? 0;
    const rarity = Math.log(1 + (rows.length - n + 0.5) / (n + 0.5));
    const often = count * (K + 1) / (count + K * (1 - B + B * row.length / average));
    return rarity * (often + (row.name.includes(word) ? NAMED : 0));
  };
  const begins = (words, phrase, at) => phrase.every((word, i) => words[at + i] === word);

  // The query as terms, each a list of [stems, weight] that would do: GQA, or grouped + query + attention.
  function terms(query) {
    const typed = split(query), kept = typed.filter(word => !stop.has(word));
    const words = [...new Set((kept.length ? kept : typed).map(stem))], found = [];
    for (let at = 0; at < words.length;) {
      const group = phrases.find(group => group.some(phrase => phrase.length && begins(words, phrase, at)));
      const own = group?.filter(phrase => begins(words, phrase, at)).sort((a, b) => b.length - a.length)[0] ?? [words[at]];
      found.push((group ?? [own]).map(phrase => [phrase, 1]));
      at += own.length;
    }
    const last = typed.at(-1);
    if (last?.length > 1 && /[\p{L}\p{N}]$/u.test(query)) {
      const longer = [...holding.keys()].filter(word => word.startsWith(last) && word !== stem(last));
      if (kept.at(-1) === last) found.at(-1).push(...longer.map(word => [[word], BEGUN]));
    }
    return found;
  }

  // Sections, best first, each with the stems that were found in it.
  function search(query, most = 20) {
    const wanted = terms(query), asked = new Set(wanted.flatMap(term => term[0][0]));
    const found = [];
    for (const row of rows) {
      let sum = 0, matched = 0;
      const hits = new Set();
      for (const term of wanted) {
        let best = 0;
        for (const [phrase, weight] of term) {
          if (!phrase.every(word => row.counts.has(word))) continue;
          best = Math.max(best, weight * phrase.reduce((total, word) => total + worth(row, word), 0) / Math.sqrt(phrase.length));
          phrase.forEach(word => hits.add(word));
        }
        sum += best;
        matched += best > 0;
      }
      if (!matched) continue;
      const named = wanted.some(term => term.some(([phrase, weight]) => weight === 1 && wanted.length === 1 && same(row.name, phrase)))
        || same(row.name, [...asked]);
      found.push({ ...row, hits, score: sum * (matched / wanted.length) ** 2 * (named ? EXACT : 1) });
    }
    return found.sort((a, b) => b.score - a.score).slice(0, most);
  }
  const same = (a, b) => a.length === b.length && a.every(word => b.includes(word));

  // A piece of a text as [words, whether they were asked for], where most of what was asked stands.
  function excerpt(text, hits, length = 150) {
    const places = [...text.matchAll(/[\p{L}\p{N}]+/gu)].filter(m => hits.has(stem(fold(m[0])))).map(m => [m.index, m[0].length]);
    const inside = at => places.filter(([from]) => from >= at && from < at + length).length;
    const first = places.reduce((best, [at]) => (inside(at) > inside(best) ? at : best), places[0]?.[0] ?? 0);
    const from = Math.max(0, first - 40), to = Math.min(text.length, from + length), pieces = [[from ? "…" : "", false]];
    let at = from;
    for (const [start, size] of places.filter(([start, size]) => start >= from && start + size <= to)) {
      pieces.push([text.slice(at, start), false], [text.slice(start, start + size), true]);
      at = start + size;
    }
    return [...pieces, [text.slice(at, to) + (to < text.length ? "…" : ""), false]];
  }
  return { search, excerpt };
})();
