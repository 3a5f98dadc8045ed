// What a page of the course does beside Sphinx: how far somebody has read, links to answers, boxes that the keyboard can
// scroll, a filter for long tables. All of it stays in this browser.
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

/** Sphinx finds pages that hold every word; behind these come pages that hold most of what a question is made of. */
function findQuestionsInOtherWords(search) {
  const withAll = search.performTermsSearch;
  search.performTermsSearch = (words, excluded) => {
    const found = withAll(words, excluded);
    const names = new Set(found.map(([name]) => name));
    const others = new Map();
    let most = 0;
    for (const word of words) {
      const hits = withAll(new Set([word]), excluded);
      if (!hits.length) continue;
      const weight = Math.log(1 + search._index.docnames.length / hits.length); // a rare word says more
      most += weight;
      for (const hit of hits) {
        const known = others.get(hit[0]) ?? { hit, weight: 0 };
        known.weight += weight;
        others.set(hit[0], known);
      }
    }
    const near = [...others.values()].filter(({ hit, weight }) => !names.has(hit[0]) && weight > most / 2);
    for (const { hit, weight } of near) hit[4] = (4 * weight) / most; // below a page with every word
    return [...found, ...near.map(({ hit }) => hit)];
  };
}

addEventListener("load", letTheKeyboardScroll); // once the page is laid out, which this asks about
if (typeof Search !== "undefined") findQuestionsInOtherWords(Search);
addEventListener("resize", letTheKeyboardScroll);
document.addEventListener("toggle", letTheKeyboardScroll, true);
document.addEventListener("scroll", ({ target }) => {
  if (target.tabIndex === 0) target.classList.toggle("more", isMoreOf(target));
}, { capture: true, passive: true });
document.querySelectorAll(".lesson-bar").forEach(rememberHowFar);
document.querySelectorAll(".cards li").forEach(showHowFar);
document.querySelectorAll(".kdcourse-predict").forEach(leadToTheAnswer);
document.querySelectorAll(".filter input").forEach(filterRows);
addEventListener("beforeprint", () => {
  for (const image of document.images) image.loading = "eager";
});
