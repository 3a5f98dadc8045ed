// Alpha and T against the parts of the loss, for one example.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.balance = {
  /** {hard, soft, total} in nats: α · CE + (1 − α) · T² · KL(q_T ‖ p_T). */
  loss(student, teacher, label, alpha, temperature) {
    const { logSoftmax, kl } = kdcourse.parts;
    const hard = -logSoftmax(student)[label];
    const soft = temperature ** 2 * kl(logSoftmax(teacher, temperature), logSoftmax(student, temperature));
    return { hard, soft, total: alpha * hard + (1 - alpha) * soft };
  },

  mount(place) {
    const { student, teacher, label } = JSON.parse(place.dataset.values);
    const parts = kdcourse.parts;
    const controls = parts.controls(place);
    const changed = () => draw();
    const alpha = parts.slider(controls, "alpha", { min: 0, max: 1, step: 0.05, value: 0.5, shown: (each) => each.toFixed(2), changed });
    const power = parts.slider(controls, "T", { min: 0, max: 4, step: 0.25, value: 1, shown: (each) => (2 ** each).toFixed(2), changed });
    const { svg, say, clear } = parts.drawing(place, 600, 120);
    const tell = parts.said(place);
    const draw = () => {
      const weight = alpha.value;
      const { hard, soft, total } = this.loss(student, teacher, label, weight, 2 ** power.value);
      const scale = 400 / Math.max(hard, soft, 1);
      clear();
      const bars = [["labels", weight * hard, hard, "student"], ["teacher", (1 - weight) * soft, soft, "teacher"]];
      bars.forEach(([name, weighed, whole, colour], row) => {
        const y = 12 + 54 * row;
        parts.shape(svg, "text", { x: 0, y: y + 22, class: "quiet" }, name);
        parts.shape(svg, "rect", { x: 100, y, width: scale * whole, height: 34, fill: "none", stroke: "currentColor", class: colour });
        parts.shape(svg, "rect", { x: 100, y, width: scale * weighed, height: 34, fill: "currentColor", class: colour });
        parts.shape(svg, "text", { x: 108 + scale * whole, y: y + 22 }, weighed.toFixed(3));
      });
      const words = `Labels ${(weight * hard).toFixed(3)} of ${hard.toFixed(3)}, teacher ${((1 - weight) * soft).toFixed(3)} of ${soft.toFixed(3)}; the loss is ${total.toFixed(3)} nats.`;
      say(words);
      tell(words);
    };
    draw();
  },
};
