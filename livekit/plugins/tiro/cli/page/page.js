"use strict";
// What the page shows is read from what stands in it: a word is an element with data-t, its start
// and end in milliseconds; data-event is an event's kind, start and length; data-at is a time.

const PEAKS_PER_SECOND = 50;
// CSS pixels for a second of the close-up, in which three rows have room for the fastest speech.
const PX = 120;
const ROWS = 3;
// The close-up exists in stretches of some seconds, and only around what is to be seen.
const STRETCH = 10;
// Seconds for which a word stays marked after its end, unless the next one begins: no flicker.
const LINGER = 0.4;
// Seconds; players answer a seek with a time that may be a little early.
const EARLY = 0.005;

const get = (id) => document.getElementById(id);
const player = get("player");
const play = get("play");
const now = get("now");
const overview = get("overview");
const closeup = get("closeup");
const strip = get("strip");
const needle = get("needle");
const follow = get("follow");
const transcript = get("transcript");
const audio = get("audio");
const length = player.dataset.length / 1000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// -- what there is ------------------------------------------------------------------------------

function bytes(id) {
  const text = atob(get(id).textContent);
  const found = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) found[index] = text.charCodeAt(index);
  return found;
}

const peaks = bytes("peaks");
const loudest = peaks.reduce((most, peak) => Math.max(most, peak), 1);

const words = [...transcript.querySelectorAll("[data-t]")]
  .map((element) => {
    const [start, end] = element.dataset.t.split(" ").map((ms) => ms / 1000);
    return { element, start, end };
  })
  .sort((one, other) => one.start - other.start);

const events = [...transcript.querySelectorAll("[data-event]")].map((element) => {
  const [kind, at, lasts] = element.dataset.event.split(" ");
  return { kind, at: at / 1000, lasts: lasts / 1000 };
});

const wordStarts = words.map((word) => word.start);
const finalStarts = [...transcript.querySelectorAll(".said .time")].map(
  (link) => link.dataset.at / 1000,
);

