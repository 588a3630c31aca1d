/** What a model makes of a text: figures of each byte, as they come from the server or from a saved page. */

import { commonLength, fromHex, toHex } from "./bytes.js";

/** A reading; its figures hold for the first `known` bytes of the text that is shown. */
export class Reading {
  constructor({ bytes, rule, start, entropies, surprise, alternatives, flops }) {
    this.bytes = bytes;
    this.rule = rule;
    this.start = start;
    this.entropies = entropies;
    this.surprise = surprise;
    this.alternatives = alternatives;
    this.flops = flops;
  }

  /** Return the reading of an answer of the server. */
  static from(answer) {
    return new Reading({
      bytes: fromHex(answer.hex),
      rule: answer.rule,
      start: answer.start_entropy ?? 0,
      entropies: answer.entropies ? Float32Array.from(answer.entropies) : null,
      surprise: Float64Array.from(answer.surprise),
      alternatives: answer.alternatives ?? null,
      flops: answer.flops,
    });
  }

  /** Return the reading of nothing, before the first answer. */
  static empty(rule) {
    const entropies = new Float32Array();
    return new Reading({ bytes: new Uint8Array(), rule, start: 0, entropies, surprise: new Float64Array(), alternatives: null, flops: null });
  }

  /** Return the answer that this reading came from, as far as the page needs it. */
  toAnswer() {
    return {
      hex: toHex(this.bytes),
      rule: this.rule,
      start_entropy: this.entropies ? this.start : null,
      entropies: this.entropies && Array.from(this.entropies, (value) => Number(value.toPrecision(9))),
      surprise: Array.from(this.surprise, (value) => Math.round(value * 1e4) / 1e4),
      alternatives: this.alternatives,
      flops: this.flops,
    };
  }

  /** How many bytes have figures. */
  get known() {
    return this.bytes.length;
  }

  /** Bits per byte of what was read; the end of the text is not counted. Null for the empty text. */
  get bitsPerByte() {
    return this.known ? this.surprise.reduce((sum, bits) => sum + bits, 0) / this.known : null;
  }

  /** Return what still holds for another text: nothing that a model says of a byte depends on later ones. */
  upTo(bytes) {
    const length = commonLength(this.bytes, bytes);
    if (length === this.bytes.length) return this;
    return new Reading({
      ...this,
      bytes: this.bytes.slice(0, length),
      entropies: this.entropies && this.entropies.slice(0, length),
      surprise: this.surprise.slice(0, length),
      alternatives: this.alternatives && this.alternatives.slice(0, length + 1),
    });
  }
}
