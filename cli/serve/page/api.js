// The server: requests with this start's token, the state as it changes, and elements of the page.

const token = location.hash.slice(1);

export const $ = (id) => document.getElementById(id);

// An element with properties and children; texts are never HTML.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const percent = (share) => `${(100 * share).toFixed(1)}%`;
export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, "X-Mixer-Token": token };
  const response = await fetch(`/api/${path}`, { ...options, headers });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error ?? `The server answered ${response.status}.`);
}

export const get = async (path) => (await ask(path)).json();

export const post = async (path, fields = {}) => (await ask(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields),
})).json();

// A file goes as its bytes alone; the answer is JSON, or for "blob" an image.
export const send = async (path, file, kind = "json") => (await ask(path, {
  method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
}))[kind]();

// Call a function of the page, and say what goes wrong.
export async function attempt(job) {
  try {
    return await job();
  } catch (error) {
    const lost = error instanceof TypeError;
    say(lost ? "The server doesn't answer; start it again in the terminal." : error.message, true);
    return undefined;
  }
}

// Images need the token too, so they can't be loaded by their address alone.
export async function showImage(image, path) {
  image.src = URL.createObjectURL(await (await ask(path)).blob());
  image.onload = () => URL.revokeObjectURL(image.src);
}

// The state now and whenever it changes, for as long as the page is open.
export async function follow(show) {
  for (;;) {
    await attempt(async () => {
      const response = await ask("events");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) throw new TypeError();
        const events = (text + value).split("\n\n");
        text = events.pop();
        for (const event of events) show(JSON.parse(event.slice("data: ".length)));
      }
    });
    await sleep(1000);
  }
}
