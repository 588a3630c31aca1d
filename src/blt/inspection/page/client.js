/** The server: its model, readings of texts, and continuations. */

import { fromHex, toHex } from "./bytes.js";
import { Reading } from "./reading.js";

const NUM_ALTERNATIVES = 8;
const BYTE_OFFSET = 4; // id of byte 0
const MAX_WAIT = 5; // seconds

/** What the server refused, in its words. */
export class ServerError extends Error {}

/** Return what is known of the model: id, rule, whether it has entropies, limits. */
export async function fetchModel() {
  return (await ask("api/model")).json();
}

/** Return the reading of a text by a rule. */
export async function fetchReading(bytes, rule, signal) {
  const body = { hex: toHex(bytes), rule, alternatives: NUM_ALTERNATIVES };
  return Reading.from(await (await ask("api/patch", { body, signal })).json());
}

/** Return the page into which a reading is saved. */
export async function fetchSavedPage() {
  return (await ask("page/saved.html")).text();
}

/** Continue a text: yield the new bytes as they come, and return why the model stopped. */
export async function* generate(model, bytes, options, signal) {
  const prompt = Array.from(bytes, (byte) => byte + BYTE_OFFSET);
  const body = { model, prompt, ...options, stream: true, return_bytes: true };
  const response = await ask("v1/completions", { body, signal });
  let reason = "stop";
  for await (const event of eventsOf(response)) {
    if (event.error) throw new ServerError(event.error.message);
    const choice = event.choices?.[0];
    if (choice?.hex) yield fromHex(choice.hex);
    reason = choice?.finish_reason ?? reason;
  }
  return reason;
}

/** Yield the events of a stream of server-sent events, up to [DONE]. */
async function* eventsOf(response) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += decoder.decode(value, { stream: true }).replaceAll("\r\n", "\n");
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

/** Send a request; one that is told to wait is sent again. */
async function ask(path, { body, signal } = {}) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The server does not answer. Is blt serve still running?");
    }
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status !== 429 || !(wait <= MAX_WAIT)) throw new ServerError(await reasonOf(response));
    await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(wait, 0.2)));
    signal?.throwIfAborted();
  }
}

async function reasonOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status} ${response.statusText}.`;
  }
}
