// What the page asks its server. Addresses are relative: the page's own may have a secret in it.

const LAST = ["picture", "mask", "superseded"]; // events after which nothing more comes
const LARGEST = 16 * 2 ** 20; // bytes of a photo or a mask; the server takes no more

/** What the server has refused, or could not do: `status` is HTTP's, 0 where there is no answer at all; `kind` as in language.js. */
export class Failure extends Error {
  constructor(status, message, kind) {
    super(message);
    Object.assign(this, { status, kind });
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Failure(response.status, said.error || response.statusText, said.kind);
  }
  return response;
}

async function send(path, body, signal) {
  if (body.size > LARGEST || body.length > LARGEST) throw new Failure(413, "That file is too large: at most 16 MB", "too large");
  return ask(path, { method: "POST", body, signal });
}

export async function studio() {
  return (await ask("studio.json")).json();
}

/** The classes of one of the examples: Uint8Array, row by row. */
export async function exampleLabels(index) {
  return new Uint8Array(await (await ask(`examples/${index}`)).arrayBuffer());
}

/** The classes in a mask's file. */
export async function labelsOf(file) {
  return new Uint8Array(await (await send("labels", file)).arrayBuffer());
}

/** Gives the server a photo to paint after; returns the name it has there. */
export async function sendPhoto(file) {
  return (await (await send("photos", file)).json()).id;
}

/** Events of what the judge sees in a photo. */
export function judged(file, signal) {
  return events("judge", file, signal);
}

/** Events of a picture that is painted. */
export function painted(request, signal) {
  return events("paint", JSON.stringify(request), signal);
}

async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const piece = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Failure(0, "");
    });
    if (piece.done) throw new Failure(0, ""); // the server has ended in the midst of it
    const lines = (rest + piece.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "error") throw new Failure(500, event.error, event.kind);
      yield event;
      if (LAST.includes(event.event)) return;
    }
  }
}
