/** The page: a text, one or two views of its patches, and what the model would write instead. */

import { Alternatives } from "./alternatives.js";
import { bytesOf, commonLength, joined, textOf } from "./bytes.js";
import { ServerError, fetchModel, fetchReading, fetchSavedPage, generate } from "./client.js";
import { History } from "./history.js";
import { hashOf, stateOf } from "./link.js";
import { Pane, isSameRule } from "./pane.js";
import { pictureOf } from "./picture.js";
import { Reading } from "./reading.js";
import { pageWith, savedState } from "./saved.js";
import { download, element, keepTheme, say, showError } from "./surroundings.js";

const FIRST_TEXT = "Lily saw a big red ball in the park. She wanted to play with it.";
const TYPING_DELAY = 150; // milliseconds from the last change to a question to the server
const GENERATING_DELAY = 900;

class App {
  panes = [];
  history = new History();
  pinned = null; // the place whose alternatives stay, whatever the pointer is on
  generation = null; // an AbortController while the model writes

  constructor({ model, isLive, state }) {
    this.model = model;
    this.isLive = isLive;
    this.bytes = state.bytes;
    this.heat = state.heat;
    this.byteByByte = state.byteByByte;
    this.readings = state.readings ?? [];
    this.alternatives = new Alternatives(element("alternatives"), {
      onChoose: isLive ? (place, byte) => this.choose(place, byte) : null,
    });
    this.setPanes(state.rules);
    this.#setUpView();
    if (isLive) this.#setUpWriting();
  }

  /** Show one view of the text for each rule. */
  setPanes(rules) {
    this.panes = rules.map((rule, index) => {
      const pane = this.panes[index] ?? this.#newPane(index, rule);
      pane.rule = rule;
      return pane;
    });
    element("panes").replaceChildren(...this.panes.map((pane) => pane.element));
    element("compare").setAttribute("aria-pressed", String(rules.length > 1));
    this.panes[0].element.querySelector("h2").textContent = rules.length > 1 ? "Patches A" : "Patches";
    for (const pane of this.panes) {
      pane.show(this.#page());
      this.read(pane);
    }
  }

  #newPane(index, rule) {
    const pane = new Pane({
      name: "AB"[index],
      rule,
      model: this.model,
      on: {
        rule: (changed) => this.#ruleChanged(changed),
        active: (where, byte) => this.activate(where, byte),
        choose: (where, byte, how) => this.pin(where, byte, how),
      },
    });
    pane.reading = this.readings[index] ?? this.panes[0]?.reading ?? Reading.empty(rule);
    return pane;
  }

