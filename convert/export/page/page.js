// What a page that was exported with --format html does. `ort` is ONNX Runtime, above this.

const $ = (id) => document.getElementById(id);
const info = JSON.parse($("info").textContent);
const [H, W] = info.image_size;
let session;

// Images: what `Preprocess` does, with the filters of Pillow.

const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    const a = -0.5;
    x = Math.abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  }],
};

// For each of `size` outputs: the first input that it reads, and the weights from there on.
function taps(length, size) {
  const [reach, filter] = FILTERS[info.interpolation];
  const scale = length / size, stretch = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach * stretch + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) weights.push(filter((x - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// Resize one axis of rows x columns x channels; the other axis is `lines` long.
function resized(pixels, lines, length, size, lineStep, step, outLineStep, outStep, channels) {
  const out = new Uint8ClampedArray(lines * size * channels);
  const plan = taps(length, size);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < size; i++) {
      const [first, weights] = plan[i];
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * pixels[line * lineStep + (first + k) * step + c];
        }
        out[line * outLineStep + i * outStep + c] = Math.floor(sum + 0.5);
      }
    }
  }
  return out;
}

function round(x) { // half to even, as Python does
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

// The size before the crop: [width, height].
function before(width, height) {
  const [toHeight, toWidth] = info.target_size;
  if (info.resize_mode === "squash") return [toWidth, toHeight];
  if (toHeight !== toWidth) {
    const ratio = Math.min(height / toHeight, width / toWidth);
    return [round(width / ratio), round(height / ratio)];
  }
  if (width <= height) return [toWidth, Math.trunc((toWidth * height) / width)];
  return [Math.trunc((toHeight * width) / height), toHeight];
}

// Anything that a canvas can draw -> uint8 pixels (H, W, channels).
function prepared(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const channels = info.in_channels;
  let pixels = new Uint8ClampedArray(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 1) pixels[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else pixels.set([r, g, b], 3 * i);
  }
  const [toWidth, toHeight] = before(width, height), C = channels;
  if (toWidth !== width) {
    pixels = resized(pixels, height, width, toWidth, width * C, C, toWidth * C, C, C);
  }
  if (toHeight !== height) {
    pixels = resized(pixels, toWidth, height, toHeight, C, toWidth * C, C, toWidth * C, C);
  }
  const left = round((toWidth - W) / 2), top = round((toHeight - H) / 2);
  const out = new Uint8Array(H * W * C);
  for (let y = 0; y < H; y++) {
    const start = ((top + y) * toWidth + left) * C;
    out.set(pixels.subarray(start, start + W * C), y * W * C);
  }
  return out;
}

// Answers

async function classify(image, width, height) {
  const pixels = prepared(image, width, height);
  const tensor = new ort.Tensor("uint8", pixels, [1, H, W, info.in_channels]);
  const { probabilities } = await session.run({ image: tensor });
  const all = Array.from(probabilities.data, (value, index) => [value, index]);
  show(all.sort((a, b) => b[0] - a[0] || a[1] - b[1]).slice(0, 5));
}

function show(top) {
  $("answers").replaceChildren(...top.map(([value, index]) => {
    const row = document.createElement("li"), name = document.createElement("span");
    const share = document.createElement("span"), bar = document.createElement("progress");
    name.textContent = info.labels[index] ?? `class ${index}`;
    share.textContent = `${(100 * value).toFixed(1)}%`;
    row.dataset.index = index;
    row.dataset.probability = value;
    bar.value = value;
    bar.setAttribute("aria-label", name.textContent);
    row.append(name, share, bar);
    return row;
  }));
}

async function take(file) {
  if (!file || !session) return;
  stop();
  $("state").textContent = "Looking…";
  try {
    const image = await createImageBitmap(file, { colorSpaceConversion: "none" });
    const { width, height } = image, canvas = $("shown");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    canvas.hidden = false;
    $("hint").hidden = true;
    await classify(image, width, height);
    $("state").textContent = file.name || "Pasted image";
  } catch (error) {
    $("answers").replaceChildren();
    $("state").textContent = `This isn't an image that the browser can read (${error.message}).`;
  }
}

// Camera

let stream;

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  $("video").hidden = true;
  $("camera").textContent = "Use the camera";
}

async function look() {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    $("state").textContent = `The camera can't be used (${error.message}).`;
    return;
  }
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  [$("shown").hidden, $("hint").hidden, video.hidden] = [true, true, false];
  $("camera").textContent = "Stop the camera";
  $("state").textContent = "Camera";
  while (stream) {
    await classify(video, video.videoWidth, video.videoHeight);
    await new Promise((done) => setTimeout(done, 100));
  }
}

// Start

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (char) => char.charCodeAt(0));
  $(id).remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  session = await ort.InferenceSession.create(await unpacked("network"));
  $("drop").classList.remove("off");
  $("file").disabled = false;
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("state").textContent = "Ready";
}

$("file").addEventListener("change", (event) => take(event.target.files[0]));
$("camera").addEventListener("click", look);
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
start().catch((error) => {
  $("state").textContent = `This browser can't run the model (${error.message}).`;
});
