// What a page of the course does beside Sphinx: how far somebody has read, links to answers, boxes and drawers for the
// keyboard, a filter for long tables, a search for questions. All of it stays in this browser.
"use strict";

const store = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // a browser may keep nothing for a file
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // the page still works
    }
  },
};

function letTheKeyboardScroll() {
  const boxes = [...document.querySelectorAll("article pre, .table-wrapper, .formula")];
  const state = boxes.map((box) => [box.scrollWidth > box.clientWidth, isMoreOf(box)]); // all read, then all written: one layout
  boxes.forEach((box, place) => {
    const [isWide, isMore] = state[place];
    if (isWide) box.tabIndex = 0;
    box.classList.toggle("more", isMore);
  });
}

const isMoreOf = (box) => box.scrollLeft + box.clientWidth < box.scrollWidth - 1;

function rememberHowFar(bar) {
  const key = `kdcourse-read-${bar.dataset.lesson}`;
  const article = document.querySelector("article");
  const note = () => {
    const seen = (window.innerHeight - article.getBoundingClientRect().top) / article.offsetHeight;
    const percent = Math.round(100 * Math.min(1, Math.max(0, seen)));
    if (percent > Number(store.get(key))) store.set(key, String(percent));
  };
  let waiting = 0;
  addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(note, 200);
  }, { passive: true });
}

function showHowFar(card) {
  const predictions = card.dataset.predictions.split(" ").filter(Boolean);
  const guessed = predictions.filter((name) => store.get(`kdcourse-guess-${name}`) !== null).length;
  const read = Number(store.get(`kdcourse-read-${card.dataset.lesson}`));
  if (!guessed && !read) return;
  const bar = card.querySelector("progress");
  bar.hidden = false;
  bar.value = read;
  card.querySelector(".progress").textContent = ` · ${read}% read, ${guessed} of ${predictions.length} predicted`;
}

function leadToTheAnswer(form) {
  const answer = document.getElementById(`answer-${form.dataset.prediction}`);
  if (!answer) return;
  const said = document.createElement("p");
  said.className = "kept";
  said.setAttribute("role", "status");
  form.querySelector("fieldset").append(said);
  const show = () => {
    if (said.firstChild) return;
    const link = document.createElement("a");
    link.href = `#${answer.id}`;
    link.textContent = "the answer, where it is measured";
    said.append("Kept in this browser. Read on, or go to ", link, ".");
  };
  form.addEventListener("change", show);
  if (store.get(`kdcourse-guess-${form.dataset.prediction}`) !== null) show();
}

function filterRows(input) {
  const rows = [...document.querySelectorAll("article table tbody tr")];
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  input.closest("p").after(said);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    said.textContent = words.length ? `${shown} of ${rows.length} rows.` : "";
    if (shown) return;
    const link = document.createElement("a");
    link.href = `${document.documentElement.dataset.content_root}search.html?q=${encodeURIComponent(input.value)}`;
    link.textContent = "search all pages";
    said.append(" Try fewer words, or ", link, ".");
  });
}

