// What a temperature does to a teacher's answer, its entropy, and the gradient of the soft term.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.temperature = {
  entropy: (logits, temperature) =>
    -kdcourse.parts.logSoftmax(logits, temperature).reduce((sum, each) => sum + Math.exp(each) * each, 0),

  /** The gradient of T² · KL(q_T ‖ p_T) by the student's logits: T (p_T − q_T). */
  gradient(student, teacher, temperature) {
    const q = kdcourse.parts.softmax(teacher, temperature);
    return kdcourse.parts.softmax(student, temperature).map((p, place) => temperature * (p - q[place]));
  },

  mount(place) {
    const { teacher, student } = JSON.parse(place.dataset.values);
    const parts = kdcourse.parts;
    const controls = parts.controls(place);
    const slider = parts.slider(controls, "T", {
      min: -2, max: 6, step: 0.25, value: 2, shown: (power) => (2 ** power).toFixed(2), changed: () => draw(),
    });
    const { svg, say, clear } = parts.drawing(place, 600, 190);
    const tell = parts.said(place);
    const draw = () => {
      const temperature = 2 ** slider.value;
      const q = parts.softmax(teacher, temperature);
      const norm = Math.hypot(...this.gradient(student, teacher, temperature));
      clear();
      const width = 600 / q.length;
      q.forEach((share, digit) => {
        const x = digit * width;
        parts.shape(svg, "rect", { x: x + 6, y: 150 - 120 * share, width: width - 12, height: 120 * share, fill: "currentColor", class: "teacher" });
        parts.shape(svg, "text", { x: x + width / 2, y: 144 - 120 * share, "text-anchor": "middle" }, parts.percent(share));
        parts.shape(svg, "text", { x: x + width / 2, y: 172, "text-anchor": "middle", class: "quiet" }, digit);
      });
      say(`The teacher’s probabilities at T = ${temperature.toFixed(2)}: ${q.map((share, digit) => `${digit} with ${parts.percent(share)}`).join(", ")}.`);
      const entropy = this.entropy(teacher, temperature);
      tell(`Entropy ${entropy.toFixed(2)} of ${Math.log(q.length).toFixed(2)} nats. Norm of the soft term’s gradient, for a student that has learned nothing: ${norm.toFixed(3)} with T² in front, ${(norm / temperature ** 2).toFixed(4)} without.`);
    };
    draw();
  },
};
