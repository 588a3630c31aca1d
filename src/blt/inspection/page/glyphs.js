/** What is shown as one thing: a character that lies within a patch, or a byte that is part of none. */

import { characterAt, escaped, lengthOf } from "./bytes.js";

const NAMED = { "\n": "⏎", "\t": "⇥" };
const PRINTABLE = /^(?: |[^\p{C}\p{Z}])$/u;

/** Return a character, or a sign for one that would not be seen or would steer the text. */
function shown(character) {
  if (character in NAMED) return NAMED[character];
  if (PRINTABLE.test(character)) return character;
  const code = character.codePointAt(0);
  return code < 0x80 ? escaped(code) : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/**
 * Cut a patch into glyphs `{start, stop, text, isSign}`.
 *
 * @param bytes the whole text
 * @param start first byte of the patch
 * @param stop the byte after its last
 * @param byteByByte whether every byte is a glyph of its own, in hexadecimal unless it is a printable ASCII character
 */
export function glyphsOf(bytes, start, stop, { byteByByte = false } = {}) {
  const glyphs = [];
  while (start < stop) {
    const isPart = byteByByte && bytes[start] >= 0x80;
    const character = isPart ? "" : characterAt(bytes, start, stop);
    const length = character ? lengthOf(character) : 1;
    const text = character ? shown(character) : escaped(bytes[start]);
    glyphs.push({ start, stop: start + length, text, isSign: text !== character });
    start += length;
  }
  return glyphs;
}

/** Return how a byte is called: its character and its two digits, or that the text ends. */
export function nameOfByte(byte) {
  if (byte === null) return "end of the text";
  if (byte === 0x20) return "space, 20";
  const text = byte < 0x80 ? shown(String.fromCharCode(byte)) : escaped(byte);
  return text.startsWith("⟨") ? `byte ${byte.toString(16).padStart(2, "0")}` : `${text}, ${byte.toString(16)}`;
}

/** Return how a byte looks on a button. */
export function faceOfByte(byte) {
  if (byte === null) return "end";
  if (byte === 0x20) return "␣";
  return byte < 0x80 ? shown(String.fromCharCode(byte)) : escaped(byte);
}