/** Sphinx finds pages that hold every word, in no order. In front of these come passages that hold most of a question. */
function findPassages(search, { all, where, also }) {
  const mean = all.reduce((sum, passage) => sum + passage[4], 0) / all.length;
  const stems = Object.keys(where);
  const of = (table, word) => (Object.hasOwn(table, word) ? table[word] : []); // every object has a "constructor"

  /** The passages of a word, of one that begins like it, or of one that the course says in its place: number to count. */
  const holders = (word) => {
    const alike = of(where, word).length || word.length < 3 ? [word] : stems.filter((stem) => stem.startsWith(word));
    const counts = new Map();
    for (const stem of new Set([...alike, ...of(also, word)])) {
      const steps = of(where, stem);
      for (let at = 0, number = 0; at < steps.length; at += 2) {
        number += steps[at];
        counts.set(number, (counts.get(number) ?? 0) + steps[at + 1]);
      }
    }
    return counts;
  };

  /** BM25, times the share of the question that a passage holds; a rare word is more of it. */
  const ranked = (words) => {
    const scores = new Map();
    let whole = 0;
    for (const word of words) {
      const counts = holders(word);
      if (!counts.size) continue;
      const weight = Math.log(1 + all.length / counts.size);
      whole += weight;
      for (const [number, count] of counts) {
        const known = scores.get(number) ?? { held: 0, score: 0 };
        const length = 0.5 + 0.5 * Math.max(1, all[number][4] / mean); // a short row says no more than a section
        known.held += weight;
        known.score += (weight * count * 2.2) / (count + 1.2 * length);
        scores.set(number, known);
      }
    }
    const near = [...scores].filter(([, { held }]) => held > whole / 2);
    return near.map(([number, { held, score }]) => [number, (score * held) / whole]).sort((one, other) => other[1] - one[1]);
  };

  const withAllWords = search.performTermsSearch;
  search.performTermsSearch = (words, excluded) => {
    const ofPage = {};
    const first = ranked(words).filter(([number]) => (ofPage[all[number][0]] = (ofPage[all[number][0]] ?? 0) + 1) <= 3).slice(0, 20);
    const hits = first.map(([number, score]) => {
      const [page, anchor, title, within] = all[number];
      const file = search._index.filenames[search._index.docnames.indexOf(page)];
      return [page, title, anchor, within || null, 6 + (8 * score) / first[0][1], file, "text"]; // a title as it is typed has 15
    });
    const shown = new Set(hits.map(([page]) => page));
    const others = withAllWords(words, excluded).filter(([page]) => !shown.has(page));
    for (const other of others) other[4] = Math.min(other[4], 5);
    return [...hits, ...others];
  };
}

/** The theme opens its drawers by a label of a hidden checkbox, which no key reaches. */
function letTheKeyboardOpen(label) {
  const box = label.control;
  const drawer = document.querySelector(box.id === "__toc" ? ".toc-drawer" : ".sidebar-drawer");
  const say = () => label.setAttribute("aria-expanded", box.checked);
  const turn = (open) => {
    box.checked = open;
    box.dispatchEvent(new Event("change"));
    (open ? [...drawer.querySelectorAll("a, input")].find((each) => each.offsetParent) : label)?.focus();
  };
  label.setAttribute("role", "button");
  label.setAttribute("aria-label", box.getAttribute("aria-label"));
  label.tabIndex = 0;
  label.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    turn(!box.checked);
  });
  addEventListener("keydown", ({ key }) => {
    if (key === "Escape" && box.checked && label.checkVisibility()) turn(false);
  });
  box.addEventListener("change", say);
  say();
}

addEventListener("load", letTheKeyboardScroll); // once the page is laid out, which this asks about
if (typeof Search !== "undefined") {
  findPassages(Search, kdcourse.passages);
  const heading = Object.assign(document.createElement("h1"), { textContent: "Search" }); // Sphinx begins with an h2
  document.getElementById("search-results").before(heading);
}
addEventListener("resize", letTheKeyboardScroll);
document.addEventListener("toggle", letTheKeyboardScroll, true);
document.addEventListener("scroll", ({ target }) => {
  if (target.tabIndex === 0) target.classList.toggle("more", isMoreOf(target));
}, { capture: true, passive: true });
document.querySelectorAll(".nav-overlay-icon, .toc-overlay-icon").forEach(letTheKeyboardOpen);
document.querySelectorAll(".lesson-bar").forEach(rememberHowFar);
document.querySelectorAll(".cards li").forEach(showHowFar);
document.querySelectorAll(".kdcourse-predict").forEach(leadToTheAnswer);
document.querySelectorAll(".filter input").forEach(filterRows);
addEventListener("beforeprint", () => {
  for (const image of document.images) image.loading = "eager";
});
