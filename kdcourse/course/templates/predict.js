// A guess on a page: kept in this browser, and put before the answer that the lesson measured.
"use strict";

const keyOf = (name) => "kdcourse-guess-" + name;

function show(name, guess) {
  for (const answer of document.querySelectorAll(`.kdcourse-reveal[data-prediction="${CSS.escape(name)}"]`)) {
    const said = answer.querySelector("b") || answer.insertBefore(document.createElement("b"), answer.firstChild);
    said.textContent = guess === answer.dataset.answer ? `You said ${guess}: right. ` : `You said ${guess}. `;
  }
}

function recall(name) {
  try {
    return localStorage.getItem(keyOf(name));
  } catch {
    return null; // a browser may keep nothing for a file
  }
}

function keep(name, guess) {
  try {
    localStorage.setItem(keyOf(name), guess);
  } catch {
    // the page still shows it
  }
  show(name, guess);
}

for (const form of document.querySelectorAll(".kdcourse-predict")) {
  const name = form.dataset.prediction;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => keep(name, event.target.value));
  const guess = recall(name);
  if (guess !== null) {
    for (const input of form.elements) {
      if (input.type === "radio") input.checked = input.value === guess;
      if (input.type === "text") input.value = guess;
    }
    show(name, guess);
  }
}
