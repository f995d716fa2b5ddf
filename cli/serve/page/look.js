// Images into answers: bars, heat maps, neighbours; live from the camera.

import { $, attempt, h, percent, say, send, showImage, sleep } from "./api.js";
import * as camera from "./camera.js";
import { imagesIn, onChoose, onDrop } from "./files.js";

const SHOWN = 200;
let can = {};

export const show = (state) => { can = { index: state.index, explain: !state.teach, unsure: state.unsure_below }; };

export function bars(list, predictions) {
  list.replaceChildren(...predictions.map(({ label, probability }) => {
    const bar = h("b");
    bar.style.width = percent(probability);
    return h("li", {}, h("span", {}, label), h("span", {}, percent(probability)),
      h("i", { "aria-hidden": "true" }, bar));
  }));
  if (predictions[0]?.probability < can.unsure) list.prepend(h("li", { className: "other" }, "unsure"));
}

async function neighbours(file, item) {
  const found = await send("nearest", file);
  const images = found.map(({ name, similarity }) =>
    h("img", { alt: name, title: `${name}: ${similarity.toFixed(3)}` }));
  item.append(h("div", { className: "near", role: "group", "aria-label": "Nearest images" }, ...images));
  await Promise.all(found.map(({ row }, i) => showImage(images[i], `neighbours/${row}`)));
}

async function explain(file, column, button) {
  button.disabled = true;
  const src = URL.createObjectURL(await send("explain", file, "blob"));
  column.append(h("img", { className: "photo", alt: "Heat map: orange speaks for the class, blue against it", src }));
  say("Orange speaks for the class, blue against it.");
}

async function look(file) {
  const photo = h("img", { className: "photo", alt: "", src: URL.createObjectURL(file) });
  photo.onload = () => URL.revokeObjectURL(photo.src);
  const column = h("div", {}, photo);
  const list = h("ol", { className: "bars" });
  const body = h("div", {}, h("p", { className: "name" }, file.name || "pasted image"), list);
  $("results").prepend(h("li", {}, column, body));
  while ($("results").children.length > SHOWN) $("results").lastChild.remove();
  try {
    const { predictions } = await send("predict", file);
    bars(list, predictions);
    if (!predictions.length) list.append("No answer yet: two classes need images.");
    if (can.index) await neighbours(file, body);
    if (!can.explain) return;
    const why = h("button", { type: "button", className: "why" }, "Why?");
    why.onclick = () => attempt(() => explain(file, column, why));
    body.append(why);
  } catch (error) {
    list.append(error.message);
    throw error;
  }
}

async function lookAt(files) {
  if (!files.length) return say("No images there.", true);
  for (const [number, file] of files.entries()) {
    await attempt(() => look(file));
    if (files.length > 1) say(`${number + 1} of ${files.length} images`);
  }
}

export async function live() {
  for (;;) {
    await sleep(60);
    if (!camera.isOn() || !$("video").videoWidth) continue;
    await attempt(async () => {
      const { predictions } = await send("predict", await camera.frame());
      bars($("live-answer"), predictions);
      const best = predictions[0]?.label ?? "";
      if ($("live-best").textContent !== best) $("live-best").textContent = best;
    });
  }
}

onChoose($("files"), lookAt);
onChoose($("folder"), lookAt, true);
onDrop($("look"), lookAt);
document.onpaste = async (event) => {
  const files = await imagesIn(event.clipboardData);
  if (files.length) lookAt(files);
};
