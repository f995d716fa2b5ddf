// Are there enough images, and are their classes right?

import { $, attempt, get, h, percent, post, say, showImage } from "./api.js";
import { chart } from "./chart.js";

let classes = [];

export const show = (state) => { classes = state.classes.map(({ name }) => name); };

$("enough").onclick = () => attempt(async () => {
  say("Measuring ...");
  const { accuracy, low, high, images, curve } = await get("enough");
  say("");
  const text = `${percent(accuracy)} of ${images} images are right when the classifier hasn't seen them `
    + `(95% interval ${percent(low)} to ${percent(high)}). More images help while the curve still rises.`;
  const shown = [h("p", {}, text)];
  const points = curve.map(([count, share]) => [Math.log2(count), 100 * share]);
  const ticks = curve.map(([count]) => [Math.log2(count), String(count)]);
  const options = { high: 100, unit: "%", ticks, dots: true };
  if (curve.length > 1) shown.push(chart("Accuracy by images per class", points, options));
  $("enough-answer").replaceChildren(...shown);
});

async function decide(item, doubt, name) {
  await post("relabel", { number: doubt.number, class: name });
  say(name === doubt.label ? `Confirmed: ${name}.` : `Moved to ${name}; Undo moves it back.`);
  const next = item.nextElementSibling ?? item.previousElementSibling;
  item.remove();
  next?.focus();
}

function card(doubt) {
  const image = h("img", { alt: `an image of ${doubt.label}` });
  const other = doubt.looks_like !== doubt.label;
  const text = h("div", {}, h("b", {}, doubt.label));
  if (other) text.append(h("div", { className: "other" }, `looks like ${doubt.looks_like}`));
  const item = h("li", { tabIndex: 0 }, image, text);
  const keep = h("button", { type: "button" }, "Right");
  keep.onclick = () => attempt(() => decide(item, doubt, doubt.label));
  const row = h("div", { className: "row" }, keep);
  if (other) {
    const move = h("button", { type: "button" }, `It is ${doubt.looks_like}`);
    move.onclick = () => attempt(() => decide(item, doubt, doubt.looks_like));
    row.append(move);
  }
  item.append(row);
  item.onkeydown = (event) => {
    if (event.target !== item) return;
    const step = { ArrowRight: item.nextElementSibling, ArrowLeft: item.previousElementSibling }[event.key];
    const name = event.key === "Enter" ? doubt.label : classes[Number(event.key) - 1];
    if (step) step.focus();
    else if (name !== undefined && event.key !== " ") attempt(() => decide(item, doubt, name));
  };
  attempt(() => showImage(image, `images/${doubt.number}`));
  return item;
}

$("review").onclick = () => attempt(async () => {
  const doubts = await get("review");
  const keys = classes.slice(0, 9).map((name, i) => `${i + 1} ${name}`).join(", ");
  $("review-hint").hidden = false;
  $("review-hint").textContent = doubts.length
    ? `The most doubtful first. Keys: Enter confirms; ${keys}; arrows move on.` : "Nothing left to review.";
  $("doubts").replaceChildren(...doubts.map(card));
  $("doubts").firstElementChild?.focus();
});