  #page() {
    return { bytes: this.bytes, heat: this.heat, byteByByte: this.byteByByte, hasEnd: this.isLive };
  }

  #ruleChanged(pane) {
    this.read(pane);
    this.#keepLink();
  }

  /** Show another text; what is known of the bytes that it shares with the old one stays. */
  setBytes(bytes, { isTyping = false, isRecorded = true } = {}) {
    if (commonLength(bytes, this.bytes) === Math.max(bytes.length, this.bytes.length)) return;
    if (isRecorded) this.history.record(this.bytes, { isTyping });
    this.bytes = bytes;
    if (!isTyping) this.#fillEditor();
    this.#showHistory();
    for (const pane of this.panes) {
      pane.show(this.#page());
      this.read(pane);
    }
    this.#keepLink();
  }

  /** Ask the server for the reading of a pane, once nothing has changed for a moment. */
  read(pane) {
    if (!this.isLive) return;
    if (this.generation && pane.timer) return; // while the model writes, now and then
    clearTimeout(pane.timer);
    pane.timer = setTimeout(() => this.#readNow(pane), this.generation ? GENERATING_DELAY : TYPING_DELAY);
  }

  async #readNow(pane) {
    pane.timer = null;
    pane.question?.abort();
    const question = (pane.question = new AbortController());
    const bytes = this.bytes.subarray(0, this.model.max_bytes);
    const { known, rule, alternatives } = pane.reading.upTo(bytes);
    if (known === bytes.length && isSameRule(rule, pane.rule) && alternatives) return;
    try {
      const reading = await fetchReading(bytes, pane.rule, question.signal);
      if (question.signal.aborted) return;
      pane.reading = reading;
      pane.drawNow();
      showError(null);
      if (!this.generation) this.#sayFigures();
    } catch (error) {
      if (error.name === "AbortError") return;
      showError(error.message);
      return;
    }
    this.alternatives.refresh(pane.view, pane.reading, this.bytes);
    if (this.bytes.length > bytes.length) {
      say(`The first ${bytes.length.toLocaleString("en")} bytes are read; the server reads no more at once.`);
    }
  }

  #sayFigures() {
    say(this.panes.map((pane) => pane.slider.getAttribute("aria-valuetext") ?? "read").join("; "));
  }

  /** Show what else could stand where the pointer or the keyboard is. */
  activate(pane, byte, { reveal = false } = {}) {
    if (this.pinned !== null && this.pinned !== byte && !reveal) return;
    for (const each of this.panes) each.activate(byte, { reveal: reveal || (each === pane && document.activeElement === each.view.element) });
    const glyph = pane.view.glyphAt(byte);
    if (glyph) this.alternatives.show({ bytes: this.bytes, glyph, reading: pane.reading });
  }

  /** Keep the alternatives of a place, whatever the pointer is on; once more, and they follow it again. */
  pin(pane, byte, { isKey = false } = {}) {
    const isPinned = this.pinned === byte && !isKey;
    this.pinned = null;
    this.activate(pane, byte);
    this.pinned = isPinned ? null : byte;
    if (isKey) this.alternatives.focus();
  }

  /** Put another byte in a place, and let the text go on from there. */
  choose(place, byte) {
    this.stop();
    this.pinned = place;
    this.setBytes(joined(this.bytes.subarray(0, place), Uint8Array.of(byte)));
    say(`The text is cut there, and goes on with the byte you chose.`);
    if (element("settings").elements.go_on.checked) this.generate();
  }

  /** Let the model write on; the bytes are shown as they come. */
  async generate() {
    const form = element("settings");
    if (!form.reportValidity()) return;
    this.stop();
    this.history.record(this.bytes);
    const generation = (this.generation = new AbortController());
    this.#showGenerating(true);
    let count = 0;
    let reason = "stopped";
    const start = performance.now();
    try {
      const pieces = generate(this.model.id, this.bytes, optionsOf(form), generation.signal);
      for (let next = await pieces.next(); ; next = await pieces.next()) {
        if (generation.signal.aborted) break;
        if (next.done) {
          reason = next.value;
          break;
        }
        count += next.value.length;
        this.setBytes(joined(this.bytes, next.value), { isRecorded: false });
        const speed = (1000 * count) / (performance.now() - start);
        element("speed").textContent = `${count.toLocaleString("en")} bytes · ${speed.toFixed(0)} bytes/s`;
      }
    } catch (error) {
      if (error.name !== "AbortError") showError(error.message);
    }
    if (this.generation !== generation) return; // another has begun
    this.generation = null;
    this.#showGenerating(false);
    const why = { length: "as many as asked for", stop: "the text ends there", stopped: "stopped" }[reason] ?? reason;
    say(`${count} bytes written: ${why}.`);
    if (count) element("speed").append(` · ${why}`);
    for (const pane of this.panes) {
      clearTimeout(pane.timer);
      pane.timer = null;
      this.read(pane);
    }
  }

  /** Stop the model where it is. */
  stop() {
    this.generation?.abort();
    this.generation = null;
    if (this.isLive) this.#showGenerating(false);
  }

  #showGenerating(isRunning) {
    element("stop").disabled = !isRunning;
    element("generate").setAttribute("aria-busy", String(isRunning));
    if (isRunning) {
      element("speed").textContent = "…";
      say("The model writes.");
    }
    this.#showHistory();
  }

  #showHistory() {
    if (!this.isLive) return;
    element("undo").disabled = !this.history.canUndo;
    element("redo").disabled = !this.history.canRedo;
  }

  #fillEditor() {
    const editor = element("editor");
    if (!this.isLive || editor.pending) return;
    editor.pending = requestAnimationFrame(() => {
      editor.pending = 0;
      editor.value = textOf(this.bytes);
      if (this.generation) editor.scrollTop = editor.scrollHeight;
    });
  }

  #undo(bytes) {
    if (!bytes) return;
    this.stop();
    this.pinned = null;
    this.setBytes(bytes, { isRecorded: false });
    this.#showHistory();
  }

  /** Write the state into the address, once nothing has changed for a moment. */
  #keepLink() {
    if (!this.isLive || this.generation) return;
    clearTimeout(this.linkTimer);
    this.linkTimer = setTimeout(() => this.keepLinkNow(), 300);
  }

  async keepLinkNow() {
    clearTimeout(this.linkTimer);
    history.replaceState(null, "", await hashOf({ ...this, rules: this.panes.map((pane) => pane.rule) }));
  }

  #setUpView() {
    const { heat, bytes, compare } = { heat: element("heat"), bytes: element("bytes"), compare: element("compare") };
    heat.value = this.heat;
    bytes.checked = this.byteByByte;
    const show = () => {
      this.heat = heat.value;
      this.byteByByte = bytes.checked;
      for (const pane of this.panes) pane.show(this.#page());
      this.#keepLink();
    };
    heat.addEventListener("change", show);
    bytes.addEventListener("change", show);
    compare.addEventListener("click", () => {
      const [first, second] = this.panes;
      const other = first.rule.type === "space" ? { type: "static", length: 4 } : { type: "space" };
      this.setPanes(second ? [first.rule] : [first.rule, this.model.compared ?? other]);
      this.#keepLink();
    });
    element("save-png").addEventListener("click", async () => download(await pictureOf(this.panes), "patches.png"));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.pinned = null;
      if (element("alternatives").contains(document.activeElement)) this.panes[0].view.element.focus();
    });
    element("model").textContent = this.model.id;
  }

  #setUpWriting() {
    const editor = element("editor");
    if (editor.value) this.setBytes(bytesOf(editor.value)); // written while the page was loading
    else editor.value = textOf(this.bytes);
    element("settings").elements.max_tokens.max = this.model.max_tokens ?? 4096;
    editor.addEventListener("input", () => {
      this.stop();
      this.pinned = null;
      this.setBytes(bytesOf(editor.value), { isTyping: true });
    });
    element("generate").addEventListener("click", () => this.generate());
    element("settings").addEventListener("submit", (event) => event.preventDefault());
    element("stop").addEventListener("click", () => {
      this.stop();
      for (const pane of this.panes) this.read(pane);
      say("Stopped.");
    });
    element("undo").addEventListener("click", () => this.#undo(this.history.undo(this.bytes)));
    element("redo").addEventListener("click", () => this.#undo(this.history.redo(this.bytes)));
    document.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
      event.preventDefault();
      this.#undo(event.shiftKey ? this.history.redo(this.bytes) : this.history.undo(this.bytes));
    });
    element("file").addEventListener("change", async ({ target }) => {
      const [file] = target.files;
      if (file) this.setBytes(new Uint8Array(await file.slice(0, this.model.max_bytes).arrayBuffer()));
      target.value = "";
    });
    element("link").addEventListener("click", () => this.#copyLink());
    element("save-html").addEventListener("click", () => this.#saveHtml());
    window.addEventListener("hashchange", () => this.#follow(location.hash));
  }

  async #follow(hash) {
    try {
      const state = await stateOf(hash);
      if (!state) return;
      this.stop();
      this.heat = element("heat").value = state.heat;
      this.byteByByte = element("bytes").checked = state.byteByByte;
      this.setBytes(state.bytes);
      this.setPanes(state.rules.length ? state.rules : [this.model.rule]);
      for (const pane of this.panes) pane.setRule(pane.rule);
    } catch (error) {
      showError(error.message);
    }
  }

  async #copyLink() {
    await this.keepLinkNow();
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied.", { isSeen: true });
    } catch {
      say("The link is in the address bar.", { isSeen: true });
    }
  }

  async #saveHtml() {
    try {
      const page = pageWith(await fetchSavedPage(), {
        model: this.model,
        readings: this.panes.map((pane) => pane.reading.upTo(this.bytes).toAnswer()),
        rules: this.panes.map((pane) => pane.rule),
        heat: this.heat,
        byteByByte: this.byteByByte,
      });
      download(new Blob([page], { type: "text/html" }), "patches.html");
    } catch (error) {
      showError(error.message);
    }
  }
}

/** Return the settings of generation of a form. */
function optionsOf(form) {
  const options = {};
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) {
    if (form.elements[name].value !== "") options[name] = Number(form.elements[name].value);
  }
  return options;
}

/** Return the state that a visit starts with: that of the link, or a first text. */
async function firstState(model) {
  const own = { bytes: new TextEncoder().encode(FIRST_TEXT), rules: [model.rule], heat: "surprise", byteByByte: false };
  try {
    const state = await stateOf(location.hash);
    return state ? { ...state, rules: state.rules.length ? state.rules : own.rules } : own;
  } catch (error) {
    showError(error.message);
    return own;
  }
}

keepTheme(element("theme"), () => window.app?.panes.forEach((pane) => pane.curve.redraw()));
try {
  const saved = savedState();
  const model = saved?.model ?? (await fetchModel());
  window.app = new App({ model, isLive: !saved, state: saved ?? (await firstState(model)) });
} catch (error) {
  showError(error.message);
  if (!(error instanceof ServerError)) throw error;
}