/** Return the number of the last of the sorted `starts` that is not after `seconds`, or -1. */
function lastBegun(starts, seconds) {
  let [low, high] = [0, starts.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= seconds + EARLY) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Return the number of the word to be heard at a time, or -1. */
function wordAt(seconds) {
  const number = lastBegun(wordStarts, seconds);
  return number >= 0 && seconds < words[number].end + LINGER ? number : -1;
}

function clock(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(
    Math.floor,
  );
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

// -- the close-up -------------------------------------------------------------------------------

const stretches = new Map();
const chips = new Map();
let wordsOf = [];

/** Give each word the first row in which it does not run into the word before. */
function layOut() {
  const pen = document.createElement("canvas").getContext("2d");
  const { fontSize, fontFamily } = getComputedStyle(closeup);
  pen.font = `${fontSize} ${fontFamily}`;
  const taken = Array(ROWS).fill(0);
  wordsOf = Array.from({ length: Math.ceil(length / STRETCH) }, () => []);
  words.forEach((word, number) => {
    const left = word.start * PX;
    const free = taken.findIndex((until) => until <= left);
    word.row = free < 0 ? taken.indexOf(Math.min(...taken)) : free;
    const { width } = pen.measureText(word.element.textContent);
    taken[word.row] = Math.max(left + width + 8, word.end * PX);
    wordsOf[Math.min(Math.floor(word.start / STRETCH), wordsOf.length - 1)].push(number);
  });
  strip.style.width = `${length * PX}px`;
}

function make(parent, name, text = "") {
  const element = document.createElement("div");
  element.className = name;
  element.textContent = text;
  parent.append(element);
  return element;
}

function draw(parent, name, attributes) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  parent.append(shape);
  return shape;
}

function buildStretch(index) {
  const from = index * STRETCH;
  const until = Math.min(from + STRETCH, length);
  const stretch = make(strip, "stretch");
  stretch.style.left = `${from * PX}px`;
  const width = (until - from) * PX;
  const svg = draw(stretch, "svg", { width, viewBox: `0 0 ${width} 48` });
  draw(svg, "path", { class: "bars", d: bars(from, until) });
  for (const { kind, at, lasts } of events) {
    if (at >= until || at + lasts < from) continue;
    const [name, rest] = lasts ? [kind, `h${lasts * PX}V0Z`] : [`line ${kind}`, ""];
    draw(svg, "path", { class: name, d: `M${(at - from) * PX} 0V48${rest}` });
  }
  for (let second = from; second < until; second++) {
    make(stretch, "second", clock(second)).style.left = `${(second - from) * PX}px`;
  }
  for (const number of wordsOf[index]) buildWord(stretch, from, number);
  stretches.set(index, stretch);
}

/** Return the waveform of a stretch as a path: a bar for each peak. */
function bars(from, until) {
  const first = from * PEAKS_PER_SECOND;
  return [...peaks.subarray(first, until * PEAKS_PER_SECOND)]
    .map((peak, number) => {
      // A peak is the square root of what it stands for.
      const half = Math.max(0.5, 24 * (peak / loudest) ** 2);
      return `M${((number + 0.5) * PX) / PEAKS_PER_SECOND} ${24 - half}v${2 * half}`;
    })
    .join("");
}

function buildWord(stretch, from, number) {
  const { element, start, end, row } = words[number];
  const chip = make(stretch, "word", element.textContent);
  chip.style.left = `${(start - from) * PX}px`;
  chip.style.top = `${4.375 + 1.25 * row}rem`;
  chip.style.setProperty("--lasts", `${(end - start) * PX}px`);
  chip.dataset.t = element.dataset.t;
  chip.classList.toggle("playing", number === marked);
  const { doubt } = element.closest("p").dataset;
  if (doubt) chip.dataset.doubt = doubt;
  chips.set(number, chip);
}

/** Make what is in sight of the close-up, and one window's width on both sides. */
function furnish() {
  const { scrollLeft: left, clientWidth: width } = closeup;
  const first = Math.max(0, Math.floor((left - width) / PX / STRETCH));
  const last = Math.min(wordsOf.length - 1, Math.floor((left + 2 * width) / PX / STRETCH));
  for (const [index, stretch] of stretches) {
    if (index >= first && index <= last) continue;
    stretch.remove();
    stretches.delete(index);
    for (const number of wordsOf[index]) chips.delete(number);
  }
  for (let index = first; index <= last; index++) if (!stretches.has(index)) buildStretch(index);
}

// -- where it is --------------------------------------------------------------------------------

// The word that is marked.
let marked = -1;
// The second that the clock tells.
let told = -1;
// The share of the waveform that is shown as played.
let shown = 0;
// Whether the reader has scrolled away from it: then nothing is moved until they seek.
let astray = false;

const following = () => follow.checked && !astray;

/** Show the present: on the clock, in both waveforms, in the text. */
function show() {
  const at = audio.currentTime;
  if (Math.floor(at) !== told) {
    told = Math.floor(at);
    now.textContent = clock(told);
    overview.setAttribute("aria-valuenow", told);
    overview.setAttribute(
      "aria-valuetext",
      `${clock(told)} ${overview.dataset.of} ${clock(length)}`,
    );
  }
  // In steps of half a pixel: each one paints the whole waveform.
  const steps = 2 * overview.clientWidth;
  const share = Math.round(Math.min(1, at / length) * steps) / steps;
  if (share !== shown) overview.style.setProperty("--at", (shown = share));
  needle.style.transform = `translateX(${at * PX}px)`;
  mark(wordAt(at));
  if (following()) followInCloseup(at);
}

function mark(number) {
  if (number === marked) return;
  for (const [which, on] of [
    [marked, false],
    [number, true],
  ]) {
    words[which]?.element.classList.toggle("playing", on);
    chips.get(which)?.classList.toggle("playing", on);
  }
  marked = number;
  if (number >= 0 && following()) followInText(words[number].element);
}

function followInText(element) {
  const { top, bottom } = element.getBoundingClientRect();
  const free = Math.max(0, player.getBoundingClientRect().bottom);
  if (top >= free && bottom <= innerHeight) return;
  const by = top - free - (innerHeight - free) / 3;
  scrollBy({
    top: by,
    behavior: calm.matches || Math.abs(by) > innerHeight ? "instant" : "smooth",
  });
}

/** Keep the needle at a third of the width; or, for those who want no motion, turn pages. */
function followInCloseup(at) {
  const [x, width] = [at * PX, closeup.clientWidth];
  const seen = x - closeup.scrollLeft;
  if (!calm.matches) closeup.scrollLeft = x - width / 3;
  else if (seen < 0 || seen > 0.95 * width) closeup.scrollLeft = x - width / 10;
}

let frame = 0;
function tick() {
  show();
  cancelAnimationFrame(frame);
  if (!audio.paused) frame = requestAnimationFrame(tick);
}

// -- where to go --------------------------------------------------------------------------------

function seek(seconds) {
  astray = false;
  audio.currentTime = Math.min(Math.max(seconds, 0), length);
  show();
  // In a pause no word is marked; the one before it shows where that is.
  const near = words[Math.max(0, lastBegun(wordStarts, audio.currentTime))];
  if (near && following()) followInText(near.element);
}

function resume() {
  astray = false;
  // A play that a pause or a fault overtakes is no news: the one is wanted, the other shown.
  audio.play().catch(() => {});
}

const toggle = () => (audio.paused ? resume() : audio.pause());

/** Play from a time on. */
function hear(seconds) {
  seek(seconds);
  resume();
}

/** Go to the next of some starts, or back: to the present one, or if it has just begun to another. */
function step(starts, forward) {
  const at = audio.currentTime;
  const present = lastBegun(starts, at);
  const back = present >= 0 && at - starts[present] > 1 ? present : present - 1;
  const target = starts[forward ? present + 1 : back];
  if (target !== undefined) seek(target);
}

/** Go to the paragraph that the address names. */
function visit() {
  const time = location.hash && get(location.hash.slice(1))?.querySelector(".time");
  if (time) seek(time.dataset.at / 1000);
}

function onTranscript(event) {
  const time = event.target.closest("[data-at]");
  const place = time ?? event.target.closest("[data-t], [data-event]");
  if (!place || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (!time && !getSelection().isCollapsed) return;
  event.preventDefault();
  const { at, t, event: happened } = place.dataset;
  hear((at ?? t?.split(" ")[0] ?? happened.split(" ")[1]) / 1000);
}

function onCloseup(event) {
  const chip = event.target.closest(".word");
  if (chip) hear(chip.dataset.t.split(" ")[0] / 1000);
  else hear((event.clientX - strip.getBoundingClientRect().left) / PX);
}

function onOverview(event) {
  if (event.type === "pointerdown") overview.setPointerCapture(event.pointerId);
  else if (!overview.hasPointerCapture(event.pointerId)) return;
  const { left, width } = overview.getBoundingClientRect();
  seek((length * (event.clientX - left)) / width);
}

function onOverviewKey(event) {
  const by = {
    ArrowLeft: -5,
    ArrowDown: -5,
    ArrowRight: 5,
    ArrowUp: 5,
    PageDown: -30,
    PageUp: 30,
    Home: -Infinity,
    End: Infinity,
  }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  seek(audio.currentTime + by);
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === " " && !event.target.closest("a, button, input, select")) toggle();
  else if (/^Arrow(Left|Right)$/.test(event.key) && !event.target.closest("select")) {
    step(event.shiftKey ? finalStarts : wordStarts, event.key === "ArrowRight");
  } else {
    if (/^(Page|Arrow)(Up|Down)$|^Home$|^End$/.test(event.key)) astray = true;
    return;
  }
  event.preventDefault();
}

// -- begin --------------------------------------------------------------------------------------

function onPlayChange() {
  play.classList.toggle("playing", !audio.paused);
  play.setAttribute("aria-label", audio.paused ? play.dataset.play : play.dataset.pause);
  tick();
}

// All that does nothing without this script is hidden, but for the line that says what is wrong.
for (const element of document.querySelectorAll("[hidden]:not(#trouble)")) element.hidden = false;
overview.tabIndex = 0;
for (const [name, value] of Object.entries({
  role: "slider",
  "aria-label": overview.dataset.label,
  "aria-valuemin": 0,
  "aria-valuemax": Math.floor(length),
}))
  overview.setAttribute(name, value);

for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, onPlayChange);
for (const name of ["timeupdate", "seeked"]) audio.addEventListener(name, show);
audio.addEventListener("error", () => {
  get("trouble").hidden = false;
});
play.addEventListener("click", toggle);
get("speed").addEventListener("change", (event) => {
  audio.playbackRate = event.target.value;
});
follow.addEventListener("change", () => {
  astray = false;
  show();
});
transcript.addEventListener("click", onTranscript);
closeup.addEventListener("click", onCloseup);
closeup.addEventListener("scroll", furnish);
overview.addEventListener("pointerdown", onOverview);
overview.addEventListener("pointermove", onOverview);
overview.addEventListener("keydown", onOverviewKey);
document.addEventListener("keydown", onKey);
for (const name of ["wheel", "touchmove"]) {
  document.addEventListener(
    name,
    (event) => {
      astray ||= !overview.contains(event.target);
    },
    { passive: true },
  );
}
addEventListener("hashchange", visit);
new ResizeObserver(furnish).observe(closeup);
new ResizeObserver(() => {
  // On a small screen a part of the player goes out of sight, by a top below 0.
  const covered = player.offsetHeight + parseFloat(getComputedStyle(player).top);
  document.documentElement.style.setProperty("--covered", `${covered}px`);
}).observe(player);

layOut();
furnish();
show();
audio.src = URL.createObjectURL(new Blob([bytes("sound")], { type: get("sound").dataset.type }));
visit();
