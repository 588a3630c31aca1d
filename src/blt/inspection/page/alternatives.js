/** What else could stand in the place of a byte, and how likely each is. */

import { faceOfByte, nameOfByte } from "./glyphs.js";

export class Alternatives {
  #shown = null;

  /**
   * @param element the panel
   * @param onChoose called with the place and the byte that is to stand there; absent where nothing can go on
   */
  constructor(element, { onChoose }) {
    this.onChoose = onChoose;
    this.title = element.querySelector("h2");
    this.bytes = element.querySelector(".bytes");
    this.facts = element.querySelector(".facts");
    this.list = element.querySelector("ol");
    this.hint = element.querySelector(".hint");
  }

  /**
   * Show the place of one byte of a glyph.
   *
   * @param glyph `{start, stop, text, patch}`
   * @param place the byte, from `start` on
   */
  show({ bytes, glyph, reading, place = glyph.start }) {
    this.#shown = { bytes, glyph, reading, place };
    const isEnd = glyph.patch === null;
    this.title.textContent = isEnd ? "What comes next" : `In place of ${nameOfByte(bytes[place])}`;
    this.#showBytes();
    this.facts.textContent = isEnd ? "" : factsOf(reading, place);
    const likeliest = reading.alternatives?.[place];
    this.list.replaceChildren(...(likeliest ?? []).map((each) => this.#row(each, isEnd ? undefined : bytes[place])));
    this.hint.textContent = likeliest ? "" : place > reading.known ? "Not read yet." : "Not kept in this page.";
    if (likeliest && this.onChoose) this.hint.textContent = "Choose one, and the text goes on from there.";
  }

  /** Show the same place after something has changed. */
  refresh(view, reading, bytes) {
    if (!this.#shown) return;
    const glyph = view.glyphAt(Math.min(this.#shown.place, bytes.length));
    if (glyph) this.show({ bytes, glyph, reading, place: Math.min(Math.max(this.#shown.place, glyph.start), Math.max(glyph.stop - 1, glyph.start)) });
  }

  /** Move the focus to the likeliest one. */
  focus() {
    (this.list.querySelector("button") ?? this.title).focus();
  }

  /** Offer each byte of a character that has several. */
  #showBytes() {
    const { bytes, glyph, place } = this.#shown;
    const places = Array.from({ length: glyph.stop - glyph.start }, (_, index) => glyph.start + index);
    this.bytes.hidden = places.length < 2;
    this.bytes.replaceChildren(
      ...places.map((each) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = bytes[each].toString(16).padStart(2, "0");
        button.setAttribute("aria-pressed", String(each === place));
        button.addEventListener("click", () => {
          this.show({ ...this.#shown, place: each });
          this.bytes.children[each - glyph.start].focus();
        });
        return button;
      }),
    );
  }

  #row([byte, probability], chosen) {
    const row = document.createElement("li");
    const isButton = this.onChoose && byte !== null;
    const cell = document.createElement(isButton ? "button" : "div");
    cell.className = "alternative";
    cell.style.setProperty("--share", probability.toFixed(4));
    if (byte === chosen) cell.classList.add("chosen");
    const said = `${nameOfByte(byte)}: ${percent(probability)}${byte === chosen ? ", stands there" : ""}`;
    if (isButton) {
      const { place } = this.#shown;
      cell.type = "button";
      cell.setAttribute("aria-label", said);
      cell.addEventListener("click", () => this.onChoose(place, byte));
    }
    const face = document.createElement("span");
    face.textContent = faceOfByte(byte);
    const share = document.createElement("span");
    share.textContent = percent(probability);
    cell.append(face, share);
    row.append(cell);
    return row;
  }
}

function factsOf(reading, place) {
  if (place >= reading.known) return "Not read yet.";
  const bits = reading.surprise[place];
  const facts = [`${bits.toFixed(2)} bits of surprise (${percent(2 ** -bits)})`];
  if (reading.entropies) facts.push(`${reading.entropies[place].toFixed(2)} nats of entropy after it`);
  return facts.join(" · ");
}

/** Return a probability in per cent. */
function percent(probability) {
  const value = 100 * probability;
  return `${value >= 99.95 || value === 0 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toPrecision(1)} %`;
}
