/** The state of the page in the hash of its address, so that a link shows the same. */

import { fromBase64, toBase64 } from "./bytes.js";
import { RULES } from "./patching.js";

const MAX_BYTES = 1 << 20; // of a text in a link

/** Return the hash of a state `{bytes, rules, heat, byteByByte}`; the text is deflated where that is shorter. */
export async function hashOf({ bytes, rules, heat, byteByByte }) {
  const fields = new URLSearchParams();
  const small = await through(new CompressionStream("deflate-raw"), bytes);
  if (small.length < bytes.length) fields.set("z", toBase64(small));
  else fields.set("t", toBase64(bytes));
  fields.set("a", JSON.stringify(rules[0]));
  if (rules.length > 1) fields.set("b", JSON.stringify(rules[1]));
  if (heat !== "surprise") fields.set("heat", heat);
  if (byteByByte) fields.set("bytes", "1");
  return `#${fields}`;
}

/** Return the state of a hash, null where it has none; throws where it is damaged. */
export async function stateOf(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  if (!fields.has("t") && !fields.has("z")) return null;
  try {
    const bytes = fields.has("z")
      ? await through(new DecompressionStream("deflate-raw"), fromBase64(fields.get("z")))
      : fromBase64(fields.get("t"));
    const rules = ["a", "b"].filter((name) => fields.has(name)).map((name) => checkedRule(JSON.parse(fields.get(name))));
    const heat = fields.get("heat") === "entropy" ? "entropy" : "surprise";
    return { bytes, rules, heat, byteByByte: fields.get("bytes") === "1" };
  } catch {
    throw new Error("The link is damaged: what follows # in the address is no state of this page.");
  }
}

/** Return a rule from a link with nothing but settings that it can have. */
function checkedRule(given) {
  if (!Object.hasOwn(RULES, given.type)) throw new Error("no such rule");
  const rule = { type: given.type };
  for (const name of [...RULES[given.type].settings, "max_length"]) {
    if (name === "max_length" && given[name] == null) continue;
    const isCount = name.endsWith("length");
    if (!Number.isFinite(given[name]) || (isCount && !(Number.isInteger(given[name]) && given[name] >= 1))) {
      throw new Error(`${name} is no number`);
    }
    rule[name] = given[name];
  }
  return rule;
}

/** Return bytes after they have gone through a stream that changes them, up to a limit. */
async function through(stream, bytes) {
  const writer = stream.writable.getWriter();
  const written = writer.write(bytes).then(() => writer.close());
  written.catch(() => {}); // the reader meets the same error
  const parts = [];
  let length = 0;
  const reader = stream.readable.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    length += next.value.length;
    if (length > MAX_BYTES) throw new Error("too long");
    parts.push(next.value);
  }
  const whole = new Uint8Array(length);
  parts.reduce((start, part) => (whole.set(part, start), start + part.length), 0);
  return whole;
}
