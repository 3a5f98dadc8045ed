// A teacher with two peaks, a student with one: forward and reverse KL while the peaks are dragged.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.directions = {
  grid: Array.from({ length: 121 }, (_, place) => -6 + place / 10),

  /** Log-probabilities on the grid of bell curves of width 0.6 or so, mixed evenly. */
  bells(centres, width) {
    const { logSumExp } = kdcourse.parts;
    const logs = this.grid.map((x) => logSumExp(centres.map((centre) => -((x - centre) ** 2) / (2 * width ** 2))));
    const total = logSumExp(logs);
    return logs.map((each) => each - total);
  },

  forward: (student, teacher) => kdcourse.parts.kl(teacher, student),
  reverse: (student, teacher) => kdcourse.parts.kl(student, teacher),

  mount(place) {
    const parts = kdcourse.parts;
    const controls = parts.controls(place);
    const settings = (value) => ({ min: -5, max: 5, step: 0.1, value, shown: (each) => each.toFixed(1), changed: () => draw() });
    const left = parts.slider(controls, "teacher’s first peak", settings(-2));
    const right = parts.slider(controls, "teacher’s second peak", settings(2));
    const own = parts.slider(controls, "student’s peak", settings(0));
    const width = parts.slider(controls, "student’s width", { ...settings(1), min: 0.3, max: 3 });
    const { svg, say, clear } = parts.drawing(place, 600, 200);
    const tell = parts.said(place);
    const x = (value) => 50 * (value + 6);
    const line = (logs) => logs.map((each, at) => `${at ? "L" : "M"}${x(this.grid[at]).toFixed(1)} ${(180 - 2100 * Math.exp(each)).toFixed(1)}`).join("");
    const draw = () => {
      const teacher = this.bells([left.value, right.value], 0.6);
      const student = this.bells([own.value], width.value);
      clear();
      parts.shape(svg, "path", { d: "M0 180H600", class: "axis" });
      parts.shape(svg, "path", { d: line(teacher), fill: "none", stroke: "currentColor", "stroke-width": 2.5, class: "teacher" });
      parts.shape(svg, "path", { d: line(student), fill: "none", stroke: "currentColor", "stroke-width": 2.5, "stroke-dasharray": "7 4", class: "student" });
      for (const [centre, logs, colour] of [[left, teacher, "teacher"], [right, teacher, "teacher"], [own, student, "student"]]) {
        const height = 2100 * Math.exp(logs[Math.round(10 * centre.value) + 60]);
        parts.shape(svg, "circle", { cx: x(centre.value), cy: 180 - height, r: 8, fill: "currentColor", class: colour });
      }
      parts.shape(svg, "text", { x: 8, y: 26, class: "teacher" }, "teacher —");
      parts.shape(svg, "text", { x: 150, y: 26, class: "student" }, "student - -");
      const words = `Forward KL(teacher ‖ student) ${this.forward(student, teacher).toFixed(2)} nats, reverse KL(student ‖ teacher) ${this.reverse(student, teacher).toFixed(2)} nats.`;
      say(words);
      tell(words);
    };
    let held = null;
    const at = (event) => {
      const { left: edge, width: wide } = svg.getBoundingClientRect();
      return (12 * (event.clientX - edge)) / wide - 6;
    };
    svg.addEventListener("pointerdown", (event) => {
      const here = at(event);
      held = [left, right, own].reduce((best, each) => (Math.abs(each.value - here) < Math.abs(best.value - here) ? each : best));
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (!held) return;
      held.value = at(event);
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });
    draw();
  },
};
