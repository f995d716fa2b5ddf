// Images that the user drops, pastes or chooses, folders included.

import { h } from "./api.js";

const isImage = (file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?)$/i.test(file.name);

async function* below(entry) {
  if (entry.isFile) return yield await new Promise((done, failed) => entry.file(done, failed));
  const reader = entry.createReader(); // which gives a part of a folder at a time
  for (let some; some?.length !== 0;) {
    some = await new Promise((done, failed) => reader.readEntries(done, failed));
    for (const inner of some) yield* below(inner);
  }
}

// Must be called before anything is awaited: a drop's items are gone afterwards.
export async function imagesIn(data) {
  const items = [...data.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [];
  for (const entry of entries) {
    if (entry instanceof File) files.push(entry);
    else if (entry) for await (const file of below(entry)) files.push(file);
  }
  return files.filter(isImage);
}

export function onDrop(element, take) {
  element.ondragover = (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("target");
  };
  element.ondragleave = () => element.classList.remove("target");
  element.ondrop = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("target");
    take(await imagesIn(event.dataTransfer));
  };
}

export function onChoose(button, take, folder = false) {
  const input = h("input", { type: "file", accept: "image/*", multiple: true, webkitdirectory: folder });
  button.onclick = () => input.click();
  input.onchange = () => {
    take([...input.files].filter(isImage));
    input.value = "";
  };
}
