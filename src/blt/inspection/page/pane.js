/** One view of the text: a rule, its figures, the curve with θ, and the text in patches. */

import { Curve, rangeOf } from "./curve.js";
import { RULES, endsOf, flopsPerByte, patchesOf, scoresOf, thresholdFor } from "./patching.js";
import { TextView, sentenceOf } from "./text_view.js";

const MOST_BITS = 8; // of surprise, at which the bar of a byte is full
const MOST_COST = 25; // milliseconds for the text, above which it follows a drag now and then, and not in each frame
const DEFAULTS = { threshold: 0, rise_threshold: 0, length: 4 };

export class Pane {
  #drawn = 0;
  #viewTimer = 0;
  #viewCost = 0; // milliseconds that the text took to draw, last time

  /**
   * @param name "A" or "B"
   * @param rule as `config.json` holds it
   * @param model what the server says of the model
   * @param on functions `rule`, `active` and `choose`, called with the pane
   */
  constructor({ name, rule, model, on }) {
    this.rule = rule;
    this.model = model;
    this.on = on;
    this.reading = null;
    this.active = null;
    this.page = { bytes: new Uint8Array(), heat: "surprise", byteByByte: false, hasEnd: true };
    this.element = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    this.element.querySelector("h2").textContent = `Patches ${name}`;
    const text = this.element.querySelector(".text");
    text.setAttribute("aria-label", `Text in patches ${name}`);
    this.slider = this.element.querySelector("[role=slider]");
    this.slider.setAttribute("aria-label", `Threshold θ of ${name}, in nats`);
    this.view = new TextView(text, {
      onActive: (byte) => on.active(this, byte),
      onChoose: (byte, how) => on.choose(this, byte, how),
      describe: (glyph) => sentenceOf(this.page.bytes, glyph, this.reading),
    });
    this.curve = new Curve(this.element.querySelector(".curve"), {
      onThreshold: (threshold) => this.setRule({ ...this.rule, threshold }),
      onByte: (byte) => on.choose(this, byte),
    });
    this.#setUpForm();
  }

  /** Follow another rule; `on.rule` is told. */
  setRule(rule) {
    this.rule = rule;
    this.#fillForm();
    this.draw();
    this.on.rule(this);
  }

  /** Show other text, or the same in another way. */
  show(page) {
    this.page = { ...this.page, ...page };
    this.draw();
  }

  /** Mark a byte here as in the other pane. */
  activate(byte, options) {
    this.active = byte;
    this.view.activate(byte, options);
    if (this.curveModel) this.curve.draw(Object.assign(this.curveModel, { active: byte }));
  }

