// The k likeliest classes of a teacher, and the rest as one bucket: what forward KL still sees.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.topk = {
  /** Log-probabilities of the k likeliest classes of the teacher, and of the rest if there is one, for both models. */
  buckets(student, teacher, k) {
    const { logSoftmax, logSumExp } = kdcourse.parts;
    const order = teacher.map((_, place) => place).sort((one, other) => teacher[other] - teacher[one]);
    const kept = (logs) => order.slice(0, k).map((place) => logs[place]);
    const rest = (logs) => (k < order.length ? [logSumExp(order.slice(k).map((place) => logs[place]))] : []);
    const [p, q] = [logSoftmax(student), logSoftmax(teacher)];
    return { student: [...kept(p), ...rest(p)], teacher: [...kept(q), ...rest(q)] };
  },

  /** Forward KL over k classes and the rest, in nats. */
  divergence(student, teacher, k) {
    const cut = this.buckets(student, teacher, k);
    return kdcourse.parts.kl(cut.teacher, cut.student);
  },

  mount(place) {
    const { student, teacher } = JSON.parse(place.dataset.values);
    const parts = kdcourse.parts;
    const slider = parts.slider(parts.controls(place), "k", { min: 1, max: teacher.length, step: 1, value: 3, changed: () => draw() });
    const { svg, say, clear } = parts.drawing(place, 600, 170);
    const tell = parts.said(place);
    const draw = () => {
      const k = slider.value;
      const cut = this.buckets(student, teacher, k);
      const width = 600 / (teacher.length + 1);
      clear();
      cut.teacher.forEach((log, row) => {
        const name = row < k ? row + 1 : "rest";
        const x = row * width;
        [[log, "teacher"], [cut.student[row], "student"]].forEach(([each, colour], side) => {
          const height = 130 * Math.exp(each);
          parts.shape(svg, "rect", { x: x + 4 + (side * width) / 2.3, y: 140 - height, width: width / 2.5, height, fill: "currentColor", class: colour });
        });
        parts.shape(svg, "text", { x: x + width / 2, y: 160, "text-anchor": "middle", class: "quiet" }, name);
      });
      parts.shape(svg, "text", { x: 300, y: 24, class: "teacher" }, "■ teacher");
      parts.shape(svg, "text", { x: 450, y: 24, class: "student" }, "■ student");
      const [seen, whole] = [this.divergence(student, teacher, k), this.divergence(student, teacher, teacher.length)];
      const rest = k < teacher.length ? Math.exp(cut.teacher[k]) : 0;
      const words = `k = ${k} of ${teacher.length}: the teacher’s rest is ${parts.percent(rest)}, and forward KL over the buckets ${seen.toFixed(3)} of ${whole.toFixed(3)} nats.`;
      say(words);
      tell(words);
    };
    draw();
  },
};
