// What the things to turn share: sliders, drawings, and sums that do not overflow. A page loads this first.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

Object.assign(kdcourse.parts, {
  /** log Σ exp(x) */
  logSumExp(values) {
    const largest = Math.max(...values);
    return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  },

  /** The log-probabilities of a softmax of logits / T. */
  logSoftmax(logits, temperature = 1) {
    const scaled = logits.map((logit) => logit / temperature);
    const total = kdcourse.parts.logSumExp(scaled);
    return scaled.map((logit) => logit - total);
  },

  softmax: (logits, temperature = 1) => kdcourse.parts.logSoftmax(logits, temperature).map(Math.exp),

  /** KL(p ‖ q) in nats, from log-probabilities. */
  kl: (logP, logQ) => logP.reduce((sum, each, place) => sum + (each === -Infinity ? 0 : Math.exp(each) * (each - logQ[place])), 0),

  /** A drawing of this size; `draw` fills it, and says in words what it shows. */
  drawing(parent, width, height) {
    const svg = kdcourse.parts.shape(parent, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    return { svg, say: (words) => svg.setAttribute("aria-label", words), clear: () => svg.replaceChildren() };
  },

  shape(parent, name, attributes, text = "") {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    shape.textContent = text;
    parent.append(shape);
    return shape;
  },

  element(parent, name, properties = {}) {
    const element = Object.assign(document.createElement(name), properties);
    parent.append(element);
    return element;
  },

  controls: (parent) => kdcourse.parts.element(parent, "div", { className: "controls" }),

  /** A labelled slider, whose value is shown beside its name. */
  slider(parent, name, { min, max, step, value, shown = (number) => number, changed }) {
    const { element } = kdcourse.parts;
    const label = element(parent, "label");
    label.append(`${name} = `);
    const output = element(label, "output");
    const input = element(label, "input", { type: "range", min, max, step, value });
    const update = () => {
      output.textContent = shown(Number(input.value));
    };
    input.addEventListener("input", () => {
      update();
      changed();
    });
    update();
    return { get value() { return Number(input.value); }, set value(number) { input.value = number; update(); }, input };
  },

  /** A line of words beneath, read aloud when it changes. */
  said(parent) {
    const said = kdcourse.parts.element(parent, "p", { className: "said" });
    said.setAttribute("aria-live", "polite");
    return (words) => { said.textContent = words; };
  },

  percent: (share) => `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)}%`,
});

addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-turn]")) kdcourse.turns[place.dataset.turn].mount(place);
});
