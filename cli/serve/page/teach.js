// Classes: make, rename, fill them by camera or files, take images back.

import { $, attempt, get, h, post, say, send, showImage, sleep } from "./api.js";
import * as camera from "./camera.js";
import { onChoose, onDrop } from "./files.js";

const STRIP = 12;
const PAUSE = 120;
let cards = new Map();

const add = async (name, file) => (await send(`images?class=${encodeURIComponent(name)}`, file)).result;

async function addAll(name, files) {
  if (!files.length) say("No images there.", true);
  let [added, known] = [0, 0];
  for (const file of files) await attempt(async () => {
    if (await add(name, file) === null) known += 1;
    else added += 1;
    say(`${name}: ${added} added${known ? `, ${known} were there already` : ""}`);
  });
}

// Frames for as long as the button or its key is held; a click by itself records one.
function recorder(name) {
  const button = h("button", { type: "button" }, "Hold to record");
  let held = false;
  async function record() {
    if (held) return;
    held = true;
    let count = 0;
    button.classList.add("recording");
    await attempt(async () => {
      await camera.start();
      do {
        await add(name, await camera.frame());
        count += 1;
        await sleep(PAUSE);
      } while (held);
      say(`${name}: ${count} recorded`);
    });
    release();
  }
  function release() {
    held = false;
    button.classList.remove("recording");
  }
  function key(event, act) {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    act();
  }
  button.onpointerdown = record;
  button.onkeydown = (event) => key(event, record);
  button.onkeyup = (event) => key(event, release);
  button.onpointerup = button.onpointerleave = button.onpointercancel = button.onblur = release;
  button.onclick = ({ detail }) => {
    if (detail) return; // of a mouse, which has done its work
    record();
    release();
  };
  return button;
}

function make(name) {
  const card = { name, title: h("b"), count: h("span"), strip: h("div", { className: "strip" }) };
  const files = h("button", { type: "button" }, "Add images");
  const change = h("button", { type: "button" }, "Rename");
  card.element = h("li", { className: "class" },
    h("h3", {}, card.title, card.count, change),
    h("div", { className: "row" }, recorder(name), files), card.strip);
  change.onclick = () => {
    const to = prompt("New name of the class", name);
    if (to && to !== name) attempt(() => post("rename", { name, to }));
  };
  onChoose(files, (chosen) => addAll(name, chosen));
  onDrop(card.element, (dropped) => addAll(name, dropped));
  return card;
}

async function fill(card) {
  const numbers = await get(`images?class=${encodeURIComponent(card.name)}`);
  const shown = new Map([...card.strip.children].map((button) => [Number(button.dataset.number), button]));
  const buttons = numbers.slice(0, STRIP).map((number) => shown.get(number) ?? thumbnail(number));
  card.strip.replaceChildren(...buttons);
}

function thumbnail(number) {
  const image = h("img", { alt: "" });
  const button = h("button", { type: "button", title: "Take it back", "aria-label": "Take this image back" }, image);
  button.dataset.number = number;
  button.onclick = () => attempt(async () => {
    await post("remove", { number });
    (button.nextElementSibling ?? button.previousElementSibling)?.focus();
    say("Taken back; Undo returns it.");
  });
  showImage(image, `images/${number}`).catch(() => {}); // it may be gone already
  return button;
}

export function show(state) {
  $("undo").disabled = !state.undo;
  const kept = new Map();
  for (const { name, images } of state.classes) {
    const card = cards.get(name) ?? make(name);
    card.title.textContent = name;
    card.count.textContent = images === 1 ? "1 image" : `${images} images`;
    if (card.changes !== (card.changes = state.changes)) attempt(() => fill(card));
    kept.set(name, card);
  }
  cards = kept;
  const [now, before] = [[...kept.values()].map((card) => card.element), $("classes").children];
  if (now.length !== before.length || now.some((card, i) => card !== before[i])) $("classes").replaceChildren(...now);
}

$("new-class").onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    await post("classes", { name: $("class-name").value });
    $("class-name").value = "";
  });
};
$("undo").onclick = () => attempt(() => post("undo"));
