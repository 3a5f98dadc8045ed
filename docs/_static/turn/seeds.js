// Five seeds, and five others: how far a difference moves by luck alone.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.seeds = {
  T_OF_FOUR: 2.7764451051977987, // Student's t, 97.5%, 4 degrees of freedom: five pairs

  /** {difference, low, high, word}: the second minus the first, paired, with a 95% interval; five of each. */
  compare(first, second) {
    const differences = second.map((value, place) => value - first[place]);
    const mean = differences.reduce((sum, each) => sum + each, 0) / differences.length;
    const variance = differences.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (differences.length - 1);
    const half = this.T_OF_FOUR * Math.sqrt(variance / differences.length);
    const [low, high] = [mean - half, mean + half];
    return { difference: mean, low, high, word: low > 0 ? "better" : high < 0 ? "worse" : "no difference shown" };
  },

  /** A number from a normal distribution (Box and Muller 1958). */
  normal: (mean, deviation) => mean + deviation * Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),

  mount(place) {
    const measured = JSON.parse(place.dataset.values);
    const parts = kdcourse.parts;
    const { svg, say, clear } = parts.drawing(place, 600, 130);
    const button = parts.element(place, "button", { type: "button", textContent: "Draw five other seeds" });
    const tell = parts.said(place);
    const all = measured.flatMap(({ values }) => values);
    const [lowest, highest] = [Math.min(...all) - 1.5, Math.max(...all) + 1.5];
    const x = (value) => 165 + (415 * (value - lowest)) / (highest - lowest);
    const show = (drawn, source) => {
      clear();
      for (let tick = Math.ceil(lowest); tick <= highest; tick += 1) {
        parts.shape(svg, "path", { d: `M${x(tick)} 0V100`, class: "axis" });
        parts.shape(svg, "text", { x: x(tick), y: 118, "text-anchor": "middle", class: "quiet" }, `${tick}%`);
      }
      drawn.forEach((values, row) => {
        parts.shape(svg, "text", { x: 0, y: 34 + 46 * row }, measured[row].name);
        for (const value of values) {
          parts.shape(svg, "circle", { cx: x(value), cy: 30 + 46 * row, r: 6, fill: "currentColor", "fill-opacity": 0.7, class: row ? "teacher" : "student" });
        }
      });
      const { difference, low, high, word } = this.compare(...drawn);
      const words = `${source}: ${difference.toFixed(1)} points (95% interval over seeds ${low.toFixed(1)} to ${high.toFixed(1)}): ${word}.`;
      say(words);
      tell(words);
    };
    const moments = measured.map(({ values }) => {
      const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
      return [mean, Math.sqrt(values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (values.length - 1))];
    });
    button.addEventListener("click", () => {
      show(moments.map(([mean, deviation]) => Array.from({ length: 5 }, () => this.normal(mean, deviation))), "Drawn");
    });
    show(measured.map(({ values }) => values), "Measured");
  },
};
