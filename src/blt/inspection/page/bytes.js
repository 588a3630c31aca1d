/** Bytes: as hexadecimal, as base64 for links, and as text that can be edited. */

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** Return bytes as lowercase hexadecimal. */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return the bytes of a hexadecimal text. */
export function fromHex(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Return bytes as base64 with the alphabet for addresses, without padding. */
export function toBase64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Return the bytes of such a base64 text; throws where it is none. */
export function fromBase64(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

/** Return one array of bytes behind the other. */
export function joined(first, second) {
  const whole = new Uint8Array(first.length + second.length);
  whole.set(first);
  whole.set(second, first.length);
  return whole;
}

/** Return how many bytes two arrays have in common from their start. */
export function commonLength(first, second) {
  const most = Math.min(first.length, second.length);
  let length = 0;
  while (length < most && first[length] === second[length]) length += 1;
  return length;
}

/** Return the character whose bytes start there and end before `stop`, or "" for bytes that are none. */
export function characterAt(bytes, start, stop) {
  const lead = bytes[start];
  const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (start + length > stop) return "";
  try {
    return decoder.decode(bytes.subarray(start, start + length));
  } catch {
    return "";
  }
}

/** Return how many bytes a character has in UTF-8. */
export function lengthOf(character) {
  const code = character.codePointAt(0);
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

/** Return how a byte that is no character of its own is written: ⟨e2⟩. */
export function escaped(byte) {
  return `⟨${byte.toString(16).padStart(2, "0")}⟩`;
}

/**
 * Return bytes as text for a text field, from which `bytesOf` gets the same bytes back.
 *
 * A byte that is no whole character, or a control character that the field would lose, is written ⟨e2⟩; so is the sign
 * ⟨ itself where the text would otherwise read like such a byte.
 */
export function textOf(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; ) {
    const character = characterAt(bytes, start, bytes.length);
    const length = character ? lengthOf(character) : 1;
    const isControl = character < " " && character !== "\n" && character !== "\t";
    const isAmbiguous = character === "⟨" && /^[0-9a-f]{2}\u27e9/i.test(latin(bytes, start + 3));
    if (!character || isControl || isAmbiguous) {
      text += Array.from(bytes.subarray(start, start + length), escaped).join("");
    } else {
      text += character;
    }
    start += length;
  }
  return text;
}

/** Return the next two bytes as they are, and a third sign if the character ⟩ stands there. */
function latin(bytes, start) {
  const pair = String.fromCharCode(...bytes.subarray(start, start + 2));
  return pair + (start + 2 < bytes.length ? characterAt(bytes, start + 2, bytes.length) : "");
}

/** Return the bytes of the text of a text field; ⟨e2⟩ stands for the byte e2. */
export function bytesOf(text) {
  let bytes = new Uint8Array();
  const parts = text.split(/⟨([0-9a-f]{2})⟩/i); // every second part is the two digits
  for (const [index, part] of parts.entries()) {
    bytes = joined(bytes, index % 2 ? fromHex(part) : encoder.encode(part));
  }
  return bytes;
}