  /** Draw with the next frame. */
  draw() {
    if (!this.#drawn) this.#drawn = requestAnimationFrame(() => this.drawNow());
  }

  /** Return what is to be drawn: patches, scores and figures. */
  layout() {
    const { bytes } = this.page;
    const reading = this.reading.upTo(bytes);
    const ends = endsOf(this.rule, reading.bytes, reading);
    const read = patchesOf(ends, reading.known);
    const patches = reading.known < bytes.length ? [...read, { start: reading.known, stop: bytes.length, isComplete: false }] : read;
    const mean = read.length ? reading.known / read.length : null;
    return { reading, ends, patches, numPatches: read.length, mean, scores: scoresOf(this.rule, reading) };
  }

  drawNow() {
    cancelAnimationFrame(this.#drawn);
    this.#drawn = 0;
    if (!this.reading) return;
    const layout = this.layout();
    const { scores } = layout;
    this.reading = layout.reading;
    const range = rangeOf(scores ?? [], [this.model.rule.threshold ?? 0, this.rule.threshold ?? 0]);
    const isDragged = this.slider.classList.contains("dragged");
    if (!isDragged || this.#viewCost < MOST_COST) this.#drawText(layout, range);
    else this.#viewTimer ||= setTimeout(() => this.#drawText(this.layout(), range), 2 * this.#viewCost);
    const says = this.#showFigures(layout);
    this.curveModel = scores && {
      ...layout,
      length: Math.max(this.page.bytes.length, 1),
      range: isDragged && this.curveModel ? this.curveModel.range : range,
      active: this.active,
      threshold: this.rule.threshold,
      label: `${this.rule.type === "entropy-rise" ? "Rise of the entropy" : "Entropy of the next byte"} along the text, in nats`,
      says: `${this.rule.threshold.toFixed(2)} nats: ${says}`,
    };
    this.curve.draw(this.curveModel ?? { scores: null });
  }

  #drawText({ reading, patches }, range) {
    clearTimeout(this.#viewTimer);
    this.#viewTimer = 0;
    const start = performance.now();
    const { bytes, byteByByte, hasEnd } = this.page;
    this.view.draw({ bytes, patches, known: reading.known, heat: this.heatOf(reading, range), byteByByte, hasEnd });
    this.#viewCost = this.view.element.offsetHeight ? performance.now() - start : 0; // with the layout, which it asks for
  }

  /** Return the heights of the bars of all bytes, from 0 to 1, and the one above which they are marked. */
  heatOf(reading, range) {
    if (this.page.heat === "surprise") return { values: reading.surprise.map((bits) => bits / MOST_BITS), mark: Infinity };
    if (!reading.entropies) return null;
    const high = reading.entropies.reduce((most, value) => Math.max(most, value), range.high);
    const hasMark = ["entropy", "entropy-and-rise"].includes(this.rule.type);
    return { values: reading.entropies.map((value) => value / high), mark: hasMark ? this.rule.threshold / high : Infinity };
  }

  /** Return the figures by name, as they are shown. */
  figuresOf({ reading, numPatches, mean }) {
    const bits = reading.bitsPerByte;
    return {
      patches: numPatches.toLocaleString("en"),
      mean: mean === null ? "–" : `${mean.toFixed(2)} bytes`,
      flops: mean === null || !reading.flops ? "–" : `${withUnit(flopsPerByte(reading.flops, mean))}FLOPs`,
      bits: bits === null ? "–" : bits.toFixed(3),
    };
  }

  #showFigures(layout) {
    const figures = this.figuresOf(layout);
    for (const [name, value] of Object.entries(figures)) {
      this.element.querySelector(`[data-figure=${name}]`).textContent = value;
    }
    const isStale = !isSameRule(this.rule, layout.reading.rule);
    this.element.querySelector("[data-figure=bits]").classList.toggle("stale", isStale);
    return `${figures.patches} patches, mean ${figures.mean}, ${figures.flops} per byte`;
  }

  #setUpForm() {
    this.form = this.element.querySelector("form");
    const type = this.#field("type");
    for (const [name, { label, needsEntropies }] of Object.entries(RULES)) {
      const option = new Option(label, name);
      option.disabled = needsEntropies && !this.model.has_entropy_model;
      type.append(option);
    }
    type.addEventListener("change", () => this.setRule(this.#ruleOf(type.value)));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => {
      if (event.target !== type && event.target.validity.valid) this.setRule(this.#ruleOfForm());
    });
    this.element.querySelector(".own").addEventListener("click", () => this.setRule({ ...this.model.rule }));
    this.#fillForm();
  }

  /** Return a field by its name, also by one that the list of fields has for itself: length. */
  #field(name) {
    return this.form.elements.namedItem(name);
  }

  /** Return a rule of another type, with as many patches as there are now where it has a threshold. */
  #ruleOf(type) {
    if (type === this.model.rule.type) return { ...this.model.rule };
    const rule = { type };
    for (const name of RULES[type].settings) rule[name] = this.rule[name] ?? DEFAULTS[name];
    if (this.rule.max_length != null) rule.max_length = this.rule.max_length;
    if (rule.threshold !== undefined && this.reading) {
      const count = endsOf(this.rule, this.reading.bytes, this.reading).reduce((sum, end) => sum + end, 0);
      rule.threshold = thresholdFor(scoresOf(rule, this.reading) ?? [], count);
    }
    return rule;
  }

  #ruleOfForm() {
    const rule = { type: this.#field("type").value };
    for (const name of [...RULES[rule.type].settings, "max_length"]) {
      const text = this.#field(name).value;
      if (text !== "") rule[name] = Number(text);
      else if (name !== "max_length") rule[name] = this.rule[name] ?? DEFAULTS[name];
    }
    return rule;
  }

  #fillForm() {
    this.#field("type").value = this.rule.type;
    for (const name of ["threshold", "rise_threshold", "length", "max_length"]) {
      const isShown = name === "max_length" || RULES[this.rule.type].settings.includes(name);
      const field = this.#field(name);
      field.closest("label").hidden = !isShown;
      field.disabled = !isShown;
      if (document.activeElement !== field) field.value = rounded(this.rule[name]);
    }
    this.element.querySelector(".own").disabled = isSameRule(this.rule, this.model.rule);
  }
}

/** Whether two rules are the same. */
export function isSameRule(first, second) {
  const names = new Set([...Object.keys(first), ...Object.keys(second)]);
  return [...names].every((name) => (first[name] ?? null) === (second[name] ?? null));
}

function rounded(value) {
  return value == null ? "" : String(Number(value.toFixed(4)));
}

/** Write three digits and a prefix, to be followed by the unit. */
function withUnit(number) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let place = 0;
  while (number >= 999.5 && place < prefixes.length - 1) {
    number /= 1000;
    place += 1;
  }
  return `${Number(number.toPrecision(3))} ${prefixes[place]}`;
}
