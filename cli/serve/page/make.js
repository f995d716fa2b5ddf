// Models from the classes: save the head, fine-tune with live curves, export.

import { $, attempt, get, h, post, say } from "./api.js";
import { chart } from "./chart.js";

let drawing = false;
let formats = null;

async function draw() {
  if (drawing) return;
  drawing = true;
  const log = await attempt(() => get("log")) ?? [];
  drawing = false;
  const steps = log.filter(({ event }) => event === "step");
  const epochs = log.filter(({ event, raw, ema }) => event === "epoch" && (ema ?? raw));
  if (!steps.length) return $("curves").replaceChildren();
  const every = Math.ceil(steps.length / 200);
  const losses = steps.filter((_, i) => i % every === 0).map(({ step, loss }) => [step, loss]);
  const curves = [chart("Loss by step", losses)];
  if (epochs.length) {
    const points = epochs.map(({ step, raw, ema }) => [step, 100 * (ema ?? raw).top1]);
    curves.push(chart("Accuracy on validation images", points, { high: 100, unit: "%", dots: true }));
  }
  $("curves").replaceChildren(...curves);
}

async function showExport(models) {
  $("export").hidden = !models.length;
  if (!models.length) return;
  formats ??= get("formats");
  const options = (names) => names.map((name) => h("option", { value: name }, name));
  const chosen = $("export-model").value;
  $("export-model").replaceChildren(...options(models));
  $("export-model").value = models.includes(chosen) ? chosen : models.at(-1);
  if (!$("export-format").length) $("export-format").replaceChildren(...options(await formats));
}

export function show(state) {
  const { run, models } = state;
  const running = run?.running ?? false;
  $("train").hidden = running;
  $("stop").hidden = !running;
  $("stop").disabled = run?.stopping ?? false;
  $("resume").hidden = running || !run || run.finished;
  $("report").hidden = running || !run?.finished;
  $("report").href = state.report;
  $("run").textContent = run ? `${run.name}: ${running ? (run.stopping ? "saving ..." : "training ...")
    : run.finished ? "finished" : "stopped"}. ${run.sentence}` : "";
  attempt(() => showExport(models));
  if (run) draw();
  clearInterval(show.timer);
  if (running) show.timer = setInterval(draw, 700);
}

$("save").onclick = () => attempt(async () => {
  const { result } = await post("save");
  say(`Saved ${result}.`);
  $("saved").textContent = `mixer predict IMAGE -m ${result}`;
});
$("train").onclick = () => attempt(() => post("train", { epochs: Number($("epochs").value) || null }));
$("resume").onclick = () => attempt(() => post("train", { resume: true }));
$("stop").onclick = () => attempt(() => post("stop"));
$("export").onsubmit = (event) => {
  event.preventDefault();
  say("Exporting ...");
  attempt(async () => {
    const fields = { name: $("export-model").value, format: $("export-format").value };
    say(`Wrote ${(await post("export", fields)).result}.`);
  });
};
