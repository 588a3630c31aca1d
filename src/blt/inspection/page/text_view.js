/** A text in patches: a list of glyphs to hover, to walk through with the arrow keys and to choose from. */

import { glyphsOf, nameOfByte } from "./glyphs.js";

let numViews = 0;

export class TextView {
  #glyphs = []; // {start, stop, text, isSign, patch, element}, the place behind the text last
  #active = null;
  #prefix = `view${(numViews += 1)}-`;

  /**
   * @param element the list box
   * @param onActive called with the first byte of the glyph that the pointer or the keyboard is on
   * @param onChoose called with it when it is clicked, or Enter is pressed
   * @param describe returns what a screen reader says of a glyph
   */
  constructor(element, { onActive, onChoose, describe }) {
    this.element = element;
    this.onActive = onActive;
    this.onChoose = onChoose;
    this.describe = describe;
    element.addEventListener("pointerover", (event) => this.#point(event, onActive));
    element.addEventListener("click", (event) => this.#point(event, onChoose));
    element.addEventListener("keydown", (event) => this.#press(event));
    element.addEventListener("focus", () => this.activate(this.#active?.start ?? 0, { reveal: false }));
  }

  /**
   * Draw the text.
   *
   * @param bytes the text
   * @param patches `{start, stop, isComplete}`, in order
   * @param known how many bytes have been read
   * @param heat heights from 0 to 1 of each byte, and the height above which a bar is marked; null for no bars
   */
  draw({ bytes, patches, known, heat, byteByByte, hasEnd }) {
    const active = this.#active?.start;
    this.#glyphs = [];
    const drawn = patches.map((patch, number) => this.#patch(bytes, patch, number, { known, heat, byteByByte }));
    if (hasEnd) drawn.push(this.#place({ start: bytes.length, stop: bytes.length, text: "▏", isSign: true }, null));
    this.element.replaceChildren(...drawn);
    this.#active = null;
    if (active !== undefined) this.activate(active, { reveal: false });
  }

  #patch(bytes, patch, number, { known, heat, byteByByte }) {
    const span = document.createElement("span");
    span.className = `patch ${number % 2 ? "odd" : "even"}${patch.isComplete ? "" : " open"}`;
    span.setAttribute("role", "group");
    span.setAttribute("aria-label", `patch ${number + 1}`);
    if (patch.start >= known) span.classList.add("unread");
    for (const glyph of glyphsOf(bytes, patch.start, patch.stop, { byteByByte })) {
      const element = this.#place(glyph, number);
      if (heat && glyph.start < known) {
        const height = Math.max(...heat.values.subarray(glyph.start, Math.min(glyph.stop, known)));
        element.style.setProperty("--heat", Math.min(Math.max(height, 0), 1).toFixed(3));
        if (height > heat.mark) element.classList.add("above");
      }
      span.append(element);
      if (bytes[glyph.start] === 0x0a) span.append("\n");
    }
    return span;
  }

  #place(glyph, patch) {
    const element = document.createElement("span");
    element.className = glyph.isSign ? "glyph sign" : "glyph";
    element.start = glyph.start;
    element.setAttribute("role", "option");
    element.textContent = glyph.text;
    if (patch === null) element.classList.add("end");
    if (patch === null || glyph.text === " ") element.setAttribute("aria-label", patch === null ? "what comes next" : "space");
    this.#glyphs.push({ ...glyph, patch, element });
    return element;
  }

  /** Mark the glyph that holds a byte. */
  activate(byte, { reveal = true } = {}) {
    const glyph = this.#glyphs[this.#indexOf(byte)];
    if (!glyph) return;
    if (this.#active) {
      this.#active.element.classList.remove("active");
      this.#active.element.removeAttribute("aria-selected");
    }
    this.#active = glyph;
    glyph.element.id = this.#prefix + glyph.start; // only now: a long text has many
    glyph.element.classList.add("active");
    glyph.element.setAttribute("aria-selected", "true");
    glyph.element.setAttribute("aria-label", this.describe(glyph));
    this.element.setAttribute("aria-activedescendant", glyph.element.id);
    if (reveal) glyph.element.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Return the glyph that holds a byte, or undefined. */
  glyphAt(byte) {
    return this.#glyphs[this.#indexOf(byte)];
  }

  #indexOf(byte) {
    let low = 0;
    let high = this.#glyphs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#glyphs[middle].start <= byte) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #point(event, tell) {
    const element = event.target.closest(".glyph");
    if (element) tell(element.start);
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#glyphs.length) return;
    const index = this.#active ? this.#indexOf(this.#active.start) : 0;
    const last = this.#glyphs.length - 1;
    const target = {
      ArrowRight: () => index + 1,
      ArrowLeft: () => index - 1,
      ArrowDown: () => this.#nextPatch(index, 1),
      ArrowUp: () => this.#nextPatch(index, -1),
      Home: () => 0,
      End: () => last,
    }[event.key];
    if (target) {
      event.preventDefault();
      const glyph = this.#glyphs[Math.min(Math.max(target(), 0), last)];
      this.activate(glyph.start);
      this.onActive(glyph.start);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.onChoose(this.#glyphs[index].start, { isKey: true });
    }
  }

  /** Return the index of the first glyph of the next or the previous patch. */
  #nextPatch(index, step) {
    const patch = this.#glyphs[index].patch;
    if (step > 0) {
      const next = this.#glyphs.findIndex((glyph, at) => at > index && glyph.patch !== patch);
      return next < 0 ? this.#glyphs.length - 1 : next;
    }
    const before = this.#glyphs.findIndex((glyph) => glyph.patch === patch);
    return this.#glyphs.findIndex((glyph) => glyph.patch === this.#glyphs[Math.max(before - 1, 0)].patch);
  }
}

/** Return what is said of a byte: its name, its patch and its figures. */
export function sentenceOf(bytes, glyph, reading) {
  if (glyph.patch === null) return "end of the text: what comes next";
  const names = Array.from(bytes.subarray(glyph.start, glyph.stop), nameOfByte);
  const name = glyph.stop - glyph.start > 1 ? `${glyph.text}, ${names.join(", ")}` : names[0];
  const said = [name, `patch ${glyph.patch + 1}`];
  if (glyph.start < reading.known) {
    said.push(`surprise ${listed(reading.surprise.subarray(glyph.start, glyph.stop), 1)} bits`);
    if (reading.entropies) said.push(`then entropy ${listed(reading.entropies.subarray(glyph.start, glyph.stop), 2)} nats`);
  }
  return said.join(", ");
}

/** Return figures with a comma between them. */
export function listed(values, digits) {
  return Array.from(values, (value) => value.toFixed(digits)).join(", ");
}
