// Confidence against accuracy, in bins: how the calibration error depends on their number, and what a temperature repairs.
"use strict";

globalThis.kdcourse ??= { turns: {}, parts: {} };

kdcourse.turns.calibration = {
  /** Rows of [logits, label] of an imagined model that is as sure as logits twice too large make it; always the same. */
  rows: Array.from({ length: 400 }, (_, place) => {
    const sure = 6 * (((place * 0.6180339887498949) % 1) - 0.5); // spread evenly: multiples of the golden ratio
    const lot = (place * 0.7548776662466927) % 1;
    return [[0, 2 * sure], lot < 1 / (1 + Math.exp(-sure)) ? 1 : 0];
  }),

  /** Bins of equal width, open on the left: {count, confidence, right}, the last two as sums. */
  bins(rows, count, temperature) {
    const bins = Array.from({ length: count }, () => ({ count: 0, confidence: 0, right: 0 }));
    for (const [logits, label] of rows) {
      const shares = kdcourse.parts.softmax(logits, temperature);
      const confidence = Math.max(...shares);
      const bin = bins[Math.ceil(confidence * count) - 1];
      bin.count += 1;
      bin.confidence += confidence;
      bin.right += Number(shares.indexOf(confidence) === label);
    }
    return bins;
  },

  /** The expected calibration error: |accuracy − confidence| of each bin, weighted by its rows (Guo et al. 2017). */
  error(rows, count, temperature) {
    const bins = this.bins(rows, count, temperature);
    return bins.reduce((sum, { confidence, right }) => sum + Math.abs(confidence - right), 0) / rows.length;
  },

  mount(place) {
    const parts = kdcourse.parts;
    const controls = parts.controls(place);
    const changed = () => draw();
    const count = parts.slider(controls, "bins", { min: 2, max: 40, step: 1, value: 15, changed });
    const temperature = parts.slider(controls, "T", { min: 0.5, max: 4, step: 0.1, value: 1, shown: (each) => each.toFixed(1), changed });
    const { svg, say, clear } = parts.drawing(place, 600, 256);
    const tell = parts.said(place);
    const [x, y] = [(share) => 76 + 484 * (2 * share - 1), (share) => 215 - 190 * share];
    const draw = () => {
      clear();
      parts.shape(svg, "path", { d: `M${x(0.5)} ${y(0.5)}L${x(1)} ${y(1)}`, stroke: "currentColor", "stroke-dasharray": "4 4", class: "quiet" });
      parts.shape(svg, "path", { d: `M${x(0.5)} ${y(0)}H${x(1)}M${x(0.5)} ${y(0)}V${y(1)}`, class: "axis" });
      for (const share of [0.5, 0.75, 1]) parts.shape(svg, "text", { x: x(share), y: 246, "text-anchor": "middle", class: "quiet" }, `${100 * share}%`);
      for (const share of [0, 0.5, 1]) parts.shape(svg, "text", { x: 68, y: y(share) + 4, "text-anchor": "end", class: "quiet" }, `${100 * share}%`);
      for (const bin of this.bins(this.rows, count.value, temperature.value)) {
        if (!bin.count) continue;
        const radius = 2 + Math.sqrt(bin.count);
        parts.shape(svg, "circle", { cx: x(bin.confidence / bin.count), cy: y(bin.right / bin.count), r: radius, fill: "currentColor", "fill-opacity": 0.6, class: "student" });
      }
      const error = this.error(this.rows, count.value, temperature.value);
      const words = `${count.value} bins, T = ${temperature.value.toFixed(1)}: expected calibration error ${(100 * error).toFixed(1)} points. Circles: accuracy against confidence, larger for more rows.`;
      say(words);
      tell(words);
    };
    draw();
  },
};
