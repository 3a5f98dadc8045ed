// Turns the slides of one page: keys, a swipe, the address (#/12), an overview, and a second window for the speaker.
"use strict";

const slides = [...document.querySelectorAll(".slide")];
const help = document.querySelector("dialog");
const said = document.querySelector(".said");
const SPEAKER = "#speaker/";
let here = 0;
let other = null;  // the other of the two windows, the room's and the speaker's
const isSpeaker = location.hash.startsWith(SPEAKER);
const started = Date.now();

/** Fonts of another machine may be wider than the ones that the lesson was cut for: then the slide is set smaller. */
function fit(slide) {
  const body = slide.querySelector(".body");
  body.style.zoom = "";
  for (let size = 0.96; size > 0.5 && isOverfull(body); size -= 0.04) body.style.zoom = size;
}

function isOverfull(body) {
  const parts = [body, ...body.querySelectorAll("pre, .prose, .column, .formula, table")];
  return parts.some(part => part.scrollHeight > part.clientHeight + 2 || part.scrollWidth > part.clientWidth + 2)
    && (body.scrollHeight > body.clientHeight + 2 || body.scrollWidth > body.clientWidth + 2);
}

function show(number, tell = true) {
  here = Math.min(Math.max(number, 0), slides.length - 1);
  slides.forEach((slide, place) => {
    slide.classList.toggle("current", place === here);
    slide.classList.toggle("next", place === here + 1);
  });
  const slide = slides[here];
  if (document.body.classList.contains("overview")) slide.scrollIntoView({ block: "nearest" });
  else fit(slide);
  said.querySelector("div").innerHTML = slide.querySelector(".notes").innerHTML;
  history.replaceState(null, "", (isSpeaker ? SPEAKER : "#/") + (here + 1));
  if (tell && other && !other.closed) other.postMessage({ slide: here }, "*");
}

function fromAddress() {
  const found = location.hash.match(/\/(\d+)$/);
  return found ? Number(found[1]) - 1 : 0;
}

function overview(on = !document.body.classList.contains("overview")) {
  document.body.classList.toggle("overview", on && !isSpeaker);
  if (on) slides.forEach(fit);
  show(here);
}

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
}

function speaker() {
  if (isSpeaker) return;
  other = window.open(location.href.replace(/#.*/, "") + SPEAKER + (here + 1), "kdcourse-speaker", "width=1200,height=800");
  if (!other) document.body.classList.toggle("speaker");  // the browser allows no second window
  show(here);
}

function light() {
  const dark = getComputedStyle(document.body).backgroundColor !== "rgb(255, 255, 255)";
  document.documentElement.dataset.light = dark ? "light" : "dark";
}

const next = () => show(here + 1), back = () => show(here - 1);
const keys = {
  " ": next, ArrowRight: next, ArrowDown: next, PageDown: next, n: next, Enter: next,
  ArrowLeft: back, ArrowUp: back, PageUp: back, p: back, Backspace: back,
  Home: () => show(0), End: () => show(slides.length - 1),
  f: fullscreen, o: () => overview(), Escape: () => overview(), s: speaker, d: light, "?": () => help.showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (help.open) return void (["?", "Enter", " "].includes(event.key) && (event.preventDefault(), help.close()));
  const grid = document.body.classList.contains("overview");
  let act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (event.key === " " && event.shiftKey) act = back;
  if (grid && event.key === "ArrowDown") act = () => show(here + 4);
  if (grid && event.key === "ArrowUp") act = () => show(here - 4);
  if (grid && (event.key === "Enter" || event.key === " ")) act = () => overview(false);
  if (!act) return;
  event.preventDefault();
  act();
}

function clock() {
  const minutes = Math.floor((Date.now() - started) / 60000), now = new Date();
  const time = `${now.getHours()}:${String(now.getMinutes()).padStart(2, "0")}`;
  said.querySelector("time").textContent = `${time}, ${minutes} min since this window was opened`;
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", event => {
  const slide = event.target.closest(".slide");
  if (slide && document.body.classList.contains("overview")) {
    here = slides.indexOf(slide);
    overview(false);
  }
});
let touch = null;
document.addEventListener("touchstart", event => { touch = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
document.addEventListener("touchend", event => {
  const moved = touch ? event.changedTouches[0].clientX - touch.clientX : 0;
  if (Math.abs(moved) > 50 && !document.body.classList.contains("overview")) (moved < 0 ? next : back)();
});
addEventListener("hashchange", () => show(fromAddress()));
addEventListener("resize", () => show(here, false));
addEventListener("beforeprint", () => { document.body.classList.add("printing"); slides.forEach(fit); });
addEventListener("afterprint", () => { document.body.classList.remove("printing"); show(here, false); });
addEventListener("message", event => {
  if (event.source !== other) return;
  if (Number.isInteger(event.data?.slide)) show(event.data.slide, false);
  else other.postMessage({ slide: here }, "*");  // it has just been opened, and may have missed a turn
});
if (isSpeaker) {
  other = window.opener;
  document.body.classList.add("speaker");
}
document.body.classList.add("playing");
setInterval(clock, 1000);
clock();
show(fromAddress(), false);
if (isSpeaker) other?.postMessage({ slide: null }, "*");
