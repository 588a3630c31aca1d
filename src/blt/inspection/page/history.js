/** What the text was before, for undo and redo. */

const MAX_STEPS = 200;
const TYPING_PAUSE = 1000; // milliseconds after which typing starts another step

export class History {
  #past = [];
  #future = [];
  #lastTyped = -Infinity;

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** Note the text that is about to be replaced; what is typed without a pause is one step. */
  record(bytes, { isTyping = false, now = performance.now() } = {}) {
    const goesOn = isTyping && now - this.#lastTyped < TYPING_PAUSE && this.canUndo;
    this.#lastTyped = isTyping ? now : -Infinity;
    this.#future = [];
    if (goesOn) return;
    this.#past.push(bytes);
    if (this.#past.length > MAX_STEPS) this.#past.shift();
  }

  /** Return the text before this one, or null. */
  undo(bytes) {
    return this.#swap(this.#past, this.#future, bytes);
  }

  /** Return the text that was undone, or null. */
  redo(bytes) {
    return this.#swap(this.#future, this.#past, bytes);
  }

  #swap(from, to, bytes) {
    if (!from.length) return null;
    this.#lastTyped = -Infinity;
    to.push(bytes);
    return from.pop();
  }
}
