const slides = [...document.querySelectorAll("section.slide")];
const SMALLEST = 0.7;  // below that, a back row cannot read it: the slide scrolls instead

function fit(slide) {
  const content = slide.querySelector("div");
  for (let zoom = 1; zoom > SMALLEST - 0.01; zoom -= 0.05) {
    content.style.zoom = zoom;
    if (slide.scrollHeight <= slide.clientHeight) return;
  }
}

function turn(forwards) {
  const middle = window.innerHeight / 2;
  const here = slides.findIndex(slide => slide.getBoundingClientRect().bottom > middle);
  const slide = slides[here];
  const left = forwards ? slide.scrollHeight - slide.clientHeight - slide.scrollTop : slide.scrollTop;
  if (left > 4) return slide.scrollBy(0, (forwards ? 0.8 : -0.8) * slide.clientHeight);
  slides[Math.min(Math.max(here + (forwards ? 1 : -1), 0), slides.length - 1)].scrollIntoView();
}

const keys = {ArrowRight: true, ArrowDown: true, PageDown: true, ArrowLeft: false, ArrowUp: false, PageUp: false};
document.addEventListener("keydown", event => {
  if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  turn(keys[event.key]);
});
addEventListener("load", () => slides.forEach(fit));
addEventListener("resize", () => slides.forEach(fit));
