// The camera: on and off, and its frames as JPEG files.

import { $, attempt } from "./api.js";

const LONGER_SIDE = 480;
let stream = null;

export const isOn = () => stream !== null;

export async function start() {
  if (stream) return;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch (error) {
    throw new Error(`The camera can't be used (${error.name}); allow it for this page.`);
  }
  $("video").srcObject = stream;
  $("live").hidden = false;
  $("camera").setAttribute("aria-pressed", "true");
  await $("video").play();
}

export function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("video").srcObject = null;
  $("live").hidden = true;
  $("camera").setAttribute("aria-pressed", "false");
}

export function frame() {
  const video = $("video");
  const scale = LONGER_SIDE / Math.max(video.videoWidth, video.videoHeight);
  const canvas = new OffscreenCanvas(video.videoWidth * scale, video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

$("camera").onclick = () => isOn() ? stop() : attempt(start);
